"""Silence is an absence of what is usual: not a night, a weekend or a quiet endpoint."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.time import DAY, HOUR, MINUTE, WEEK
from mainspring.monitoring.incidents.model import Part
from mainspring.monitoring.incidents.silences import Traffic, missing_predictions, monitor_silences, quiet_endpoints

MONDAY = 4 * DAY  # 1970-01-05


def hours(count: int, usual: Callable[[int], int], silent: range = range(0)) -> list[Traffic]:
    return [
        Traffic(MONDAY + at * HOUR, MONDAY + (at + 1) * HOUR, 0 if at in silent else usual(at)) for at in range(count)
    ]


def silent_hours(windows: list[Traffic]) -> list[int]:
    return [(each.start - MONDAY) // HOUR for each in missing_predictions("late", windows).signals]


def by_day(at: int) -> int:
    """Return the traffic of offices: none at night and none at the weekend."""
    return 60 if 8 <= at % 24 < 18 and at // 24 % 7 < 5 else 0


def test_nights_and_weekends_of_offices_are_no_silence() -> None:
    assert silent_hours(hours(5 * 7 * 24, by_day)) == []


def test_a_silent_morning_is_one_from_its_first_hour() -> None:
    morning = 3 * 7 * 24 + 8
    assert silent_hours(hours(morning + 3, by_day, range(morning, morning + 3))) == [morning, morning + 1, morning + 2]


def test_a_silence_goes_on_over_the_night_and_ends_with_traffic() -> None:
    noon = 3 * 7 * 24 + 12
    judged = missing_predictions("late", hours(noon + 24, by_day, range(noon, noon + 22)))
    assert [each.severity for each in judged.signals] == sorted(each.severity for each in judged.signals)
    assert judged.windows[-2:] == tuple((each.start, each.end) for each in hours(noon + 24, by_day)[-2:])


def test_a_few_predictions_that_are_missing_may_be_chance() -> None:
    assert silent_hours(hours(400, lambda _: 2, range(390, 393))) == []
    assert silent_hours(hours(400, lambda _: 2, range(390, 394))) == [393]


def test_a_week_is_needed_before_anything_is_usual() -> None:
    assert silent_hours(hours(160, lambda _: 500, range(150, 160))) == []
    assert silent_hours(hours(180, lambda _: 500, range(179, 180))) == [179]


def test_a_silence_of_weeks_is_the_usual_in_the_end() -> None:
    found = silent_hours(hours(600, lambda _: 500, range(200, 600)))
    assert found == list(range(200, 228))


def test_days_are_windows_too() -> None:
    days = [Traffic(MONDAY + at * DAY, MONDAY + (at + 1) * DAY, 0 if at == 20 else 300) for at in range(21)]
    [signal] = missing_predictions("late", days).signals
    assert (signal.start, signal.page, signal.detail) == (
        MONDAY + 20 * DAY,
        True,
        "late has had no predictions for 24 hours; 300 are usual.",
    )


@given(st.lists(st.integers(0, 50), max_size=400))
def test_each_window_with_traffic_is_judged_and_none_of_them_is_a_signal(counts: list[int]) -> None:
    windows = [Traffic(at * HOUR, (at + 1) * HOUR, count) for at, count in enumerate(counts)]
    judged = missing_predictions("late", windows)
    busy = {(each.start, each.end) for each in windows if each.predictions}
    signals = {(each.start, each.end) for each in judged.signals}
    assert busy.isdisjoint(signals)
    assert {*judged.windows} == busy | signals


def test_a_part_that_fails_is_a_signal_until_it_has_worked_for_minutes() -> None:
    failed = Part(endpoint="late", part="harm", ran_at=WEEK, error="No.")
    [signal] = [each for one in monitor_silences([], [failed], DAY) for each in one.signals]
    assert (signal.column, signal.end, signal.detail) == ("harm", WEEK, "The monitor's part 'harm' failed: No.")
    well = Part(endpoint="late", part="harm", ran_at=WEEK + 3 * MINUTE, since=WEEK)
    found = {each.scope: each for each in monitor_silences([failed], [well], DAY)}
    assert len(found["silence monitor harm"].windows) == 3
    assert found["silence monitor harm"].signals == ()


def test_an_endpoint_that_was_never_watched_is_not_silent() -> None:
    parts = [Part(endpoint="late", part="harm", ran_at=0, since=0)]
    assert quiet_endpoints(parts, ["late", "new"], 10, 5) == {"late": 10}
    assert quiet_endpoints(parts, ["late", "new"], 5, 5) == {}
