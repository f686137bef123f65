import pytest

from mainspring.operations.reproduce.child import recorded_instant
from mainspring.registry.model import RunRecord
from mainspring.training.runs.differences import outcome

UNTIL = 1_372_636_800_000_000


@pytest.mark.parametrize(
    ("text", "instant"),
    [(None, None), ("None", None), (str(UNTIL), UNTIL), ("-1", -1), ("2013-07-01T00:00:00Z", UNTIL)],
)
def test_the_bounds_of_a_recorded_run_are_read_in_every_form_they_had(text: str | None, instant: int | None) -> None:
    assert recorded_instant(text) == instant


def test_the_bounds_of_a_run_from_before_are_no_difference() -> None:
    def run(**params: str) -> RunRecord:
        return RunRecord("r", "m", "FINISHED", 0, 1, params, {}, {})

    before, now = run(since="None", until=str(UNTIL), depth="3"), run(until="2013-07-01T00:00:00Z", depth="4")
    found = outcome(before, now, None, None)  # type: ignore[arg-type]
    assert [each.name for each in found.params] == ["depth"]
