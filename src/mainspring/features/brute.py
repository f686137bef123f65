"""What a view's features are worth at an instant, by going through every row of the entity in plain Python.

It follows the semantics (docs/explanation/point-in-time.md) literally and uses nothing of the two engines: neither the
stored flags and visible times nor tiles, SQL or states. It is slow, and meant to be: what it says is easy to believe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mainspring.core.expr.types import columns_of
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.features.model import Aggregation, FeatureView
from mainspring.features.scalars import Scalar, narrowed, scalar
from mainspring.features.types import feature_dtype, stored_schema


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of the entity; instants are UTC epoch microseconds."""

    event: int
    recorded: int
    seq: int
    values: Mapping[str, Any]

    def visible(self, lag: int) -> int:
        return max(self.event, self.recorded + lag)

    @property
    def rank(self) -> tuple[int, int, int]:
        return (self.event, self.recorded, self.seq)


class BruteReader:
    """Reads a view's features of one entity.

    Args:
        facts: All rows of the entity, in any order; the columns that the view's expressions use are enough.

    Attributes:
        unknown: The features it cannot compute.
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
        self._derived = {name: scalar(expr, stored_schema(view)) for name, expr in view.derived.items()}
        self.unknown = unknown(view)

    def _each(self, function: Scalar) -> list[Any]:
        return [function(fact.values) for _, fact in self._facts]

    def read(self, now: int) -> dict[str, Any]:
        """Return name -> value at `now`, UTC epoch microseconds, of all but the `unknown` features."""
        there = sum(visible <= now for visible, _ in self._facts)
        found = {
            name: self._narrow(name, self._value(name, feature, there, now))
            for name, feature in self._view.features.items()
            if name not in self.unknown
        }
        derived = {name: of(found) for name, of in self._derived.items() if name not in self.unknown}
        return {**found, **derived}

    def _narrow(self, name: str, value: Any) -> Any:
        single = isinstance(value, float) and feature_dtype(self._view, name).name == "Float32"
        kept = narrowed(value) if single else value
        return math.copysign(math.inf, value) if single and kept is None else kept

    def _value(self, name: str, feature: Aggregation, there: int, now: int) -> Any:
        if feature.kind == "last":
            return self._last(name, feature, there, now)
        width = feature.window or 0
        hop = 5 * MINUTE if width <= 12 * HOUR else HOUR if width <= 12 * DAY else DAY
        first = (now - width) // hop * hop
        inside = [n for n, (_, fact) in enumerate(self._facts[:there]) if first <= fact.event < now]
        if name in self._where:
            inside = [n for n in inside if self._where[name][n] is True]
        values = [True] * len(inside) if feature.of is None else [self._of[name][n] for n in inside]
        value = _AGGREGATES[feature.kind]([value for value in values if value is not None])
        return feature.default if value is None else value

    def _last(self, name: str, feature: Aggregation, there: int, now: int) -> Any:
        newest = None
        for n, (_, fact) in enumerate(self._facts[:there]):
            if newest is None or fact.rank > self._facts[newest][1].rank:
                newest = n
        if newest is None:
            return None
        if feature.ttl is not None and now - self._facts[newest][1].event > feature.ttl:
            return None
        return self._of[name][newest]


def unknown(view: FeatureView) -> frozenset[str]:
    """Return the features of the view that cannot be computed here, being estimates, and those derived from them."""
    stored = {name for name, feature in view.features.items() if feature.kind not in ("last", *_AGGREGATES)}
    return frozenset(stored | {name for name, expr in view.derived.items() if columns_of(expr) & stored})


def _total(values: Sequence[Any]) -> float:
    numbers = [float(value) for value in values]
    return math.fsum(numbers) if all(map(math.isfinite, numbers)) else sum(numbers)


def _mean(values: Sequence[Any]) -> float | None:
    return _total(values) / len(values) if values else None


def _variance(values: Sequence[Any]) -> float | None:
    # Two passes, the second from the mean's nearest float and what that float left over.
    mean = _mean(values)
    if mean is None:
        return None
    rest = _total([value - mean for value in values]) / len(values)
    return _total([(value - mean - rest) ** 2 for value in values]) / len(values)


def _std(values: Sequence[Any]) -> float | None:
    variance = _variance(values)
    return None if variance is None else math.sqrt(variance)


def _order(value: Any) -> tuple[bool, Any]:
    nan = isinstance(value, float) and math.isnan(value)  # above every number
    return (nan, 0.0 if nan else value)


_AGGREGATES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "count": len,
    "sum": lambda values: _total(values) if values else None,
    "mean": _mean,
    "variance": _variance,
    "std": _std,
    "min": lambda values: min(values, key=_order, default=None),
    "max": lambda values: max(values, key=_order, default=None),
}
