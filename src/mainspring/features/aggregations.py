"""The aggregations that a feature view can store, as functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.expr import Column, Node, as_expr
from mainspring.core.time import parse_duration
from mainspring.features.model import Aggregation, Several


def _windowed(
    kind: str,
    of: Any,
    window: str | int,
    where: Any,
    default: float | None,
    description: str,
    nth: int | None = None,
    share: float | None = None,
) -> Aggregation:
    return Aggregation(
        kind=kind,
        of=None if of is None else _row_expr(of),
        window=parse_duration(window),
        where=None if where is None else as_expr(where),
        default=default,
        description=description,
        nth=nth,
        share=share,
    )


def _row_expr(of: Any) -> Node:
    return Column(of) if isinstance(of, str) else as_expr(of)


def count(of: Any = None, *, window: str | int, where: Any = None, description: str = "") -> Aggregation:
    """Count the events in the window (with `of`: those where it is not null); 0 for none."""
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
first = _aggregation("first", "The oldest value, by event time and then by arrival,")


def last(
    of: Any,
    *,
    ttl: str | int | None = None,
    window: str | int | None = None,
    where: Any = None,
    default: float | None = None,
    description: str = "",
) -> Aggregation:
    """The newest known value; null when it is older than `ttl` (an age of exactly `ttl` is valid).

    With `window`, the newest value of the window's events, by event time and then by arrival, nulls left out; `where`
    and `default` are a window's, `ttl` is not.
    """
    if window is not None and ttl is not None:
        raise Invalid("A last value has a ttl or a window, not both.", fix="leave one out.")
    if window is not None:
        return _windowed("newest", of, window, where, default, description, nth=1)
    if where is not None or default is not None:
        raise Invalid("A last value without a window has no filter and no default.", fix='add window="24h".')
    return Aggregation(
        kind="last", of=_row_expr(of), ttl=None if ttl is None else parse_duration(ttl), description=description
    )


def last_k(
    of: Any, k: int, *, window: str | int, where: Any = None, default: float | None = None, description: str = ""
) -> Several:
    """The `k` newest values of the window, by event time and then by arrival: features `_1` (the newest) to `_k`."""
    return Several(
        {
            str(nth): _windowed("newest", of, window, where, default, description, nth=nth)
            for nth in range(1, _at_most(k, 1000) + 1)
        }
    )


def distinct(of: Any, *, window: str | int, where: Any = None, description: str = "") -> Aggregation:
    """Count the distinct values in the window, nulls left out; 0 for none.

    Exact below 1,024, an estimate above (its standard error is 3 %), the same in training and in serving.
    """
    return _windowed("distinct", of, window, where, None, description)


def quantile(
    of: Any,
    q: float,
    *,
    window: str | int,
    where: Any = None,
    default: float | None = None,
    description: str = "",
) -> Aggregation:
    """The value that a share `q` of the window's values does not exceed: of n values the ceil(q * n)-th smallest.

    Values are cut, towards zero, to 8 significant bits: at most 1/128 too near to zero, whole numbers up to 256 exact.
    0 is the smallest, 1 the largest; NaN is above all.
    """
    return _windowed("quantile", of, window, where, default, description, share=_share(q))


def quantiles(
    of: Any,
    qs: Sequence[float],
    *,
    window: str | int,
    where: Any = None,
    default: float | None = None,
    description: str = "",
) -> Several:
    """Several quantiles at the price of one: features `_p50`, `_p90`, `_p99_9` for 0.5, 0.9 and 0.999."""
    if not qs:
        raise Invalid("ms.quantiles needs at least one quantile.", fix="name some: [0.5, 0.9].")
    return Several(
        {_percent(q): quantile(of, q, window=window, where=where, default=default, description=description) for q in qs}
    )


def top_k(of: Any, k: int, *, window: str | int, where: Any = None, description: str = "") -> Several:
    """The `k` most frequent values of the window: features `_1` (the most frequent) to `_k`.

    Of equally frequent values the smaller comes first; null where there are fewer than `k`. Counts are exact, so what
    is stored of an entity grows with the different values in its window.
    """
    return Several(
        {
            str(nth): _windowed("top", of, window, where, None, description, nth=nth)
            for nth in range(1, _at_most(k, 1000) + 1)
        }
    )


def _at_most(k: int, most: int) -> int:
    if not 1 <= k <= most:
        raise Invalid(f"The number of values is {k}.", fix=f"request 1 to {most}.")
    return k


def _share(q: float) -> float:
    if not 0 <= q <= 1 or not math.isclose(q * 1e6, round(q * 1e6), abs_tol=1e-6):
        raise Invalid(f"{q!r} is not a quantile.", fix="use a number from 0 to 1, with at most six decimals.")
    return float(q)


def _percent(q: float) -> str:
    return f"p{q * 100:.4f}".rstrip("0").rstrip(".").replace(".", "_")
