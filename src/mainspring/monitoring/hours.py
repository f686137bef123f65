"""Sketches of an endpoint's hours: additive summaries from which windows and channels are computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import zip_longest
from operator import add

import numpy as np
import numpy.typing as npt

from mainspring.stats.sketches import Pairs, Sketch
from mainspring.stats.summaries import Summary

_PER_OCTAVE = 16  # a bucket is 4% wide
CROSSED = "(crossed) "  # of segments with the sums of `stats.crossings` as pairs, without columns; before a measure
# Segment of predictions on devices that are in no log; a part of the whole traffic. Other segments that begin with it
# are of devices as well. They are not made of the log, so a recount of the log leaves them.
FLEET = "(fleet)"
LATENCIES = 30 * _PER_OCTAVE  # buckets: to 2**30 microseconds, 18 minutes


def no_latencies() -> npt.NDArray[np.int64]:
    """Return the latency counts of no predictions."""
    return np.zeros(LATENCIES, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class HourSketch:
    """Predictions of one version in one hour and segment.

    Attributes:
        hour: Start of the hour by the predictions' times, UTC epoch microseconds; of a shorter slot if the project's
            windows are no whole hours.
        segment: Empty for the whole traffic, else such as `Schedule.carrier=UA`.
        sketch: Columns of the version's reference; without columns if the predictions were not sketched.
        pairs: Joint summary of the whole traffic; for a segment `CROSSED` sums by bins of features.
        share: Share of the endpoint's requests that were logged: each prediction stands for 1 / share.
        reason: Why the predictions were not sketched; else empty.
        rows: Number of predictions.
        latencies: Number of predictions by latency, shape (LATENCIES,), see `latency_buckets`.
        summaries: For display, of each column of the sketch; empty of segments, and as a store returns hours.
    """

    endpoint: str
    version: str
    digest: str
    hour: int
    segment: str
    sketch: Sketch
    pairs: Pairs | None = None
    share: float = 1.0
    reason: str = ""
    rows: int = 0
    latencies: npt.NDArray[np.int64] = field(default_factory=no_latencies)
    summaries: tuple[Summary | None, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, int, str, float, str]:
        """Identity: the sketches of one key are added up."""
        return self.endpoint, self.version, self.digest, self.hour, self.segment, self.share, self.reason

    def __add__(self, other: HourSketch) -> HourSketch:
        """Return the sketch of the predictions of both, under this one's key."""
        pairs = self.pairs if other.pairs is None else other.pairs if self.pairs is None else self.pairs + other.pairs
        return HourSketch(
            self.endpoint,
            self.version,
            self.digest,
            self.hour,
            self.segment,
            self.sketch + other.sketch,
            pairs,
            self.share,
            self.reason,
            self.rows + other.rows,
            self.latencies + other.latencies,
            tuple(
                one if two is None else two if one is None else one + two
                for one, two in zip_longest(self.summaries, other.summaries)
            ),
        )


def added(sketches: Iterable[HourSketch]) -> list[HourSketch]:
    """Return one sketch for each key, in order of appearance."""
    sums: dict[tuple[object, ...], HourSketch] = {}
    for each in sketches:
        before = sums.get(each.key)
        sums[each.key] = each if before is None else before + each
    return list(sums.values())


def latency_buckets(latency_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the number of latencies by bucket, shape (LATENCIES,): bucket i begins at 2**(i / 16) microseconds."""
    places = np.floor(np.log2(np.maximum(latency_us, 1)) * _PER_OCTAVE).astype(np.int64)
    counts: npt.NDArray[np.int64] = np.bincount(np.minimum(places, LATENCIES - 1), minlength=LATENCIES)
    return counts


def latency_ms(counts: npt.NDArray[np.int64], share: float) -> float | None:
    """Return a quantile of latencies in milliseconds, to a bucket's width of 4%; `None` without predictions."""
    total = int(counts.sum())
    if not total:
        return None
    below = np.cumsum(counts)
    rank = share * (total - 1) + 0.5
    bucket = int(np.searchsorted(below, rank, side="left"))
    inside = (rank - (int(below[bucket]) - int(counts[bucket]))) / int(counts[bucket])
    return float(2.0 ** ((bucket + inside) / _PER_OCTAVE)) / 1e3


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """Predictions of one version in some hours.

    Attributes:
        rows: Number of predictions, at the smallest share with which any of the hours' predictions were logged.
        first: Start of its first hour.
        sketched: Number of predictions in the sketch.
        sketch: `None` if no predictions were sketched.
        reasons: Why others were not, with their number.
    """

    version: str
    digest: str
    rows: int
    first: int
    sketched: int
    sketch: Sketch | None
    latencies: npt.NDArray[np.int64]
    reasons: Mapping[str, int]


def made(hours: Sequence[HourSketch]) -> list[Made]:
    """Return the predictions of hours by version, that with most of them first; among equals the one that began last.

    Predictions that were logged with a larger share than others count less, as if the smallest had held for all.
    """
    least = min((each.share for each in hours), default=1.0)
    sums = added(replace(each, hour=0) for each in hours)
    first: dict[tuple[str, str], int] = {}
    for each in hours:
        by = each.version, each.digest
        first[by] = min(each.hour, first.get(by, each.hour))
    found = []
    for (version, digest), began in first.items():
        parts = [_scaled(each, least / each.share) for each in sums if (each.version, each.digest) == (version, digest)]
        sketched = [each for each in parts if each.sketch.columns]
        reasons: Counter[str] = Counter()
        for each in parts:
            if each.reason:
                reasons[each.reason] += each.rows
        found.append(
            Made(
                version,
                digest,
                sum(each.rows for each in parts),
                began,
                sum(each.rows for each in sketched),
                reduce(add, (each.sketch for each in sketched)) if sketched else None,
                sum((each.latencies for each in parts), no_latencies()),
                reasons,
            )
        )
    return sorted(found, key=lambda each: (each.rows, each.first, each.version), reverse=True)


def _scaled(each: HourSketch, factor: float) -> HourSketch:
    if factor == 1.0:
        return each
    sketch = Sketch(
        each.sketch.columns,
        np.rint(each.sketch.counts * factor).astype(np.int64),
        np.rint(each.sketch.bins * factor).astype(np.int64),
        each.sketch.sums * factor,
    )
    latencies = np.rint(each.latencies * factor).astype(np.int64)
    return replace(each, sketch=sketch, rows=round(each.rows * factor), latencies=latencies)
