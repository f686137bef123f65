"""What a feature is worth at an instant, by brute force: every row, in the order the semantics say, in plain Python.

It shares nothing with the engines but the definition of a hop's width. Expressions are given as Python functions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000


@dataclass(frozen=True)
class Row:
    """One fact. Times are UTC epoch microseconds."""

    key: tuple[Any, ...]
    event: int
    recorded: int
    seq: int
    values: dict[str, Any] = field(default_factory=dict)
    id: int | None = None  # of the fact; without one the row is a fact of its own
    retracted: bool = False

    def visible(self, lag: int) -> int:
        return max(self.event, self.recorded + lag)

    @property
    def rank(self) -> tuple[int, int, int]:
        return (self.event, self.recorded, self.seq)


@dataclass(frozen=True)
class Feature:
    """A stored feature; `of` and `where` are functions of a row's values."""

    kind: str
    of: Callable[[dict[str, Any]], Any] | None = None
    where: Callable[[dict[str, Any]], Any] | None = None
    window: int = 0
    ttl: int | None = None
    default: float | None = None
    nth: int = 1
    share: float = 0.5


def record_setting(rows: Sequence[Row], lag: int) -> list[Row]:
    """The rows of one entity that count for last values, in the order in which they become visible."""
    counting: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.visible(lag), row.rank)):
        if not counting or row.rank > counting[-1].rank:
            counting.append(row)
    return counting


def newest_versions(rows: Sequence[Row], lag: int, now: int) -> list[Row]:
    """Of each fact the newest version that is visible at `now`, where it does not retract the fact."""
    newest: dict[Any, Row] = {}
    for row in rows:
        if row.visible(lag) < now:
            name = ("fact", row.id) if row.id is not None else ("row", row.seq)
            newest[name] = max(newest.get(name, row), row, key=lambda row: (row.recorded, row.seq))
    return [row for row in newest.values() if not row.retracted]


def value_at(feature: Feature, rows: Sequence[Row], key: tuple[Any, ...], now: int, lag: int) -> tuple[Any, str]:
    """The feature's value and status for one entity at `now`."""
    empty = 0 if feature.kind in ("count", "distinct") else feature.default
    if any(part is None for part in key):
        return empty, "MISSING"
    began = {row.visible(lag) + 1 for row in rows if _same(row.key, key) and row.visible(lag) < now}
    if not any(_same(row.key, key) for at in began for row in newest_versions(rows, lag, at)):
        return empty, "MISSING"
    seen = [row for row in newest_versions(rows, lag, now) if _same(row.key, key)]
    if feature.kind == "last":
        if not seen:
            return None, "NULL"
        row = record_setting(seen, lag)[-1]
        if feature.ttl is not None and now - row.event > feature.ttl:
            return None, "EXPIRED"
        value = feature.of(row.values)
        return value, "NULL" if value is None else "PRESENT"
    width = 5 * MINUTE if feature.window <= 12 * HOUR else HOUR if feature.window <= 12 * DAY else DAY
    start = (now - feature.window) // width * width
    inside = [row.values for row in sorted(seen, key=lambda row: (row.event, row.seq)) if start <= row.event < now]
    kept = [values for values in inside if feature.where is None or feature.where(values) is True]
    values = [value for value in (True if feature.of is None else feature.of(v) for v in kept) if value is not None]
    value = AGGREGATES[feature.kind](values) if feature.kind in AGGREGATES else CHOICES[feature.kind](values, feature)
    return (empty, "NULL") if value is None else (value, "PRESENT")


def _same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    return [(type(a), a) for a in left] == [(type(b), b) for b in right]


def _total(values: list[float]) -> float:
    values = [float(value) for value in values]
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond a double, or infinities of both signs
        return sum(values)


def _mean(values: list[float]) -> float | None:
    return _total(values) / len(values) if values else None


def _variance(values: list[float]) -> float | None:
    # Two passes, the second over differences from the exact mean's nearest float and what that float left over.
    if not values:
        return None
    mean = _mean(values)
    rest = _mean([value - mean for value in values])
    return _total([(value - mean - rest) * (value - mean - rest) for value in values]) / len(values)


def _ordered(value: Any) -> tuple[bool, Any]:
    nan = isinstance(value, float) and math.isnan(value)
    return (nan, 0.0 if nan else value)


def _optional(function: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else function(value)


def _nth(values: Sequence[Any], nth: int) -> Any:
    return values[nth - 1] if len(values) >= nth else None


def cut(value: float) -> float:
    """The value, towards zero, to 8 significant bits; below the normal doubles, to as many as there are."""
    value = float(value)
    if not math.isfinite(value):
        return value
    if abs(value) < 2.0**-1022:
        return math.ldexp(math.trunc(math.ldexp(value, 1029)), -1029)
    mantissa, exponent = math.frexp(value)
    return math.ldexp(math.trunc(math.ldexp(mantissa, 8)), exponent - 8)


def _quantile(values: list[Any], feature: Feature) -> float | None:
    ordered = sorted(map(cut, values), key=_ordered)
    rank = math.ceil(Fraction(repr(feature.share)) * len(ordered))
    return _nth(ordered, max(rank, 1))


def _top(values: list[Any], feature: Feature) -> Any:
    counted = Counter(values)
    return _nth(sorted(counted, key=lambda value: (-counted[value], value)), feature.nth)


CHOICES: dict[str, Callable[[list[Any], Feature], Any]] = {
    "first": lambda values, _: _nth(values, 1),
    "newest": lambda values, feature: _nth(values[::-1], feature.nth),
    "distinct": lambda values, _: len(set(values)),
    "quantile": _quantile,
    "top": _top,
}
AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "count": len,
    "sum": lambda values: _total(values) if values else None,
    "mean": _mean,
    "variance": _variance,
    "std": lambda values: _optional(math.sqrt, _variance(values)),
    "min": lambda values: min(values, key=_ordered) if values else None,
    "max": lambda values: max(values, key=_ordered) if values else None,
}
