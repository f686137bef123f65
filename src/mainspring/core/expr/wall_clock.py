"""Local time, for both readings: its fields, and the starts of its units.

Local time is microseconds since 1970 as the wall clock counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mainspring.core.expr.operations import Array
from mainspring.core.expr.zones import offsets_of
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND

# DuckDB divides integers towards zero, so fields are taken of a number that is never negative: this is the start of the
# year 1 less a week and more, a whole number of weeks before 1970.
_SHIFT = 102_740 * 7 * DAY
_UNITS = {"start_of_hour": (HOUR, 0), "start_of_day": (DAY, 0), "start_of_week": (7 * DAY, 3 * DAY)}  # 1970: a Thursday


def part_sql(part: str, local: str) -> str:
    """Return a field of local time."""
    if part in ("year", "month", "day"):
        return f"CAST({part}(make_timestamp({local})) AS INTEGER)"
    if part == "weekday":
        return f"CAST((({local} + {_SHIFT}) // {DAY} + 3) % 7 + 1 AS INTEGER)"
    unit, cycle = {"hour": (HOUR, 24), "minute": (MINUTE, 60), "second": (SECOND, 60)}[part]
    return f"CAST(({local} + {_SHIFT}) // {unit} % {cycle} AS INTEGER)"


def start_sql(start: str, local: str) -> str:
    """Return the local time at which a unit of local time began."""
    if start == "start_of_month":
        return f"epoch_us(date_trunc('month', make_timestamp({local})))"
    unit, first = _UNITS[start]
    shifted = f"({local} + {_SHIFT + first})"
    return f"({shifted} // {unit} * {unit} - {_SHIFT + first})"


def offset_sql(zone: str, instant: str) -> str:
    """Return the zone's offset at an instant (µs) as a binary search written in CASE."""
    table = offsets_of(zone)

    def between(low: int, high: int) -> str:
        if low == high:
            return str(table.offsets[low])
        middle = (low + high) // 2
        return (
            f"CASE WHEN {instant} < {table.instants[middle]} "
            f"THEN {between(low, middle)} ELSE {between(middle + 1, high)} END"
        )

    return between(0, len(table.instants))


def part_of(part: str, zone: str) -> Callable[[Array], Array]:
    """Return a function from instants to the field, as int32."""
    offset, field = _offset_of(zone), _FIELDS[part]
    return lambda instants: field(instants + offset(instants)).astype(np.int32)


def start_of(start: str, zone: str) -> Callable[[Array], Array]:
    """Return a function from instants to the starts of their units: local starts, by the offsets of that time."""
    offset = _offset_of(zone)

    def apply(instants: Array) -> Array:
        there = offset(instants)
        local = _start(start, instants + there)
        return np.asarray(local - offset(local - there))

    return apply


def _offset_of(zone: str) -> Callable[[Array], Array]:
    table = offsets_of(zone)
    changes, offsets = np.array(table.instants, dtype=np.int64), np.array(table.offsets, dtype=np.int64)
    return lambda instants: np.asarray(offsets[np.searchsorted(changes, instants, side="right")])


def _start(start: str, local: Array) -> Any:
    if start == "start_of_month":
        return local.astype("M8[us]").astype("M8[M]").astype("M8[us]").astype(np.int64)
    unit, first = _UNITS[start]
    return (local + first) // unit * unit - first


def _days(local: Array) -> Any:
    months = local.astype("M8[us]").astype("M8[M]")
    return (local.astype("M8[us]").astype("M8[D]") - months.astype("M8[D]")).astype(np.int64) + 1


_FIELDS: Mapping[str, Callable[[Array], Any]] = {
    "year": lambda local: local.astype("M8[us]").astype("M8[Y]").astype(np.int64) + 1970,
    "month": lambda local: local.astype("M8[us]").astype("M8[M]").astype(np.int64) % 12 + 1,
    "day": _days,
    "hour": lambda local: local // HOUR % 24,
    "minute": lambda local: local // MINUTE % 60,
    "second": lambda local: local // SECOND % 60,
    "weekday": lambda local: (local // DAY + 3) % 7 + 1,
}
