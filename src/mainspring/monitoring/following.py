"""Incremental counts of an endpoint's predictions by window: open windows are updated, others read on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa

from mainspring.ledger.columns import WATCHED
from mainspring.ledger.ports import Arrivals, PredictionStore
from mainspring.monitoring.joins import OUTPUTS, arrived, changed_keys, touched
from mainspring.monitoring.model import Checkpoint, LabelRows
from mainspring.monitoring.reader import UNCOUNTED, Reader, instants
from mainspring.monitoring.tally import Served, Tally, restored, stored


@dataclass
class Open:
    """Tallies of an endpoint's open windows, and their position in the store.

    Attributes:
        position: Position in the prediction store; every earlier prediction is in a tally, in `early` or in a settled
            window.
        early: Predictions with a time in the future, from a clock that is ahead.
        until: Labels visible by this time are included.
        labels: State of the joined labels, see `LabelRows.state`.
        joined: Whether the tallies have their labels; stored ones do not.
        checkpoint: The last stored checkpoint of these tallies.
    """

    position: int
    tallies: dict[int, Tally] = field(default_factory=dict)
    early: list[pa.Table] = field(default_factory=list)
    until: int = 0
    labels: str | None = None
    joined: bool = True
    checkpoint: Checkpoint | None = None

    def must_join_again(self, labels: LabelRows, until: int) -> bool:
        """Return whether an already joined prediction may have another label now."""
        matures = labels.matures_us
        return (
            not self.joined
            or self.labels != labels.state
            or until < self.until
            or (matures is not None and until - matures > min(self.tallies, default=until))
            or arrived(labels, self.until, until)
        )


class Following:
    """Follows the prediction store: each prediction is read once, into the tally of its open window.

    Args:
        predictions: The prediction log, as far as it is compacted.
        window_us: Length of a window, microseconds.
        served: Returns the description of a bundle, by its digest.
    """

    def __init__(self, predictions: PredictionStore, window_us: int, served: Callable[[str], Served]) -> None:
        self._predictions = predictions
        self._window_us = window_us
        self._served = served

    def resumed(self, checkpoint: Checkpoint) -> Open | None:
        """Return the stored tallies, or `None` if they must be counted again."""
        tallies = restored(checkpoint.tallies, self._served)
        if tallies is None:
            return None
        return Open(checkpoint.position, tallies, [], checkpoint.until, checkpoint.labels, False, checkpoint)

    def checkpoint(self, endpoint: str, opened: Open) -> Checkpoint:
        """Return the checkpoint of the tallies. With early predictions no tallies are stored, so all are counted
        again.
        """
        return Checkpoint(
            endpoint=endpoint,
            window_us=self._window_us,
            position=opened.position,
            until=opened.until,
            labels=opened.labels,
            tallies=b"" if opened.early else stored(opened.tallies),
            early=bool(opened.early),
        )

    def follow(
        self, endpoint: str, opened: Open | None, since: int, labels: LabelRows | None, until: int
    ) -> tuple[Open | None, Counter[int]]:
        """Count new predictions into existing tallies, and into those of windows from `since` on.

        Args:
            opened: The tallies so far; `None` to count the windows from `since` on from scratch.

        Returns:
            The tallies, and the numbers of new predictions in other windows. No tallies, and no counts, if the store
            cannot list the new predictions.
        """
        if opened is None:
            arrivals = self._predictions.arrivals(endpoint, since, columns=_columns(labels))
            assert arrivals is not None  # only a position can be too old
            opened = Open(arrivals.position)
        else:
            arrivals = self._predictions.arrivals(endpoint, 0, after=opened.position, columns=_columns(labels))
            if arrivals is None:
                return None, Counter()
        again = labels is not None and opened.must_join_again(labels, until)
        came = self._count(opened, arrivals, since, None if again else labels, until)
        if labels is not None and again:
            self._join_again(endpoint, opened, labels, until)
        for start, tally in list(opened.tallies.items()):
            if tally.uneven:
                opened.tallies[start] = self._again(endpoint, start, labels, until, tally.share, by=opened.position)
        opened.until, opened.joined = until, True
        opened.labels = None if labels is None else labels.state
        return opened, came

    def arrived_in(
        self, endpoint: str, before: int, known: Mapping[int, int], position: int | None = None
    ) -> Counter[int]:
        """Return the numbers of predictions that arrived in windows before a time, since they were counted.

        Args:
            known: Start of each counted window -> its number of predictions.
            position: Position of the count in the store, if known.
        """
        if position is not None:
            behind = self._predictions.arrivals(endpoint, 0, before, after=position, columns=["at"])
            if behind is not None:
                return self._by_window(behind)
        # Fewer predictions than before mean that old ones have expired, which is not a change.
        found = self._by_window(self._predictions.arrivals(endpoint, 0, before, columns=["at"]))
        return Counter({start: more for start, rows in found.items() if (more := rows - known.get(start, 0)) > 0})

    def touched(
        self, endpoint: str, span: tuple[int, int], labels: LabelRows, before: Checkpoint, until: int
    ) -> set[int] | None:
        """Return the windows in a time span whose labels may have changed since a checkpoint; `None` for all."""
        keys = changed_keys(labels, before, until)
        if keys is None or not keys.num_rows:
            return None if keys is None else set()
        arrivals = self._predictions.arrivals(endpoint, *span, columns=["at", "keys"])
        return touched(keys, labels, arrivals.batches if arrivals else (), self._window_us)

    def tallied(
        self, endpoint: str, starts: Sequence[int], labels: LabelRows | None, until: int, *, features: bool = True
    ) -> dict[int, Tally]:
        """Return tallies of adjacent windows, counted from all their predictions."""
        tallies = {start: Tally() for start in starts}
        self._read(endpoint, tallies, labels, until, features=features)
        for start, tally in list(tallies.items()):
            if tally.uneven:
                tallies[start] = self._again(endpoint, start, labels, until, tally.share, features=features)
        return tallies

    def _count(
        self, opened: Open, arrivals: Arrivals, since: int, labels: LabelRows | None, until: int
    ) -> Counter[int]:
        counts: Counter[int] = Counter()
        reader = Reader(opened.tallies, self._window_us, self._served, labels, until, grows=True)
        early, opened.early = opened.early, []
        for batch in chain(early, arrivals.batches):
            at = instants(batch)
            starts = at // self._window_us * self._window_us
            future = at >= until
            if future.any():
                opened.early.append(batch.filter(pa.array(future)))
            settled = (starts < since) & ~np.isin(starts, list(opened.tallies)) & ~future
            counts.update(starts[settled].tolist())
            reader.add(batch.filter(pa.array(~(future | settled))))
        reader.join()
        opened.position = arrivals.position
        return counts

    def _join_again(self, endpoint: str, opened: Open, labels: LabelRows, until: int) -> None:
        """Join all predictions of the open windows with the current labels."""
        for tally in opened.tallies.values():
            tally.labelled = []
        self._read(endpoint, opened.tallies, labels, until, count=False, features=False, by=opened.position)

    def _again(
        self,
        endpoint: str,
        start: int,
        labels: LabelRows | None,
        until: int,
        share: float,
        *,
        features: bool = True,
        by: int | None = None,
    ) -> Tally:
        """Return the tally of a window, counted again with the smallest share known from the beginning."""
        tallies = {start: Tally(share)}
        self._read(endpoint, tallies, labels, until, features=features, by=by)
        return tallies[start]

    def _read(
        self,
        endpoint: str,
        tallies: dict[int, Tally],
        labels: LabelRows | None,
        until: int,
        *,
        count: bool = True,
        features: bool = True,
        by: int | None = None,
    ) -> None:
        if not tallies:
            return
        reader = Reader(tallies, self._window_us, self._served, labels, until, count=count, features=features)
        columns = _columns(labels, features=features)
        end = min(until, max(tallies) + self._window_us)
        reader.read(self._predictions.arrivals(endpoint, min(tallies), end, by=by, columns=columns))

    def _by_window(self, arrivals: Arrivals | None) -> Counter[int]:
        predictions: Counter[int] = Counter()
        for batch in arrivals.batches if arrivals else ():
            at = instants(batch)
            starts, rows = np.unique(at // self._window_us * self._window_us, return_counts=True)
            predictions.update(dict(zip(starts.tolist(), rows.tolist(), strict=True)))
        return predictions


def _columns(labels: LabelRows | None, *, features: bool = True) -> Sequence[str] | None:
    """Return the prediction columns to read, `None` for the default; several labels also need the outputs."""
    if labels is None or not labels.others:
        return None if features else UNCOUNTED
    return (*(WATCHED if features else UNCOUNTED), OUTPUTS)
