"""The aggregations that a feature view can store, as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mainspring.core.expr import Column, Node, as_expr
from mainspring.core.time import parse_duration
from mainspring.features.model import Aggregation


def _windowed(
    kind: str, of: Any, window: str | int, where: Any, default: float | None, description: str
) -> Aggregation:
    return Aggregation(
        kind=kind,
        of=None if of is None else _row_expr(of),
        window=parse_duration(window),
        where=None if where is None else as_expr(where),
        default=default,
        description=description,
    )


def _row_expr(of: Any) -> Node:
    return Column(of) if isinstance(of, str) else as_expr(of)


def last(of: Any, *, ttl: str | int | None = None, description: str = "") -> Aggregation:
    """The newest known value; null when it is older than `ttl` (an age of exactly `ttl` is valid)."""
    return Aggregation(
        kind="last", of=_row_expr(of), ttl=None if ttl is None else parse_duration(ttl), description=description
    )


def count(of: Any = None, *, window: str | int, where: Any = None, description: str = "") -> Aggregation:
    """How many events the window holds (with `of`: how many where it is not null); 0 for none."""
    return _windowed("count", of, window, where, None, description)


def _aggregation(kind: str, summary: str) -> Callable[..., Aggregation]:
    def build(
        of: Any, *, window: str | int, where: Any = None, default: float | None = None, description: str = ""
    ) -> Aggregation:
        return _windowed(kind, of, window, where, default, description)

    build.__name__ = build.__qualname__ = kind
    build.__doc__ = f"{summary} over the window, nulls left out; null, or `default`, where there is none."
    return build


sum_ = _aggregation("sum", "The sum")
mean = _aggregation("mean", "The arithmetic mean; of a condition, the share of events for which it holds,")
variance = _aggregation("variance", "The population variance")
std = _aggregation("std", "The population standard deviation")
min_ = _aggregation("min", "The smallest value")
max_ = _aggregation("max", "The largest value")
