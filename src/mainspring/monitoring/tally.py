"""Counts of a window's predictions, to which later predictions are added without the earlier ones.

The counts are a function of the predictions, not of the batches in which they came: bins and quantiles exactly,
means and variances up to rounding.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import MainspringError
from mainspring.core.schema import DType
from mainspring.monitoring.joins import json_rows
from mainspring.stats.metrics import Metric
from mainspring.stats.reference import NUMERIC, Counts, Reference, count_bins

_COUNTING = 1  # one more where `Made` or `Tally` count in another way
_MOST_BYTES = 4 << 20  # of stored tallies: they are written with every look
LABELLED = ("version", "score", "label", "lag_us")  # what a window needs of each prediction that has a label


@dataclass(frozen=True, slots=True)
class Served:
    """Description of a bundle's predictions: their task, inputs, score and reference statistics."""

    task: str
    features: Mapping[str, DType]  # the model's inputs, by full name
    score: str  # the first output: what the log calls the score
    reference: Reference | None  # of both
    labels: tuple[str, ...] = ()  # of a model of several: the outputs of these names
    more: tuple[Metric, ...] = ()  # what the version was judged by beside the metrics of its task


class MadeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`Made` as it is stored."""

    version: str
    digest: str
    known: bool  # its bundle could be loaded: else its columns were not counted
    rows: int
    first: int
    counts: dict[str, Counts]
    missing: dict[str, int]
    left_out: list[str]


class TallyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`Tally` as it is stored, without its labels: they are joined again."""

    share: float
    rows: int
    latencies: dict[int, int]
    made: list[MadeRecord]


class TallyRecords(msgspec.Struct, frozen=True, kw_only=True):
    """The tallies of several windows, by start."""

    counting: int  # another version of this package counts in another way: see `_COUNTING`
    tallies: dict[int, TallyRecord]


class Made:
    """The predictions of one version in one window.

    Attributes:
        served: What its bundle says, or why that cannot be known.
        rows: How many they are.
        first: When the first of them was made, UTC epoch microseconds.
    """

    def __init__(self, version: str, digest: str, served: Served | MainspringError) -> None:
        self.version = version
        self.digest = digest
        self.served = served
        self.rows = 0
        self.first = 2**63 - 1
        self._counts: dict[str, Counts] = {}
        self._missing: Counter[str] = Counter()  # rows that lack a feature
        self._left_out: set[str] = set()  # features that some rows lack because they are personal

    def add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        self.first = min(self.first, int(pc.min(rows["at"]).cast(pa.int64()).as_py()))
        if isinstance(self.served, MainspringError) or self.served.reference is None:
            return
        reference = self.served.reference.columns
        features = json_rows(rows["features"])
        self._left_out.update(name for names in rows["personal"].unique().to_pylist() for name in _list(names))
        for name, dtype in self.served.features.items():
            if name in reference:
                values = [row[name] for row in features if name in row]
                self._missing[name] += len(features) - len(values)
                numeric = reference[name].kind == NUMERIC
                self._count(name, count_bins(reference[name], _trained(values, dtype) if numeric else _texts(values)))
        score = self.served.score
        if score in reference:
            self._count(score, count_bins(reference[score], _numbers(rows["score"].to_pylist())))

    def counts(self) -> dict[str, Counts]:
        """Return the counts of each column that is to be judged: not of those that were left out of every row."""
        found = {}
        for name, counts in self._counts.items():
            missing = 0 if name in self._left_out else self._missing[name]
            full = msgspec.structs.replace(counts, nans=counts.nans + missing)
            if full.rows:
                found[name] = full
        return found

    def record(self) -> MadeRecord:
        return MadeRecord(
            version=self.version,
            digest=self.digest,
            known=isinstance(self.served, Served),
            rows=self.rows,
            first=self.first,
            counts=self._counts,
            missing=self._missing,
            left_out=sorted(self._left_out),
        )

    @classmethod
    def restored(cls, record: MadeRecord, served: Served | MainspringError) -> Made:
        made = cls(record.version, record.digest, served)
        made.rows, made.first = record.rows, record.first
        made._counts, made._missing, made._left_out = record.counts, Counter(record.missing), {*record.left_out}
        return made

    def _count(self, name: str, counts: Counts) -> None:
        known = self._counts.get(name)
        self._counts[name] = counts if known is None else known.merge(counts)


