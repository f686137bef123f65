"""Reference implementation of metric histories: used in memory, and the oracle for every other implementation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mainspring.core.errors import Invalid
from mainspring.core.time import MILLISECOND
from mainspring.registry.searching import MOST_POINTS, Axis, Bucket, History

LARGEST = 1e300  # bound of the values in a mean: MLflow stores an infinity as the largest float
FARTHEST = 2**63 - 1  # largest difference of two steps that a database can compute

Logged = Sequence[tuple[float, int, int]]  # value, step, instant (µs)


def buckets(metric: str, logged: dict[str, Logged], points: int, axis: Axis) -> History:
    """Return the logged values of each run in at most `points` buckets.

    Raises:
        Invalid: `points` is out of range.
    """

    def place_along(each: tuple[float, int, int]) -> int:
        return each[1] if axis is Axis.STEP else each[2]

    check_points(points)
    places = [place_along(each) for values in logged.values() for each in values]
    if not places:
        return History(metric, axis, 0, 1, {})
    first, width = spread_over(min(places), max(places), points, axis)
    runs = {}
    for run_id, values in logged.items():
        inside: dict[int, list[float]] = {}
        for each in values:
            inside.setdefault((place_along(each) - first) // width, []).append(each[0])
        if inside:
            runs[run_id] = tuple(_bucket(place, inside[place]) for place in sorted(inside))
    return History(metric, axis, first, width, runs)


def check_points(points: int) -> None:
    """Raise `Invalid` if `points` is not between 1 and `MOST_POINTS`."""
    if not 1 <= points <= MOST_POINTS:
        raise Invalid(f"A history cannot have {points} points.", fix=f"request 1 to {MOST_POINTS}.")


def spread_over(first: int, last: int, points: int, axis: Axis) -> tuple[int, int]:
    """Return the start of the first bucket, and the smallest width at which `points` buckets cover the range.

    A width is a whole number of steps or of milliseconds, the precision of stored times. If the range exceeds a
    database's integers, start and width are even, so that the database can compute with halves.
    """
    unit = MILLISECOND if axis is Axis.TIME else 2 if last - first > FARTHEST else 1
    first = first if axis is Axis.TIME else first // unit * unit
    return first, unit * max(1, -(-(last - first + 1) // (points * unit)))


def _bucket(place: int, values: list[float]) -> Bucket:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Bucket(place, math.nan, math.nan, math.nan, 0, len(values))
    summable = [value for value in known if abs(value) < LARGEST]
    mean = math.fsum(summable) / len(summable) if summable else max(known)
    return Bucket(place, min(known), max(known), mean, len(known), len(values) - len(known))


def line(logged: Logged, points: int) -> tuple[float | None, ...]:
    """Return the first value at or after each of `points` evenly spaced steps; empty for a single step.

    Raises:
        Invalid: `points` is out of range.
    """
    check_points(points)
    in_order = sorted(logged, key=lambda each: (each[1], each[2], math.isnan(each[0]), each[0]))
    if not in_order or in_order[0][1] == in_order[-1][1]:
        return ()
    first, reach = in_order[0][1], min(FARTHEST, in_order[-1][1] - in_order[0][1])
    found = (
        next(value for value, step, _ in in_order if step >= first + reach * place // max(1, points - 1))
        for place in range(points)
    )
    return tuple(None if math.isnan(value) else value for value in found)
