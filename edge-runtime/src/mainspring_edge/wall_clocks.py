"""Fields of instants on wall clocks, by offsets that the package brings: the device's own zone database is not used.

Times are UTC epoch microseconds; local time is microseconds since 1970 as the wall clock counts them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
FIRST_INSTANT = -62_135_596_800 * SECOND  # 0001-01-01T00:00:00Z
LAST_INSTANT = 253_402_300_800 * SECOND - 1  # 9999-12-31T23:59:59.999999Z

_UNITS = {"start_of_hour": (HOUR, 0), "start_of_day": (DAY, 0), "start_of_week": (7 * DAY, 3 * DAY)}  # 1970: a Thursday


def _civil(local: int) -> tuple[int, int, int]:
    """Return year, month and day. See https://howardhinnant.github.io/date_algorithms.html, civil_from_days."""
    days = local // DAY + 719_468
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year + era * 400 + (month <= 2), month, day


def _start_of_month(local: int) -> int:
    return local // DAY * DAY - (_civil(local)[2] - 1) * DAY


_FIELDS: Mapping[str, Callable[[int], int]] = {
    "year": lambda local: _civil(local)[0],
    "month": lambda local: _civil(local)[1],
    "day": lambda local: _civil(local)[2],
    "hour": lambda local: local // HOUR % 24,
    "minute": lambda local: local // MINUTE % 60,
    "second": lambda local: local // SECOND % 60,
    "weekday": lambda local: (local // DAY + 3) % 7 + 1,
}


def part_of(part: str, zone: Mapping[str, Any]) -> Callable[[int], int] | None:
    """Return a function from instants to a field; `None` if the field is unknown."""
    field, offset = _FIELDS.get(part), _offset_of(zone)
    return None if field is None else lambda instant: field(instant + offset(instant))


def start_of(start: str, zone: Mapping[str, Any]) -> Callable[[int], int | None] | None:
    """Return a function from instants to the starts of their units; `None` if the unit is unknown."""
    if start != "start_of_month" and start not in _UNITS:
        return None
    offset, (unit, first) = _offset_of(zone), _UNITS.get(start, (DAY, 0))

    def apply(instant: int) -> int | None:
        there = offset(instant)
        local = instant + there
        begun = _start_of_month(local) if start == "start_of_month" else (local + first) // unit * unit - first
        found = begun - offset(begun - there)
        return found if FIRST_INSTANT <= found <= LAST_INSTANT else None

    return apply


def _offset_of(zone: Mapping[str, Any]) -> Callable[[int], int]:
    """Return a function from instants to offsets. `offsets[i]` holds until before `instants[i]`."""
    instants, offsets = list(zone["instants"]), list(zone["offsets"])
    if len(offsets) == 1:
        (only,) = offsets
        return lambda _: int(only)
    return lambda instant: int(offsets[bisect_right(instants, instant)])
