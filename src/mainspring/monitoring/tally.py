"""Mergeable counts of a window's predictions: later predictions are added without reading earlier ones.

The counts depend on the predictions, not on their batches: bins and quantiles exactly, means and variances up to
rounding.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import MainspringError
from mainspring.core.schema import DType
from mainspring.monitoring.joins import json_rows
from mainspring.stats.metrics import Metric
from mainspring.stats.reference import Reference
from mainspring.stats.sketches import COUNTS, Ruler, Sketch

_COUNTING = 2  # increment if `Made` or `Tally` change their way of counting
_MOST_BYTES = 4 << 20  # maximum size of stored tallies, which are written in every run
LABELLED = ("version", "score", "label", "lag_us")  # columns of labelled predictions that a window needs


@dataclass(frozen=True)
class Served:
    """Description of a bundle's predictions: task, inputs, score and reference statistics."""

    task: str
    features: Mapping[str, DType]  # the model's inputs, by full name
    score: str  # the first output, which the log calls score
    reference: Reference | None  # of features and score
    labels: tuple[str, ...] = ()  # for several labels: their output names
    more: tuple[Metric, ...] = ()  # metrics of the version in addition to the task's

    @cached_property
    def ruler(self) -> Ruler | None:
        """Maker of sketches of the features and the score; `None` without a reference."""
        if self.reference is None:
            return None
        # In the precision of training: a client's 0.1 is the float32 seen there.
        narrow = [name for name, dtype in self.features.items() if dtype in (DType.Float32, DType.Boolean)]
        return Ruler(self.reference, [*self.features, self.score], float32=narrow)


class SketchRecord(msgspec.Struct, frozen=True, array_like=True):
    """Stored form of a sketch; bins without the zeros at their end."""

    columns: list[str]
    counts: list[list[int]]
    bins: list[list[int]]
    sums: list[list[float]]


class MadeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Stored form of `Made`."""

    version: str
    digest: str
    known: bool  # True if its bundle could be loaded; else its columns were not counted
    rows: int
    first: int
    sketch: SketchRecord | None
    missing: dict[str, int]
    left_out: list[str]


class TallyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Stored form of `Tally`, without labels, which are joined again."""

    share: float
    rows: int
    latencies: dict[int, int]
    made: list[MadeRecord]


class TallyRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Stored tallies of several windows, by start."""

    counting: int  # another release may count in another way: see `_COUNTING`
    tallies: dict[int, TallyRecord]


class Made:
    """Predictions of one version in one window.

    Attributes:
        served: Description of its bundle, or the error of loading it.
        rows: Number of predictions.
        first: Time of the first prediction, UTC epoch microseconds.
    """

    def __init__(self, version: str, digest: str, served: Served | MainspringError) -> None:
        self.version = version
        self.digest = digest
        self.served = served
        self.rows = 0
        self.first = 2**63 - 1
        self._sketch: Sketch | None = None
        self._missing: Counter[str] = Counter()  # rows that lack a feature
        self._left_out: set[str] = set()  # features that some rows lack because they are personal

    def add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        self.first = min(self.first, int(pc.min(rows["at"]).cast(pa.int64()).as_py()))
        if isinstance(self.served, MainspringError) or self.served.ruler is None:
            return
        ruler = self.served.ruler
        features = json_rows(rows["features"])
        self._left_out.update(name for names in rows["personal"].unique().to_pylist() for name in _list(names))
        values: dict[str, Any] = {self.served.score: rows["score"]}
        for name in self.served.features:
            if name in ruler.columns:
                values[name] = [row[name] for row in features if name in row]
                self._missing[name] += len(features) - len(values[name])
        sketch = ruler.sketch(values)
        self._sketch = sketch if self._sketch is None else self._sketch + sketch

    def sketch(self) -> Sketch | None:
        """Return the sketch of the columns to test, except those withheld from every row; `None` without any."""
        if self._sketch is None:
            return None
        counts = self._sketch.counts.copy()
        missing = [0 if name in self._left_out else self._missing[name] for name in self._sketch.columns]
        for name in ("rows", "nans"):
            counts[:, COUNTS.index(name)] += np.array(missing, np.int64)
        full = Sketch(self._sketch.columns, counts, self._sketch.bins, self._sketch.sums)
        return full.select([name for name, rows in zip(full.columns, full.count("rows"), strict=True) if rows])

    def record(self) -> MadeRecord:
        return MadeRecord(
            version=self.version,
            digest=self.digest,
            known=isinstance(self.served, Served),
            rows=self.rows,
            first=self.first,
            sketch=None if self._sketch is None else _sketch_record(self._sketch),
            missing=self._missing,
            left_out=sorted(self._left_out),
        )

    @classmethod
    def restored(cls, record: MadeRecord, served: Served | MainspringError) -> Made:
        made = cls(record.version, record.digest, served)
        made.rows, made.first = record.rows, record.first
        made._sketch = None if record.sketch is None else _sketch_of(record.sketch)
        made._missing, made._left_out = Counter(record.missing), {*record.left_out}
        return made


def _sketch_record(sketch: Sketch) -> SketchRecord:
    bins = [np.trim_zeros(each, "b").tolist() for each in sketch.bins]
    return SketchRecord([*sketch.columns], sketch.counts.tolist(), bins, sketch.sums.tolist())


def _sketch_of(record: SketchRecord) -> Sketch:
    sketch = Sketch.empty(record.columns)
    sketch.counts[:], sketch.sums[:] = record.counts, record.sums
    for place, bins in enumerate(record.bins):
        sketch.bins[place, : len(bins)] = bins
    return sketch


class Tally:
    """Counts of one window.

    Predictions logged with a larger sampling share than the window's smallest are thinned to it, so that each has the
    same chance to count. The selection is a function of their ids.

    Args:
        share: The smallest share in the window, if known.

    Attributes:
        uneven: A later prediction had a smaller share than earlier ones were thinned to, so the counts are wrong, and
            the window must be counted again with `share`.
        labelled: Labelled predictions: the columns `LABELLED` of results of `joins.join_labels`.
    """

    def __init__(self, share: float = math.inf) -> None:
        self.share = share
        self.rows = 0
        self.uneven = False
        self.latencies: Counter[int] = Counter()  # microseconds -> predictions
        self.made: dict[tuple[str, str], Made] = {}
        self.labelled: list[pa.Table] = []

    def add(self, rows: pa.Table, served: Callable[[str], Served], *, features: bool = True) -> pa.Table:
        """Count predictions of the window, and return those that were counted.

        Args:
            served: Returns the description of a bundle, by its digest.
            features: Whether the rows have their features; else only predictions are counted.
        """
        shares = rows["share"].to_numpy()
        least = float(shares.min())
        if least < self.share:
            self.uneven = self.uneven or self.rows > 0
            self.share = least
        rows = thinned(rows, self.share)
        self.rows += rows.num_rows
        self.latencies.update(rows["latency_us"].to_numpy().tolist())
        pairs = rows.select(["version", "digest"]).group_by(["version", "digest"]).aggregate([])
        for pair in pairs.to_pylist():
            key = str(pair["version"]), str(pair["digest"])
            made = self.made.get(key)
            if made is None:
                made = self.made[key] = Made(*key, _loaded(served, key[1]) if features else MainspringError(""))
            made.add(rows if len(pairs) == 1 else _of(rows, *key))
        return rows

    def dominant(self) -> Made | None:
        """Return the version with most predictions; among equals the one that started last."""
        return max(self.made.values(), key=lambda made: (made.rows, made.first, made.version), default=None)

    def versions(self) -> dict[str, int]:
        """Return version -> number of predictions, most frequent first."""
        predictions: Counter[str] = Counter()
        for made in self.made.values():
            predictions[made.version] += made.rows
        return dict(sorted(predictions.items(), key=lambda item: -item[1]))

    def latency_ms(self, share: float) -> float | None:
        """Return a quantile of the latencies in milliseconds, with linear interpolation; `None` without predictions."""
        if not self.rows:
            return None
        values = np.array(sorted(self.latencies), np.int64)
        ranks = np.cumsum([self.latencies[value] for value in values.tolist()])
        place = share * (self.rows - 1)
        low, high = values[np.searchsorted(ranks, [math.floor(place), math.ceil(place)], side="right")].tolist()
        return float(low + (high - low) * (place - math.floor(place))) / 1e3


def stored(tallies: Mapping[int, Tally]) -> bytes:
    """Encode the tallies by window start, without their labels; empty if they exceed the size limit."""
    records = {
        start: TallyRecord(
            share=tally.share,
            rows=tally.rows,
            latencies=tally.latencies,
            made=[made.record() for made in tally.made.values()],
        )
        for start, tally in tallies.items()
    }
    content = msgspec.msgpack.encode(TallyRecords(counting=_COUNTING, tallies=records))
    return content if len(content) <= _MOST_BYTES else b""


def restored(content: bytes, served: Callable[[str], Served]) -> dict[int, Tally] | None:
    """Decode tallies from `stored`, or return `None` if they must be counted again."""
    try:
        records = msgspec.msgpack.decode(content, type=TallyRecords)
    except msgspec.MsgspecError:
        return None
    if records.counting != _COUNTING:
        return None
    tallies = {}
    for start, record in records.tallies.items():
        tally = tallies[start] = Tally(record.share)
        tally.rows, tally.latencies = record.rows, Counter(record.latencies)
        for entry in record.made:
            bundle = _loaded(served, entry.digest)
            if entry.known is not isinstance(bundle, Served):
                return None
            tally.made[entry.version, entry.digest] = Made.restored(entry, bundle)
    return tallies


def thinned(rows: pa.Table, share: float) -> pa.Table:
    """Return the rows that would exist had `share` of the requests been logged, where more were."""
    shares = rows["share"].to_numpy()
    if shares.max() <= share:
        return rows
    draws = np.array([zlib.crc32(str(identifier).encode()) for identifier in rows["id"].to_pylist()]) / 2**32
    return rows.filter(pa.array((shares <= share) | (draws < share / shares)))


def _loaded(served: Callable[[str], Served], digest: str) -> Served | MainspringError:
    try:
        return served(digest)
    except MainspringError as error:  # raised only if this version's drift is to be tested
        return error


def _of(rows: pa.Table, version: str, digest: str) -> pa.Table:
    same = pc.and_(pc.equal(rows["version"], pa.scalar(version)), pc.equal(rows["digest"], pa.scalar(digest)))
    return rows.filter(same)


def _list(names: object) -> list[str]:
    found: list[str] = msgspec.json.decode(str(names))
    return found
