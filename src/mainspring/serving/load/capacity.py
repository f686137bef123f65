"""Search of the highest load that meets a deadline: growing until one fails, then bisection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.core.time import SECOND
from mainspring.serving.load.generator import Load
from mainspring.serving.model import Point

_CLOSE = 1.1
_SHORT_S = 3.0
_TOO_MUCH = 0.05  # of the work that comes, at which a queue counts as growing


def point(load: Load, deadline_us: float) -> Point:
    """Return what an open loop's load came to against a deadline."""
    if load.offered is None:
        raise Invalid("A closed loop has no schedule of due requests.")
    due = max(1, load.due)
    return Point(
        offered=load.offered,
        answered=load.per_second,
        in_time=float((load.latencies_us <= deadline_us).sum()) / due,
        refused=len(load.refusals_us) / due,
        p50_us=load.quantile_us(0.5),
        p99_us=load.quantile_us(0.99),
        grew=grew(load.latencies_us, load.seconds),
    )


def grew(latencies_us: npt.NDArray[np.float64], seconds: float) -> bool:
    """Return whether the queue grew through a load of so many seconds, as it does if more is asked for than is served.

    A deadline that is longer than the load would hide it. Latencies grow by a second for each second of work that is
    too much: by how much is told by the medians of the first third and of the last, which are two thirds of the load
    apart. Two requests more or less in the queue are chance, and so is a pause of the machine in a load of less than
    three seconds.

    Args:
        latencies_us: In the order of the answers.
    """
    third = len(latencies_us) // 3
    if not third:
        return False
    more_us = float(np.median(latencies_us[-third:]) - np.median(latencies_us[:third]))
    return more_us > _TOO_MUCH * max(seconds, _SHORT_S) * SECOND * 2 / 3 + 2 * float(latencies_us.min())


def search(
    measure: Callable[[float], Point],
    *,
    first: float = 50.0,
    most: float = 200_000.0,
    close: float = _CLOSE,
    grow: float = 2.0,
) -> list[Point]:
    """Return every load that was tried, lightest first.

    Args:
        measure: Tries a load of so many requests a second.
        first: Where to begin; if it is too much, lighter ones are tried, down to 1.
        most: No load above it is tried.
        grow: Factor from a load that is met to the next; its square leads back from the first.
        close: The search ends when the lightest load that was too much is at most so many times the heaviest met.
    """
    tried: dict[float, Point] = {}

    def met(rate: float) -> bool:
        tried[rate] = measure(rate)
        return tried[rate].met

    low, high = 0.0, math.inf
    rate = min(first, most)
    while not low or high == math.inf:
        if met(rate):
            low = rate
            if rate >= most:
                break
            rate = min(grow * rate, most)
        else:
            high = rate
            if rate <= 1.0:
                break
            rate = max(1.0, rate / grow**2)
    while low and high < math.inf and high / low > close:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if met(middle) else (low, middle)
    return [tried[rate] for rate in sorted(tried)]


def capacity(points: Sequence[Point]) -> float | None:
    """Return the highest load met below every failed one: a lucky success above a failure proves nothing."""
    found = None
    for each in sorted(points, key=lambda one: one.offered):
        if not each.met:
            break
        found = each.offered
    return found


def limits(points: Sequence[Point], found: float) -> tuple[float, float]:
    """Return the middle between the highest load met and the lowest above it that was too much, and the latter.

    A search says no more than that the limit is between them.

    Args:
        found: The highest load met.
    """
    failed = min((each.offered for each in points if each.offered > found), default=_CLOSE * found)
    return math.sqrt(found * failed), failed
