"""Quality of a bundle on its held-out rows as sums: a version's history before its first prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.core.errors import MainspringError
from mainspring.features.offline.observed import AT
from mainspring.monitoring.quality.measuring import TASKS, Judged
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle
from mainspring.stats.metrics import class_places
from mainspring.stats.quality_sums import BINS, CELLS, NO_BINS, Floats, Ints, Rows, Sums, contributions, grouped
from mainspring.stats.segmenting import segments_of
from mainspring.training.sets.labels import LABEL, SCORES, label_numbers

FEWEST_PERIODS = 5  # into which held-out rows are cut, however short their time is
MOST_PERIODS = 100  # longer ones if there would be more


class HeldOutQuality:
    """Sums of the held-out rows of bundles, kept in memory by digest.

    A bundle that cannot be loaded, or was made before predictions were kept beside held-out rows, has none.

    Args:
        load: Returns the verified bundle of a digest.
    """

    def __init__(self, load: Callable[[str], Bundle]) -> None:
        self._load = load
        self._kept_periods = lru_cache(maxsize=64)(self._periods)
        self._kept_segments = lru_cache(maxsize=64)(self._segments)
        self._kept_crossed = lru_cache(maxsize=64)(self._crossed)

    def periods(self, digest: str, output: str, length_us: int) -> Floats:
        """Return the bins of equal periods of about one length, shape (periods, 64, cells).

        Rows of a shorter time are cut into five periods, so that there are errors to learn from.

        Args:
            output: One of several labels; empty for the only one.
        """
        try:
            return self._kept_periods(digest, length_us).get(output, _NOTHING)
        except MainspringError:
            return _NOTHING

    def segments(self, digest: str, names: Sequence[str]) -> Mapping[tuple[str, str], Sums]:
        """Return (segment, output) -> the sums of its rows, of segments by columns that the rows have."""
        try:
            return self._kept_segments(digest, tuple(names))
        except MainspringError:
            return {}

    def crossed(self, digest: str) -> Mapping[tuple[str, str], Sums]:
        """Return (segment, output) -> the sums of its rows, in the bins of the features that matter and their pairs."""
        try:
            return self._kept_crossed(digest)
        except MainspringError:
            return {}

    def _periods(self, digest: str, length_us: int) -> dict[str, Floats]:
        bundle = self._load(digest)
        table = _table(bundle, ())
        if table is None or not table.num_rows:
            return {}
        at = np.asarray(table[AT].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(), np.int64)
        span = int(at.max() - at.min()) + 1
        count = min(max(FEWEST_PERIODS, round(span / length_us)), MOST_PERIODS)
        return {
            output: np.stack([sums.bins for sums in parts])
            for output, parts in _summed(bundle, table, (at - at.min()) * count // span, count)
        }

    def _segments(self, digest: str, names: tuple[str, ...]) -> dict[tuple[str, str], Sums]:
        bundle = self._load(digest)
        table = _table(bundle, names)
        found: dict[tuple[str, str], Sums] = {}
        if table is None:
            return found
        columns = Judged.of(bundle).columns
        for name in names:
            if name in table.column_names:
                group, segments = segments_of(name, table[name], columns.get(name))
                for output, parts in _summed(bundle, table, group, len(segments)):
                    named = zip(segments, parts, strict=True)
                    found |= {(segment, output): sums for segment, sums in named if not sums.empty}
        return found

    def _crossed(self, digest: str) -> dict[tuple[str, str], Sums]:
        bundle = self._load(digest)
        crossing = Judged.of(bundle).crossing
        table = None if crossing is None else _table(bundle, crossing.names)
        if table is None or crossing is None:
            return {}
        values = {name: table[name].to_pylist() for name in crossing.names if name in table.column_names}
        return {
            (segment, output): Sums(totals, NO_BINS)
            for output, rows in _rows(bundle, table)
            for segment, totals in crossing.totals(values, contributions(bundle.manifest.task, rows)[0]).items()
        }


_NOTHING: Floats = np.zeros((0, BINS, len(CELLS)))


def _table(bundle: Bundle, columns: Sequence[str]) -> pa.Table | None:
    content = bundle.files.get(HOLDOUT)
    if content is None or bundle.manifest.task not in TASKS:
        return None
    there = pq.read_schema(BytesIO(content)).names
    if not {AT, LABEL, SCORES} <= {*there}:
        return None
    return pq.read_table(BytesIO(content), columns=[AT, LABEL, SCORES, *(name for name in columns if name in there)])


def _summed(bundle: Bundle, table: pa.Table, group: Ints, groups: int) -> Iterator[tuple[str, list[Sums]]]:
    """Yield each output with the sums of its rows by group."""
    for output, rows in _rows(bundle, table):
        task = bundle.manifest.task
        found, place = contributions(task, rows)
        totals, bins = grouped(found, place, rows.shown, group, groups, numbers=task == "regression")
        bins[:, :, 4], bins[:, :, 5] = bins[:, :, 0], bins[:, :, 2]  # all rows are labelled
        yield output, [Sums(*each) for each in zip(totals, bins, strict=True)]


def _rows(bundle: Bundle, table: pa.Table) -> Iterator[tuple[str, Rows]]:
    judged, labels = Judged.of(bundle), table[LABEL]
    flat = pc.list_flatten(table[SCORES]).to_numpy()
    scores = np.asarray(flat, np.float64).reshape(table.num_rows, len(judged.outputs))
    if judged.task == "multiclass":
        place = class_places(labels.to_pylist(), judged.outputs).astype(np.float64)
        yield "", _of(judged, "", scores.max(axis=1, initial=0.0), place, scores)
        return
    truth = label_numbers(labels, judged.labels).reshape(table.num_rows, -1)
    for column, output in enumerate(judged.labels or ("",)):
        yield output, _of(judged, output, scores[:, column], truth[:, column])


def _of(judged: Judged, output: str, score: Floats, label: Floats, classes: Any = None) -> Rows:
    cap, edges = judged.cap_of(output), judged.edges_of(output)
    return Rows(score, label, classes, judged.threshold, cap, edges=edges)