class Tally:
    """Counts of one window.

    Of predictions that were logged with several shares, those of a larger share are thinned to the smallest, so that
    each has one chance to count. Which of them stay is a function of their ids.

    Args:
        share: The smallest share in the window, if it is known.

    Attributes:
        uneven: A share turned out to be smaller than that to which the rows before it were thinned: what was counted is
            wrong, and the window must be counted again with `share`.
        labelled: Predictions with their labels: the columns `LABELLED` of what `joins.join_labels` gives.
    """

    def __init__(self, share: float = math.inf) -> None:
        self.share = share
        self.rows = 0
        self.uneven = False
        self.latencies: Counter[int] = Counter()  # microseconds -> predictions
        self.made: dict[tuple[str, str], Made] = {}
        self.labelled: list[pa.Table] = []

    def add(self, rows: pa.Table, served: Callable[[str], Served], *, features: bool = True) -> pa.Table:
        """Count predictions of the window, and return those that count.

        Args:
            served: Returns what the bundle of a digest says.
            features: Whether the rows have their features: else only predictions are counted.
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
                made = self.made[key] = Made(*key, _said(served, key[1]) if features else MainspringError(""))
            made.add(rows if len(pairs) == 1 else _of(rows, *key))
        return rows

    def dominant(self) -> Made | None:
        """Return the version that made most of the predictions; of several, the one that came last."""
        return max(self.made.values(), key=lambda made: (made.rows, made.first, made.version), default=None)

    def versions(self) -> dict[str, int]:
        """Return version -> predictions, the most first."""
        found: Counter[str] = Counter()
        for made in self.made.values():
            found[made.version] += made.rows
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def latency_ms(self, share: float) -> float | None:
        """Return a quantile of the latencies, between two of them by a straight line; `None` without predictions."""
        if not self.rows:
            return None
        values = np.array(sorted(self.latencies), np.int64)
        ranks = np.cumsum([self.latencies[value] for value in values.tolist()])
        place = share * (self.rows - 1)
        low, high = values[np.searchsorted(ranks, [math.floor(place), math.ceil(place)], side="right")].tolist()
        return float(low + (high - low) * (place - math.floor(place))) / 1e3


def stored(tallies: Mapping[int, Tally]) -> bytes:
    """Return tallies by the start of their window as bytes, without their labels; none where they are very many."""
    records = {
        start: TallyRecord(
            share=tally.share,
            rows=tally.rows,
            latencies=tally.latencies,
            made=[made.record() for made in tally.made.values()],
        )
        for start, tally in tallies.items()
    }
    found = msgspec.msgpack.encode(TallyRecords(counting=_COUNTING, tallies=records))
    return found if len(found) <= _MOST_BYTES else b""


def restored(content: bytes, served: Callable[[str], Served]) -> dict[int, Tally] | None:
    """Return what `stored` made bytes of, or `None` where it must be counted again."""
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
        for each in record.made:
            said = _said(served, each.digest)
            if each.known is not isinstance(said, Served):
                return None
            tally.made[each.version, each.digest] = Made.restored(each, said)
    return tallies


def thinned(rows: pa.Table, share: float) -> pa.Table:
    """Return those rows that would be there had `share` of the requests been logged, where more were."""
    shares = rows["share"].to_numpy()
    if shares.max() <= share:
        return rows
    draws = np.array([zlib.crc32(str(each).encode()) for each in rows["id"].to_pylist()]) / 2**32
    return rows.filter(pa.array((shares <= share) | (draws < share / shares)))


def _said(served: Callable[[str], Served], digest: str) -> Served | MainspringError:
    try:
        return served(digest)
    except MainspringError as error:  # it matters where this version is the one that is judged
        return error


def _of(rows: pa.Table, version: str, digest: str) -> pa.Table:
    same = pc.and_(pc.equal(rows["version"], pa.scalar(version)), pc.equal(rows["digest"], pa.scalar(digest)))
    return rows.filter(same)


def _list(names: object) -> list[str]:
    found: list[str] = msgspec.json.decode(str(names))
    return found


def _trained(values: Sequence[Any], dtype: DType) -> npt.NDArray[np.float64]:
    """Return the values in the precision of the reference: a client's 0.1 is the float32 that training saw."""
    numbers = _numbers(values)
    if dtype in (DType.Float32, DType.Boolean):
        with np.errstate(over="ignore"):
            return numbers.astype(np.float32).astype(np.float64)
    return numbers


def _texts(values: Sequence[Any]) -> list[Any]:
    return [value or None for value in values]  # "" is null to a model


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return the values as floats; a null, or what is no number, is NaN."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=np.float64)
