"""Time of a model on a machine, by a roofline of its work: products at the rate that such products attain there, other
operators at the rate of memory, and a time for each operator.

Source: Williams, Waterman and Patterson, Roofline: an insightful visual performance model for multicore architectures,
CACM 52(4), 2009. The attained rates are measured, so that the roof is the real one.

A model takes longer than its roofline, for its call and its inputs. That rest was measured here; elsewhere it takes as
much longer as Python does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from mainspring.serving.simulation.times import Times
from mainspring.serving.sizing.speed import Speed
from mainspring.serving.sizing.work import Work

UNDISTURBED = 0.1  # quantile
_UNKNOWN = 1.15  # factor of what no measurement says, both ways
NEAR = 1.07  # of a prediction beside a measurement, see bench/advise.py


@dataclass(frozen=True, slots=True)
class Interval:
    """A number, and the bounds between which it is expected."""

    low: float
    value: float
    high: float

    def times(self, other: Interval) -> Interval:
        return Interval(self.low * other.low, self.value * other.value, self.high * other.high)


def expected_us(work: Work, rows: int, speed: Speed) -> float:
    """Return the µs of a batch on one core."""
    products = sum(
        each.operations * rows / (1e3 * speed.gops(each.kind, each.rows * rows, sqrt(each.inner * each.outer)))
        + each.rows * each.outer * rows * speed.output_ns(each.kind, each.rows * rows) / 1e3
        for each in work.products
    )
    return products + work.moved * rows / (1e3 * speed.moved_gb_s) + work.nodes * speed.node_us


def undisturbed_us(times: Times) -> dict[int, float]:
    """Return rows -> µs of a batch that other work on the machine left alone: kernels' rates are of such ones, too."""
    return {rows: times.draw(rows, UNDISTURBED) for rows in times.sizes}


def faster(measured_us: Mapping[int, float], here: Speed, there: Speed, work: Work | None) -> dict[int, Interval]:
    """Return rows of a batch -> how many times as fast it is on another machine.

    Args:
        measured_us: Rows -> µs here, undisturbed.
        work: `None`, or unknown in parts: the interval has all ratios of the two machines.
    """
    ratios = _ratios(here, there)
    scalar = there.scalar / here.scalar
    if work is None or not work.known:
        wide = Interval(min(ratios) / _near(ratios), scalar, max(ratios) * _near(ratios))
        return dict.fromkeys(measured_us, wide)
    found = {}
    for rows, took in measured_us.items():
        roof = expected_us(work, rows, here)
        later = expected_us(work, rows, there)
        added, scaled = later + max(0.0, took - roof) / scalar, later * took / roof
        near = 1.0 if here is there else NEAR
        expected = added if took >= roof else scaled
        found[rows] = Interval(took / max(added, scaled) / near, took / expected, took / min(added, scaled) * near)
    return found


def _ratios(here: Speed, there: Speed) -> list[float]:
    if here is there:
        return [1.0]
    kernels = [
        there.gops(each.kind, each.rows, each.width) / each.gops
        for each in here.rates
        if any(other.kind == each.kind for other in there.rates)
    ]
    return [there.scalar / here.scalar, there.moved_gb_s / here.moved_gb_s, *kernels]


def _near(ratios: list[float]) -> float:
    return 1.0 if ratios == [1.0] else _UNKNOWN
