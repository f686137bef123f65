"""Numbers that `ms.Distributed` refuses."""

import pytest

import mainspring as ms
from mainspring.core.errors import Invalid


def test_more_processes_than_a_machine_has_cores_are_refused():
    assert ms.Distributed(processes=1_024).size == 1_024
    with pytest.raises(Invalid, match="processes=10,000 of a machine") as refused:
        ms.Distributed(processes=10_000)
    assert "up to 1,024" in (refused.value.fix or "")


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ({"processes": 0}, "at least 1"),
        ({"restarts": -1}, "from 0 on, and seconds above 0"),
        ({"silence_s": float("nan")}, "seconds above 0"),
        ({"at_least": 3}, "from 0 to 2"),
        ({"shard": 3}, "multiple of 3"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_with_what_does(given, fix):
    with pytest.raises(Invalid) as refused:
        ms.Distributed(**{"processes": 2, **given})
    assert fix in (refused.value.fix or "")
