"""Reader of predictions from the store, joined with their labels into the tallies of windows, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from mainspring.ledger.ports import Arrivals
from mainspring.monitoring.joins import OUTPUTS, distinct, join_labels
from mainspring.monitoring.model import LabelRows
from mainspring.monitoring.tally import LABELLED, Tally, thinned

ROWS_AT_ONCE = 200_000  # number of predictions joined with labels at once
READ = ("id", "version", "at", "keys", "score", "share")
_JOINED = ["id", "version", "at", "score", "keys"]


class Reader:
    """Adds predictions to the tallies of their windows, and joins them with their labels in large batches.

    Args:
        labels: `None` if the predictions will be joined later.
        grows: Whether to create tallies for new windows; else their predictions are skipped.
        count: Whether to count predictions; else they were counted before, and are only joined.
    """

    def __init__(
        self,
        tallies: dict[int, Tally],
        window_us: int,
        labels: LabelRows | None,
        until: int,
        *,
        grows: bool = False,
        count: bool = True,
    ) -> None:
        self._tallies = tallies
        self._window_us = window_us
        self._labels = labels
        self._until = until
        self._grows = grows
        self._count = count
        self._waiting: list[pa.Table] = []

    def read(self, arrivals: Arrivals | None) -> None:
        for batch in arrivals.batches if arrivals else ():
            self.add(batch)
        self.join()

    def add(self, batch: pa.Table) -> None:
        batch = distinct(batch.sort_by("at"))
        if self._labels is not None and self._labels.others and OUTPUTS not in batch.column_names:
            batch = batch.append_column(OUTPUTS, pa.nulls(batch.num_rows, pa.string()))  # read for other labels
        for start, rows in self._windows(batch):
            if start not in self._tallies:
                if not self._grows:
                    continue
                self._tallies[start] = Tally()
            tally = self._tallies[start]
            counted = tally.add(rows) if self._count else thinned(rows, tally.share)
            if self._labels is not None:
                self._waiting.append(counted.select(_JOINED + ([OUTPUTS] if self._labels.others else [])))
        if sum(each.num_rows for each in self._waiting) >= ROWS_AT_ONCE:
            self.join()

    def join(self) -> None:
        """Join the waiting predictions with their labels."""
        if self._labels is None or not self._waiting:
            return
        joined = join_labels(pa.concat_tables(self._waiting), self._labels, self._until)
        self._waiting = []
        for start, rows in self._windows(joined):
            self._tallies[start].labelled.append(rows.select(LABELLED))

    def _windows(self, rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        at = instants(rows)
        starts = np.unique(at // self._window_us * self._window_us)
        for start in starts.tolist():
            first, last = np.searchsorted(at, [start, start + self._window_us])
            yield start, rows.slice(first, last - first)


def instants(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the column `at`, UTC epoch microseconds, shape (rows,)."""
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = table["at"].cast(pa.int64()).to_numpy()
    return found
