import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.core.time import (
    DAY,
    FIRST_INSTANT,
    HOUR,
    LAST_INSTANT,
    LONGEST_DURATION,
    MINUTE,
    SECOND,
    ManualClock,
    ReplayClock,
    SystemClock,
    format_duration,
    format_instant,
    from_datetime,
    parse_duration,
    parse_end,
    parse_instant,
    to_datetime,
)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", 90 * SECOND),
        ("1h", HOUR),
        ("1h 30m", HOUR + 30 * MINUTE),
        ("1h30min", HOUR + 30 * MINUTE),
        ("2w", 14 * DAY),
        ("5 ms", 5_000),
        ("7us", 7),
        ("0s", 0),
        (12, 12),
    ],
)
def test_durations_are_read(text: str | int, duration: int) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "1", "h", "1y", "1h,2m", "-1h", "1.5h", "1h 2", "1 h x", -1])
def test_what_is_no_duration_is_refused_by_name(text: str | int) -> None:
    with pytest.raises(Invalid, match=r"is not a duration") as caught:
        parse_duration(text)
    assert str(text) in str(caught.value)


@pytest.mark.parametrize("text", ["9999999999999w", "365001d", "9" * 5000 + "us", "364999d 100w"])
def test_nothing_lasts_longer_than_a_thousand_years(text: str) -> None:
    """What is added to an instant must still be one, and fit in 64 bits."""
    assert parse_duration("365000d") == LONGEST_DURATION
    with pytest.raises(Invalid, match="longer than a thousand years") as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 200


@given(st.integers(0, LONGEST_DURATION))
def test_a_duration_survives_being_written(duration: int) -> None:
    assert parse_duration(format_duration(duration)) == duration


def test_the_first_and_last_instants_are_datetimes_own() -> None:
    assert to_datetime(FIRST_INSTANT) == datetime.min.replace(tzinfo=UTC)
    assert to_datetime(LAST_INSTANT) == datetime.max.replace(tzinfo=UTC)


def test_a_negative_duration_says_so() -> None:
    assert format_duration(-90 * SECOND) == "-1m 30s"


@given(st.datetimes(timezones=st.sampled_from([UTC, ZoneInfo("America/New_York"), timezone(timedelta(hours=5.5))])))
def test_an_instant_is_the_datetime_to_the_microsecond(moment: datetime) -> None:
    instant = from_datetime(moment)
    assert to_datetime(instant) - moment.astimezone(UTC) == timedelta(0)
    assert parse_instant(format_instant(instant)) == instant


def test_both_sides_of_a_fold_are_their_own_instant() -> None:
    first = datetime(2013, 11, 3, 1, 30, tzinfo=ZoneInfo("America/New_York"))
    assert from_datetime(first.replace(fold=1)) - from_datetime(first) == HOUR


@pytest.mark.parametrize(
    "text", ["2013-07-01T00:00:00Z", "2013-07-01T00:00:00+00:00", "2013-06-30T20:00:00-04:00", "2013-07-01"]
)
def test_one_instant_has_many_texts(text: str) -> None:
    assert parse_instant(text) == 1_372_636_800 * SECOND


@pytest.mark.parametrize("text", ["2013-07-01T00:00:00", "2013-07-01 00:00", "20130701T000000", "2024W01T10"])
def test_a_naive_time_names_no_instant(text: str) -> None:
    with pytest.raises(Invalid, match="no UTC offset"):
        parse_instant(text)


@pytest.mark.parametrize("text", ["", "yesterday", "2013-13-01", "1372636800"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="not an ISO 8601 time"):
        parse_instant(text)


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(Invalid, match="no UTC offset"):
        from_datetime(datetime(2013, 7, 1))  # noqa: DTZ001


def test_the_system_clock_tells_utc() -> None:
    before = datetime.now(UTC)
    now = to_datetime(SystemClock().now())
    assert before - timedelta(milliseconds=1) <= now <= datetime.now(UTC)


def test_a_manual_clock_moves_when_told() -> None:
    clock = ManualClock(5)
    clock.advance(3)
    assert clock.now() == 8
    clock.set(-1)
    assert clock.now() == -1


def test_a_replay_clock_is_shared_between_processes(tmp_path: Path) -> None:
    path = tmp_path / "state" / "clock"
    clock = ReplayClock(path, start=-1)
    other = ReplayClock(path)
    assert other.now() == -1
    clock.set(2**62 + 1)
    assert other.now() == 2**62 + 1
    program = f"""
from pathlib import Path
from mainspring.core.time import ReplayClock
clock = ReplayClock(Path({str(path)!r}))
clock.set(clock.now() - 1)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert clock.now() == 2**62


def test_a_replay_clock_can_be_set_again(tmp_path: Path) -> None:
    ReplayClock(tmp_path / "clock", start=7)
    assert ReplayClock(tmp_path / "clock", start=9).now() == 9


def test_a_date_as_the_end_includes_its_day() -> None:
    assert parse_end("2013-07-01") == parse_instant("2013-07-02")
    for text in ("2013-07-01T00:00:00Z", "2013-07-01T12:30:00-04:00"):
        assert parse_end(text) == parse_instant(text)
    with pytest.raises(Invalid):
        parse_end("2013-07-01T00:00:00")
