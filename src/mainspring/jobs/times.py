"""Due times of schedules: a fixed interval, or five cron fields. All in UTC, which has no missing or repeated hours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from mainspring.core.errors import Invalid
from mainspring.core.time import MINUTE, SECOND, format_duration, from_datetime, parse_duration, to_datetime

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_PART = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?")
_FIX = 'write "1d", "15m", or a cron expression (minute, hour, day, month, weekday) in UTC: "30 3 * * 1".'
_FARTHEST = 366 * 41  # days that are searched: 29 February is the same weekday again after up to 40 years


class When(Protocol):
    """The due times of a schedule."""

    def last(self, now: int) -> int:
        """Return the last due time at or before `now`."""
        ...

    def next(self, now: int) -> int:
        """Return the first due time after `now`."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Fixed interval, aligned to 1970, so that due times are the same everywhere."""

    duration: int  # µs

    def last(self, now: int) -> int:
        return now // self.duration * self.duration

    def next(self, now: int) -> int:
        return self.last(now) + self.duration

    def __str__(self) -> str:
        return f"every {format_duration(self.duration)}"


@dataclass(frozen=True, slots=True)
class Cron:
    """Five POSIX cron fields: if both day and weekday are restricted, either may match."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either: bool

    def last(self, now: int) -> int:
        moment = to_datetime(now // MINUTE * MINUTE)
        return self._found(moment, -1)

    def next(self, now: int) -> int:
        moment = to_datetime(now // MINUTE * MINUTE + MINUTE)
        return self._found(moment, 1)

    def __str__(self) -> str:
        return self.text

    def _found(self, moment: datetime, way: int) -> int:
        """Return the nearest due time at `moment`, or before it (`way` -1) or after it (1)."""
        bound = (moment.hour, moment.minute)
        for passed in range(_FARTHEST):
            day = moment.date() + timedelta(days=way * passed)
            if not self._on(day):
                continue
            times = [
                (hour, minute)
                for hour in self.hours
                for minute in self.minutes
                if passed or ((hour, minute) <= bound if way < 0 else (hour, minute) >= bound)
            ]
            if times:
                hour, minute = max(times) if way < 0 else min(times)
                return from_datetime(datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC))
        raise Invalid(f"{self.text!r} is never due.", fix=_FIX)

    def _on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        on_day, on_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return on_day or on_weekday if self.either else on_day and on_weekday


def parse_when(text: str) -> When:
    """Parse a schedule: a duration, or five cron fields.

    Raises:
        Invalid: The text is neither, the duration is under a second, or the cron fields never match.
    """
    fields = text.split()
    if len(fields) == len(_FIELDS) and not any(letter.isalpha() for letter in text):
        return _cron(text, fields)
    try:
        duration = parse_duration(text)
    except Invalid:
        duration = 0
    if duration < SECOND:
        raise Invalid(f"{text!r} is not a schedule.", fix=_FIX)
    return Every(duration)


def _cron(text: str, fields: list[str]) -> Cron:
    minutes, hours, days, months, weekdays = (
        _field(text, written, *field) for written, field in zip(fields, _FIELDS, strict=True)
    )
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    made = Cron(
        " ".join(fields), tuple(sorted(minutes)), tuple(sorted(hours)), days, months,
        frozenset(each % 7 for each in weekdays), either,
    )  # fmt: skip
    made.next(from_datetime(datetime(2000, 1, 1, tzinfo=UTC)))  # raises for 30 February
    return made


def _field(text: str, written: str, name: str, least: int, most: int) -> frozenset[int]:
    found: set[int] = set()
    for part in written.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise Invalid(f"The {name} of {text!r} is {written!r}.", fix=_FIX)
        first, last, step = (None if group is None else int(group) for group in match.groups())
        start = least if first is None else first
        end = last if last is not None else most if first is None or step is not None else start
        if not (least <= start <= end <= most) or step == 0:
            raise Invalid(f"The {name} of {text!r} is {written!r}, not from {least} to {most}.", fix=_FIX)
        found.update(range(start, end + 1, step or 1))
    return frozenset(found)
