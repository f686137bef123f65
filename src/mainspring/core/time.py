"""Instants, durations and clocks. An instant is UTC epoch microseconds, a duration is microseconds: both plain `int`.

No other module reads the machine's time: code that needs it takes a `Clock`, so a test or a replay sets the time.
"""

from __future__ import annotations

import mmap
import re
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Protocol

from mainspring.core.errors import Invalid

MICROSECOND = 1
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

FIRST_INSTANT = -62_135_596_800 * SECOND  # 0001-01-01T00:00:00Z
LAST_INSTANT = 253_402_300_800 * SECOND - 1  # 9999-12-31T23:59:59.999999Z

_UNITS = {"us": MICROSECOND, "ms": MILLISECOND, "s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY, "w": WEEK}
_DURATION = re.compile(r"(\d+)\s*(us|ms|s|min|m|h|d|w)")
LONGEST_DURATION = 365_000 * DAY
_MOST_DIGITS, _SHOWN = 18, 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Source of the current time. Every process takes its clock from the settings."""

    def now(self) -> int:
        """Return the current instant, UTC epoch microseconds."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> int:
        return time.time_ns() // 1_000


class ManualClock:
    """A clock that a test sets."""

    def __init__(self, now: int = 0) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def set(self, now: int) -> None:
        self._now = now

    def advance(self, duration: int) -> None:
        self._now += duration


class ReplayClock:
    """A clock that several processes share and one of them advances, kept in eight bytes of a mapped file."""

    def __init__(self, path: Path, *, start: int | None = None) -> None:
        """Map the clock at `path`; with `start`, create it (or set it) first."""
        if start is not None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            # One aligned machine word: another process reads the old instant or the new one, never half of each.
            self._word = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
        if start is not None:
            self.set(start)

    def now(self) -> int:
        return self._word[0]

    def set(self, now: int) -> None:
        self._word[0] = now


def parse_duration(text: str | int) -> int:
    """Return a duration in microseconds from `"90s"`, `"1h"`, `"1h 30m"` or a plain number of microseconds.

    Raises:
        Invalid: `text` is not a duration, is negative, or as text longer than a thousand years.
    """
    if isinstance(text, int):
        if text < 0:
            raise Invalid(f"{text} microseconds is not a duration.", fix="use zero or more.")
        return text
    given: object = text  # what a project declares may be anything
    parts = _DURATION.findall(given) if isinstance(given, str) else []
    if not parts or _DURATION.sub("", text).strip():
        raise Invalid(f"{text!r} is not a duration.", fix='write a number and a unit, such as "5m", "1h" or "30d".')
    # Python rejects numbers of thousands of digits with its own error.
    if max(len(number) for number, _ in parts) > _MOST_DIGITS:
        raise _too_long(text)
    duration = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if duration > LONGEST_DURATION:
        raise _too_long(text)
    return duration


def _too_long(text: str) -> Invalid:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return Invalid(f"{shown!r} is longer than a thousand years.", fix='write a shorter duration, such as "365d".')


def format_duration(duration: int) -> str:
    """Return the shortest exact form that `parse_duration` reads back: `"1h"`, `"1h 30m"`, `"250ms"`."""
    if duration == 0:
        return "0s"
    parts = []
    rest = abs(duration)
    for unit in ("d", "h", "m", "s", "ms", "us"):
        number, rest = divmod(rest, _UNITS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return ("-" if duration < 0 else "") + " ".join(parts)


def parse_instant(text: str) -> int:
    """Return the instant of an ISO 8601 text with a UTC offset; a date alone means midnight UTC.

    Raises:
        Invalid: `text` is not ISO 8601, or has a time but no offset (a naive time is not an instant).
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text!r} is not an ISO 8601 time.", fix="write 2013-07-01T00:00:00Z.") from None
    if moment.tzinfo is None:
        try:
            date.fromisoformat(text)
        except ValueError:
            raise Invalid(
                f"{text!r} has no UTC offset, so it is not an instant.", fix=f"write {text}Z or {text}-05:00."
            ) from None
        moment = moment.replace(tzinfo=UTC)
    return from_datetime(moment)


def parse_end(text: str) -> int:
    """Return the instant before which a time ends: as `parse_instant`, but a date alone includes its day.

    Raises:
        Invalid: See `parse_instant`.
    """
    at = parse_instant(text)
    try:
        date.fromisoformat(text)
    except ValueError:
        return at
    return at + DAY


def from_datetime(moment: datetime) -> int:
    """Return the instant of an aware datetime, exact to the microsecond.

    Raises:
        Invalid: `moment` is naive.
    """
    if moment.tzinfo is None:
        raise Invalid(f"{moment.isoformat()} has no UTC offset, so it is not an instant.", fix="give it a tzinfo.")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def to_datetime(instant: int) -> datetime:
    """Return the instant as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=instant)


def format_instant(instant: int) -> str:
    """Return `2013-07-01T00:00:00Z`, with microseconds unless they are 0."""
    return to_datetime(instant).isoformat().replace("+00:00", "Z")
