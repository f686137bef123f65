import pytest

from mainspring.app.runs.reproduce_child import recorded_instant

UNTIL = 1_372_636_800_000_000


@pytest.mark.parametrize(
    ("text", "instant"),
    [(None, None), ("None", None), (str(UNTIL), UNTIL), ("-1", -1), ("2013-07-01T00:00:00Z", UNTIL)],
)
def test_the_bounds_of_a_recorded_run_are_read_in_every_form_they_had(text: str | None, instant: int | None) -> None:
    assert recorded_instant(text) == instant
