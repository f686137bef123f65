"""Sketches of rows that are not uploaded one by one: counts of each column's values in the bins of training.

`sketch.json` of a package has the bins. The control plane counts the rows that are uploaded in the same bins, so that
the sum of both is the sketch of all rows. A sketch holds integers and sums alone: hours and devices add up.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring_edge.errors import Refused

FORMAT = 1
_COUNTS = 8  # rows, nulls, nans, type errors, unseen, below, above, commonest
_MOMENTS = 4
_LATENCIES, _PER_OCTAVE = 480, 16  # buckets: number i begins at 2**(i / 16) microseconds
_LARGEST_Z = 1e60

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counted = tuple[Ints, Ints, Floats, Floats]  # counts, bins, sums, the rank of each row


@dataclass(frozen=True, slots=True)
class Sketch:
    """Counts of rows, by column in the order of `sketch.json`.

    Attributes:
        counts: Shape (columns, 8).
        bins: Shape (columns, width).
        sums: Shape (columns, 4): of the first four powers of the standardised values.
        products: Shape (paired, paired): sums of the products of two columns' ranks.
        latencies: Shape (480,).
        dropped: Rows among these that were dropped from a full queue.
    """

    counts: Ints
    bins: Ints
    sums: Floats
    products: Floats
    latencies: Ints
    rows: int
    dropped: int = 0

    def __add__(self, other: Sketch) -> Sketch:
        return Sketch(
            self.counts + other.counts,
            self.bins + other.bins,
            self.sums + other.sums,
            self.products + other.products,
            self.latencies + other.latencies,
            self.rows + other.rows,
            self.dropped + other.dropped,
        )

    def record(self) -> dict[str, Any]:
        """Return the fields of a record; of bins and latencies those that are not 0."""
        return {
            "rows": self.rows,
            "dropped": self.dropped,
            "counts": self.counts.tolist(),
            "bins": [_sparse(each) for each in self.bins],
            "sums": self.sums.tolist(),
            "products": self.products[np.triu_indices(len(self.products))].tolist(),
            "latencies": _sparse(self.latencies),
        }


class Ruler:
    """Maker of sketches.

    Args:
        content: A verified `sketch.json`.

    Raises:
        Refused: This runtime does not know its format.
    """

    def __init__(self, content: bytes) -> None:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise Refused("format", f"sketch.json has the format {document['format']}; this runtime reads {FORMAT}.")
        self._width, self._paired, self._score = document["width"], document["paired"], document["score"]
        self._columns = [(each["name"], _COUNTERS[each["kind"]](each)) for each in document["columns"]]

    def sketch(
        self,
        features: Mapping[str, Sequence[Any]],
        scores: Sequence[Any],
        latencies_us: Sequence[int],
        dropped: int = 0,
    ) -> Sketch:
        """Return the sketch of rows.

        Args:
            features: Column -> shape (rows,), as `Device.features` returns them.
            scores: The first output of each row.
        """
        rows, size = len(scores), len(self._columns)
        values = {**features, self._score: [_as_score(each) for each in scores]}
        made = self.empty()
        ranks = np.zeros((self._paired, rows))
        for place, (name, count) in enumerate(self._columns):
            if count is not None:
                found = count(values.get(name, [None] * rows))
                made.counts[place], made.sums[place] = found[0], found[2]
                made.bins[place, : len(found[1])] = found[1]
                if place < min(self._paired, size):
                    ranks[place] = found[3]
        buckets = np.floor(np.log2(np.maximum(latencies_us, 1)) * _PER_OCTAVE).astype(np.int64)
        latencies = np.bincount(np.minimum(buckets, _LATENCIES - 1), minlength=_LATENCIES)
        return Sketch(made.counts, made.bins, made.sums, ranks @ ranks.T, latencies, rows, dropped)

    def empty(self) -> Sketch:
        """Return the sketch of no rows."""
        size = len(self._columns)
        return Sketch(
            np.zeros((size, _COUNTS), np.int64),
            np.zeros((size, self._width), np.int64),
            np.zeros((size, _MOMENTS)),
            np.zeros((self._paired, self._paired)),
            np.zeros(_LATENCIES, np.int64),
            0,
        )

    def read(self, record: Mapping[str, Any]) -> Sketch:
        """Return the sketch of a record."""
        made = self.empty()
        made.counts[:], made.sums[:] = record["counts"], record["sums"]
        for bins, sparse in zip((*made.bins, made.latencies), (*record["bins"], record["latencies"]), strict=True):
            bins[sparse[0]] = sparse[1]
        made.products[np.triu_indices(self._paired)] = record["products"]
        products = made.products + np.triu(made.products, 1).T
        return Sketch(
            made.counts, made.bins, made.sums, products, made.latencies, int(record["rows"]), int(record["dropped"])
        )


def _sparse(counts: Ints) -> list[list[int]]:
    places = np.flatnonzero(counts)
    return [places.tolist(), counts[places].tolist()]


def _as_score(output: Any) -> float | None:
    if isinstance(output, list):
        output = output[0] if output else None
    return _float(output) if isinstance(output, int | float) else None


def _of_numbers(column: Mapping[str, Any]) -> Callable[[Sequence[Any]], Counted]:
    edges, ranks = np.array(column["edges"], np.float64), np.array(column["ranks"], np.float64)
    low, high = (sign * math.inf if column[name] is None else column[name] for name, sign in (("low", -1), ("high", 1)))
    clip, center, scale = column["clip"], column["center"], column["scale"]

    def count(values: Sequence[Any]) -> Counted:
        counts, bins, sums = np.zeros(_COUNTS, np.int64), np.zeros(len(ranks), np.int64), np.zeros(_MOMENTS)
        known = [isinstance(value, int | float) for value in values]
        numbers = np.array([_float(value) if is_one else math.nan for value, is_one in zip(values, known, strict=True)])
        finite = np.isfinite(numbers)
        present = numbers[finite]
        nulls = sum(value is None for value in values)
        counts[:4] = len(values), nulls, sum(known) - len(present), len(values) - sum(known) - nulls
        if column["float32"]:
            with np.errstate(over="ignore"):
                narrow = present.astype(np.float32).astype(np.float64)
            present = np.where(np.isinf(narrow), present, narrow)
        places = np.searchsorted(edges, present, side="left")
        bins += np.bincount(places, minlength=len(bins))
        equal = 0 if column["commonest"] is None else np.count_nonzero(present == column["commonest"])
        counts[5:] = np.count_nonzero(present < low), np.count_nonzero(present > high), equal
        if column["summed"] and len(present):
            z = (np.clip(present, *clip) - center) / scale
            if math.isinf(high):
                z = np.clip(z, -_LARGEST_Z, _LARGEST_Z)
            square = z * z
            sums[:] = z.sum(), square.sum(), square @ z, square @ square
        of_rows = np.zeros(len(values))
        of_rows[finite] = ranks[places]
        return counts, bins, sums, of_rows

    return count


def _of_texts(column: Mapping[str, Any]) -> Callable[[Sequence[Any]], Counted]:
    places = {category: place for place, category in enumerate(column["categories"])}
    ranks, commonest = np.array(column["ranks"], np.float64), places.get(column["commonest"])
    known = None if column["known"] is None else set(np.frombuffer(base64.b64decode(column["known"]), "<u4").tolist())

    def count(values: Sequence[Any]) -> Counted:
        counts, bins = np.zeros(_COUNTS, np.int64), np.zeros(len(ranks), np.int64)
        of_rows = np.zeros(len(values))
        counts[0] = len(values)
        for row, value in enumerate(values):
            place, hashed = places.get(value), 0
            if place is None and isinstance(value, str):
                hashed = zlib.crc32(value.encode("utf-8", "surrogatepass"))
                place = len(places) + hashed % column["buckets"]
                unseen = known is not None and hashed not in known
                if not value and (unseen or known is None):
                    counts[1] += 1  # as a model treats it
                    continue
                counts[4] += unseen
            if place is None:
                counts[1 if value is None else 2 if isinstance(value, float) and math.isnan(value) else 3] += 1
                continue
            bins[place] += 1
            counts[7] += place == commonest
            of_rows[row] = ranks[place]
        return counts, bins, np.zeros(_MOMENTS), of_rows

    return count


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


_COUNTERS: Mapping[str, Callable[[Mapping[str, Any]], Callable[[Sequence[Any]], Counted] | None]] = {
    "numeric": _of_numbers,
    "categorical": _of_texts,
    "hidden": lambda _: None,  # it identifies a person
}
