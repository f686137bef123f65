"""Brute-force read: a view's features at an instant, by iterating over every row of the entity in plain Python.

It implements the semantics (docs/explanation/point-in-time.md) literally and shares nothing with the two engines:
neither stored flags and visible times nor tiles, SQL or states. It is slow by design, so that it is easy to verify.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mainspring.core.expr.types import columns_of
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.features.layout import feature_dtype, layout_of
from mainspring.features.model import Aggregation, FeatureView
from mainspring.features.verify.scalars import Scalar, narrowed, scalar


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of the entity; instants are UTC epoch microseconds.

    `superseded` is when a newer version of the fact became visible, and `ender` the `_seq` of that version.
    """

    event: int
    recorded: int
    seq: int
    values: Mapping[str, Any]
    superseded: int | None = None
    ender: int = -1

    def visible(self, lag: int) -> int:
        return max(self.event, self.recorded + lag)

    @property
    def rank(self) -> tuple[int, int, int]:
        return (self.event, self.recorded, self.seq)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a fact."""

    id: tuple[Any, ...]
    event: int
    recorded: int
    seq: int
    retracts: bool

    def visible(self, lag: int) -> int:
        return max(self.event, self.recorded + lag)


def superseded(versions: Sequence[Version], lag: int) -> dict[int, tuple[int, int]]:
    """Return `seq` -> the instant at which a higher version of the same fact became visible, and its `seq`; versions
    without one are absent.

    A retraction has no value: it is superseded as soon as it is visible.

    Args:
        versions: All versions of some facts.
    """
    facts: dict[tuple[Any, ...], list[Version]] = {}
    for version in versions:
        facts.setdefault(version.id, []).append(version)
    ends_of: dict[int, tuple[int, int]] = {}
    for versions_of_fact in facts.values():
        for version in versions_of_fact:
            ends = [(version.visible(lag), version.seq)] if version.retracts else []
            ends += [
                (o.visible(lag), o.seq)
                for o in versions_of_fact
                if (o.recorded, o.seq) > (version.recorded, version.seq)
            ]
            if ends:
                ends_of[version.seq] = min(ends)
    return ends_of


class BruteReader:
    """Reader of a view's features of one entity.

    Args:
        facts: All rows of the entity in any order, with at least the columns that the view's expressions use.

    Raises:
        Invalid: An expression of the view is inconsistent.
    """

    def __init__(self, view: FeatureView, facts: Sequence[Fact]) -> None:
        self._view = view
        lag = view.source.lag_us
        self._facts = sorted(((fact.visible(lag), fact) for fact in facts), key=lambda pair: (pair[0], pair[1].rank))
        self._of: dict[str, list[Any]] = {}
        self._where: dict[str, list[Any]] = {}
        columns = view.source.columns
        for name, feature in view.features.items():
            if feature.of is not None:
                self._of[name] = self._each(scalar(feature.of, columns))
            if feature.where is not None:
                self._where[name] = self._each(scalar(feature.where, columns))
        self._derived = {
            name: (sorted(columns_of(expr)), scalar(expr, layout_of(view).stored))
            for name, expr in view.derived.items()
        }

    def _each(self, function: Scalar) -> list[Any]:
        return [function(fact.values) for _, fact in self._facts]

    def read(self, now: int) -> dict[str, Any]:
        """Return name -> value at `now`, UTC epoch microseconds, of all features except estimates."""
        visible_facts = [
            n
            for n, (visible, fact) in enumerate(self._facts)
            if visible < now and (fact.superseded is None or now <= fact.superseded)
        ]
        values: dict[str, Any] = {}
        for name, feature in self._view.features.items():
            value = self._value(name, feature, visible_facts, now)
            if value is not _ESTIMATE:
                values[name] = self._narrow(name, value)
        derived = {
            name: compute(values) for name, (used, compute) in self._derived.items() if values.keys() >= set(used)
        }
        return {**values, **derived}

    def _narrow(self, name: str, value: Any) -> Any:
        single = isinstance(value, float) and feature_dtype(self._view, name).name == "Float32"
        kept = narrowed(value) if single else value
        return math.copysign(math.inf, value) if single and kept is None else kept

    def _value(self, name: str, feature: Aggregation, there: Sequence[int], now: int) -> Any:
        if feature.kind == "last":
            return self._last(name, feature, there, now)
        width = feature.window or 0
        hop = 5 * MINUTE if width <= 12 * HOUR else HOUR if width <= 12 * DAY else DAY
        first = (now - width) // hop * hop
        inside = [n for n in there if first <= self._facts[n][1].event < now]
        if name in self._where:
            inside = [n for n in inside if self._where[name][n] is True]
        inside.sort(key=lambda n: (self._facts[n][1].event, self._facts[n][1].seq))
        values = [True] * len(inside) if feature.of is None else [self._of[name][n] for n in inside]
        there_are = [value for value in values if value is not None]
        if feature.kind not in _AGGREGATES:
            return _ESTIMATE
        value = _AGGREGATES[feature.kind](there_are, feature)
        return feature.default if value is None else value

    def _last(self, name: str, feature: Aggregation, there: Sequence[int], now: int) -> Any:
        newest = None
        for n in there:
            if newest is None or self._facts[n][1].rank > self._facts[newest][1].rank:
                newest = n
        if newest is None:
            return None
        if feature.ttl is not None and now - self._facts[newest][1].event > feature.ttl:
            return None
        return self._of[name][newest]


def _total(values: Sequence[Any]) -> float:
    numbers = [float(value) for value in values]
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # beyond a double, or infinities of both signs
        return sum(numbers)


def _mean(values: Sequence[Any]) -> float | None:
    return _total(values) / len(values) if values else None


def _variance(values: Sequence[Any]) -> float | None:
    # Two passes, the second from the mean's nearest float and what that float left over.
    mean = _mean(values)
    if mean is None:
        return None
    rest = _total([value - mean for value in values]) / len(values)
    return _total([(value - mean - rest) * (value - mean - rest) for value in values]) / len(values)


def _std(values: Sequence[Any]) -> float | None:
    variance = _variance(values)
    return None if variance is None else math.sqrt(variance)


def _order(value: Any) -> tuple[bool, Any]:
    nan = isinstance(value, float) and math.isnan(value)  # above every number
    return (nan, 0.0 if nan else value)


def _nth(values: Sequence[Any], nth: int) -> Any:
    return values[nth - 1] if len(values) >= nth else None


def _distinct(values: Sequence[Any]) -> Any:
    found = len({"NaN" if isinstance(value, float) and math.isnan(value) else value for value in values})
    return found if found < _COUNTED else _ESTIMATE


def _cut(value: Any) -> float:
    """Return the value truncated towards zero to 8 significant bits; subnormal doubles have fewer."""
    number = float(value)
    if not math.isfinite(number):
        return number
    if abs(number) < 2.0**-1022:
        return math.ldexp(math.trunc(math.ldexp(number, 1029)), -1029)
    mantissa, exponent = math.frexp(number)
    return math.ldexp(math.trunc(math.ldexp(mantissa, 8)), exponent - 8)


def _quantile(values: Sequence[Any], share: float) -> Any:
    ordered = sorted(map(_cut, values), key=_order)
    return _nth(ordered, max(1, math.ceil(Fraction(repr(share)) * len(ordered))))


def _top(values: Sequence[Any], nth: int) -> Any:
    times = Counter(values)
    return _nth(sorted(times, key=lambda value: (-times[value], value)), nth)


_ESTIMATE = object()  # marks a value that is only estimated
_COUNTED = 1024  # number of distinct values from which it is estimated

# Function of each kind over the values in a window, oldest first.
_AGGREGATES: Mapping[str, Callable[[Sequence[Any], Aggregation], Any]] = {
    "count": lambda values, _: len(values),
    "sum": lambda values, _: _total(values) if values else None,
    "mean": lambda values, _: _mean(values),
    "variance": lambda values, _: _variance(values),
    "std": lambda values, _: _std(values),
    "min": lambda values, _: min(values, key=_order, default=None),
    "max": lambda values, _: max(values, key=_order, default=None),
    "first": lambda values, _: _nth(values, 1),
    "newest": lambda values, feature: _nth(values[::-1], feature.nth or 1),
    "distinct": lambda values, _: _distinct(values),
    "quantile": lambda values, feature: _quantile(values, feature.share or 0.0),
    "top": lambda values, feature: _top(values, feature.nth or 1),
}
