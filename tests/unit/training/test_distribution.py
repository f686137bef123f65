"""Numbers that `ms.Distributed` refuses."""

import pytest

import mainspring as ms
from mainspring.core.errors import Invalid


def test_more_processes_than_a_machine_has_cores_are_refused():
    assert ms.Distributed(processes=1_024).size == 1_024
    with pytest.raises(Invalid, match="processes=10,000 of a machine") as refused:
        ms.Distributed(processes=10_000)
    assert "up to 1,024" in (refused.value.fix or "")
