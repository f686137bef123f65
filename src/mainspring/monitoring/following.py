"""Incremental join of an endpoint's predictions with labels: open windows are updated, others read on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa

from mainspring.ledger.ports import Arrivals, PredictionStore
from mainspring.monitoring.joins import OUTPUTS, arrived, changed_keys, touched
from mainspring.monitoring.model import Checkpoint, LabelRows
from mainspring.monitoring.reader import READ, Reader, instants
from mainspring.monitoring.tally import Tally, restored, stored


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
        if not self.tallies:
            return False
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
    """

    def __init__(self, predictions: PredictionStore, window_us: int) -> None:
        self._predictions = predictions
        self._window_us = window_us

    def resumed(self, checkpoint: Checkpoint) -> Open | None:
        """Return the stored tallies, or `None` if their windows must be read again."""
        tallies = restored(checkpoint.tallies)
        if tallies is None:
            return None
        return Open(checkpoint.position, tallies, [], checkpoint.until, checkpoint.labels, False, checkpoint)

    def checkpoint(self, endpoint: str, opened: Open | None, until: int, sketched: int) -> Checkpoint:
        """Return the checkpoint of the tallies. With early predictions no tallies are stored, so their windows are read
        again.
        """
        kept = Open(-1) if opened is None else opened
        return Checkpoint(
            endpoint=endpoint,
            window_us=self._window_us,
            position=kept.position,
            until=until,
            labels=kept.labels,
            tallies=b"" if kept.early or opened is None else stored(kept.tallies),
            early=bool(kept.early),
            sketched=sketched,
        )

    def follow(self, endpoint: str, opened: Open | None, since: int, labels: LabelRows, until: int) -> Open:
        """Join new predictions of existing tallies, and of windows from `since` on.

        Args:
            opened: The tallies so far; `None` to read the windows from `since` on from scratch.
        """
        columns = _columns(labels)
        arrivals = None
        if opened is not None:
            arrivals = self._predictions.arrivals(endpoint, 0, after=opened.position, columns=columns)
        if opened is None or arrivals is None:  # None if the store cannot list the new predictions
            arrivals = self._predictions.arrivals(endpoint, since, columns=columns)
            assert arrivals is not None  # only a position can be too old
            opened = Open(arrivals.position, until=until, labels=labels.state)
        again = opened.must_join_again(labels, until)
        self._add(opened, arrivals, since, None if again else labels, until)
        if again:
            self._join_again(endpoint, opened, labels, until)
        for start, tally in list(opened.tallies.items()):
            if tally.uneven:
                opened.tallies[start] = self._again(endpoint, start, labels, until, tally.share, by=opened.position)
        opened.until, opened.joined, opened.labels = until, True, labels.state
        return opened

    def touched(
        self, endpoint: str, span: tuple[int, int], labels: LabelRows, before: Checkpoint, until: int
    ) -> set[int] | None:
        """Return the windows in a time span whose labels may have changed since a checkpoint; `None` for all."""
        keys = changed_keys(labels, before, until)
        if keys is None or not keys.num_rows:
            return None if keys is None else set()
        arrivals = self._predictions.arrivals(
            endpoint, *span, columns=["id", "at", "keys"] if labels.by_id else ["at", "keys"]
        )
        return touched(keys, labels, arrivals.batches if arrivals else (), self._window_us)

    def tallied(self, endpoint: str, starts: Sequence[int], labels: LabelRows, until: int) -> dict[int, Tally]:
        """Return tallies of adjacent windows, read from all their predictions."""
        tallies = {start: Tally() for start in starts}
        self._read(endpoint, tallies, labels, until)
        for start, tally in list(tallies.items()):
            if tally.uneven:
                tallies[start] = self._again(endpoint, start, labels, until, tally.share)
        return tallies

    def _add(self, opened: Open, arrivals: Arrivals, since: int, labels: LabelRows | None, until: int) -> None:
        reader = Reader(opened.tallies, self._window_us, labels, until, grows=True)
        early, opened.early = opened.early, []
        for batch in chain(early, arrivals.batches):
            at = instants(batch)
            starts = at // self._window_us * self._window_us
            future = at >= until
            if future.any():
                opened.early.append(batch.filter(pa.array(future)))
            settled = (starts < since) & ~np.isin(starts, list(opened.tallies)) & ~future
            reader.add(batch.filter(pa.array(~(future | settled))))
        reader.join()
        opened.position = arrivals.position

    def _join_again(self, endpoint: str, opened: Open, labels: LabelRows, until: int) -> None:
        """Join all predictions of the open windows with the current labels."""
        for tally in opened.tallies.values():
            tally.labelled = []
        self._read(endpoint, opened.tallies, labels, until, count=False, by=opened.position)

    def _again(
        self, endpoint: str, start: int, labels: LabelRows, until: int, share: float, *, by: int | None = None
    ) -> Tally:
        """Return the tally of a window, read again with the smallest share known from the beginning."""
        tallies = {start: Tally(share)}
        self._read(endpoint, tallies, labels, until, by=by)
        return tallies[start]

    def _read(
        self,
        endpoint: str,
        tallies: dict[int, Tally],
        labels: LabelRows,
        until: int,
        *,
        count: bool = True,
        by: int | None = None,
    ) -> None:
        if not tallies:
            return
        reader = Reader(tallies, self._window_us, labels, until, count=count)
        end = min(until, max(tallies) + self._window_us)
        reader.read(self._predictions.arrivals(endpoint, min(tallies), end, by=by, columns=_columns(labels)))


def _columns(labels: LabelRows) -> Sequence[str]:
    """Return the prediction columns to read; several labels also need the outputs."""
    return (*READ, OUTPUTS) if labels.others else READ
