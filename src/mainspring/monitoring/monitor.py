"""The monitor: an endpoint's windows over time, updated as predictions and labels arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain

import msgspec
import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.core.locks import Locks, MemoryLocks
from mainspring.core.time import DAY, Clock
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring import figures
from mainspring.monitoring.following import Following, Open
from mainspring.monitoring.joins import arrived
from mainspring.monitoring.model import Checkpoint, LabelRows, Window
from mainspring.monitoring.ports import MonitorStore
from mainspring.monitoring.reader import ROWS_AT_ONCE
from mainspring.monitoring.tally import Tally
from mainspring.registry.model import Bundle

Progress = Callable[[int, int], None]

_CONTEXT = 8  # number of earlier windows read for alerts; usually one of them was tested
_WAIT_S = 600.0  # wait for another process that monitors the same endpoint
_SILENT_WINDOWS = 500  # maximum number of empty windows stored after a long silence
_NO_LABELS = pa.table(
    {"version": pa.array([], pa.string()), "score": pa.array([], pa.float64()),
     "label": pa.array([], pa.float64()), "lag_us": pa.array([], pa.int64())}
)  # fmt: skip


class Monitor:
    """Computes an endpoint's windows, and again those whose labels have arrived since.

    Args:
        predictions: The prediction log, as far as it is compacted; call `compact` first to include the latest.
        monitors: The store of windows.
        labels: Returns an endpoint's current label rows, `None` if its model has no label.
        load: Returns the verified bundle of a digest.
        locks: Allows one run per endpoint at a time, across processes; by default only across this monitor's threads.
        window_us: Length of a window, microseconds; windows start at its multiples since the epoch.
        label_wait_us: Microseconds after a window's start in which a label may still change it; for a label that
            matures, after its maturity.
        rows_at_once: Number of predictions of settled windows read at once; a larger window is read alone.
    """

    def __init__(
        self,
        predictions: PredictionStore,
        monitors: MonitorStore,
        *,
        labels: Callable[[str], LabelRows | None],
        load: Callable[[str], Bundle],
        clock: Clock,
        locks: Locks | None = None,
        window_us: int,
        label_wait_us: int = 30 * DAY,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        self._monitors = monitors
        self._labels = labels
        self._served = lru_cache(maxsize=32)(lambda digest: figures.served(load(digest)))
        self._following = Following(predictions, window_us, self._served)
        self._clock = clock
        self._locks = (MemoryLocks() if locks is None else locks).within("monitoring")
        self._window_us = window_us
        self._label_wait_us = label_wait_us
        self._rows_at_once = rows_at_once
        self._open: dict[str, Open] = {}

    def run(self, endpoint: str, until: int | None = None, progress: Progress | None = None) -> list[Window]:
        """Update the endpoint's windows and return the computed ones, oldest first.

        Computed are: every window that is not settled (it settles one window length after its end, so that late log
        entries are included); every settled one that received predictions since; and every settled one if labels became
        visible since it was computed. Repeating a run gives the same windows.

        Without `until`, a checkpoint is stored with the windows. The next run, in any process, then reads only new
        predictions, and knows of all late ones. If the store cannot list them, windows are compared with the store by
        their number of predictions.

        Args:
            until: Time of the evaluation, UTC epoch microseconds: includes predictions made before it, and labels
                visible by it. By default the clock's time.
            progress: Called with (windows done, windows in all).

        Raises:
            Conflict: Another process has been monitoring the endpoint for ten minutes.
            Corrupt: A served bundle is damaged.
        """
        with self._locks.hold(endpoint, wait_s=_WAIT_S):
            checkpoint = self._monitors.checkpoint(endpoint, self._window_us)
            if until is not None:
                changed, _ = self._run(endpoint, None, None, until, progress)
                # Labels joined as of another time are joined again in the next run.
                void = None if checkpoint is None else msgspec.structs.replace(checkpoint, labels=None)
                self._monitors.save(changed, void)
                return changed
            until = self._clock.now()
            changed, opened = self._run(
                endpoint, self._resumed(endpoint, checkpoint, until), checkpoint, until, progress
            )
            opened.checkpoint = self._following.checkpoint(endpoint, opened)
            self._monitors.save(changed, opened.checkpoint)
            self._open[endpoint] = opened
            return changed

    def _resumed(self, endpoint: str, checkpoint: Checkpoint | None, until: int) -> Open | None:
        """Return the tallies of the last run, in any process; `None` if open windows must be read again."""
        opened = self._open.pop(endpoint, None)
        if checkpoint is None or until < checkpoint.until:
            return None
        if opened is not None and opened.checkpoint == checkpoint:
            return opened
        return self._following.resumed(checkpoint)

    def _run(
        self,
        endpoint: str,
        opened: Open | None,
        checkpoint: Checkpoint | None,
        until: int,
        progress: Progress | None,
    ) -> tuple[list[Window], Open]:
        labels = self._labels(endpoint)
        stored = self._known(endpoint, until, labels)
        since = next((window.start for window in stored if not self._is_settled(window)), None)
        if since is None and stored:
            since = stored[-1].end
        # Windows before `opening` are settled by this run, so their tallies are dropped.
        opening = max(since or 0, (until // self._window_us - 1) * self._window_us)
        opened, arrivals = self._followed(endpoint, opened, checkpoint, opening, labels, until)
        # After a long pause the first open window may precede the known ones.
        since = min([*opened.tallies, *(arrivals if since is None else [since])], default=until)
        again = self._again(endpoint, stored, since, arrivals, checkpoint, labels, until)
        starts = self._starts([*arrivals, *opened.tallies], since, until)
        unread = self._unread([*arrivals, *starts], stored, arrivals, opened)
        total = len(again) + len({*unread, *starts})
        computed: list[Window] = []
        for window in chain(
            self._measured_again(endpoint, again, labels, until),
            self._measured_first(endpoint, unread, labels, until),
            (
                self._measured(endpoint, start, opened.tallies.get(start, Tally()), until)
                for start in starts
                if start not in unread
            ),
        ):
            computed.append(window)
            if progress is not None:
                progress(len(computed), total)
        opened.tallies = {start: tally for start, tally in opened.tallies.items() if start >= opening}
        return self._alerted(stored, computed), opened

    def _followed(
        self,
        endpoint: str,
        opened: Open | None,
        checkpoint: Checkpoint | None,
        opening: int,
        labels: LabelRows | None,
        until: int,
    ) -> tuple[Open, Counter[int]]:
        """Return the tallies of open windows, and the numbers of predictions that arrived in others since the
        checkpoint.
        """
        if opened is not None:
            opened, arrivals = self._following.follow(endpoint, opened, opening, labels, until)
            if opened is not None:
                return opened, arrivals
        opened, _ = self._following.follow(endpoint, None, opening, labels, until)
        assert opened is not None  # always possible when counting from scratch
        stored = {window.start: window.predictions for window in self._stored(endpoint, 0, opening)}
        position = None if checkpoint is None or checkpoint.early else checkpoint.position
        return opened, self._following.arrived_in(endpoint, min(opening, until), stored, position)

    def _unread(
        self, starts: Collection[int], known: Sequence[Window], came: Counter[int], opened: Open
    ) -> dict[int, int]:
        """Return the windows to read, in order, with their approximate numbers of predictions."""
        stored = {window.start: window.predictions for window in known}
        rows = {start: stored.get(start, 0) + came[start] for start in sorted({*starts})}
        return {start: count for start, count in rows.items() if count and start not in opened.tallies}

    def _known(self, endpoint: str, until: int, labels: LabelRows | None) -> list[Window]:
        """Return the windows that may still change; if there are none, the last one, to continue from."""
        wait_us = self._label_wait_us + ((labels.matures_us or 0) if labels else 0)
        windows = self._monitors.windows(endpoint, until - wait_us, until)
        windows = windows or self._monitors.windows(endpoint, 0, until)[-1:]
        return [window for window in windows if window.end - window.start == self._window_us]

    def _is_settled(self, window: Window) -> bool:
        return window.computed_at >= window.end + self._window_us

    def _again(
        self,
        endpoint: str,
        known: Sequence[Window],
        since: int,
        came: Collection[int],
        checkpoint: Checkpoint | None,
        labels: LabelRows | None,
        until: int,
    ) -> list[Window]:
        """Return the settled windows whose labels may have changed, except those that are read anyway."""
        settled = [window for window in known if window.start < since and window.predictions]
        if not settled or labels is None:
            return []
        others: set[int] | None = None
        if checkpoint is not None and until >= checkpoint.until:
            # A label may be ingested long after it was known, so its time alone does not show that it is new.
            if checkpoint.labels == labels.state and not arrived(labels, checkpoint.until, until):
                return []
            span = settled[0].start, settled[-1].end
            others = self._following.touched(endpoint, span, labels, checkpoint, until)
        return [window for window in settled if window.start not in came and (others is None or window.start in others)]

    def _starts(self, found: Collection[int], since: int, until: int) -> list[int]:
        """Return the starts of windows in `[since, until)`: those with predictions, and the most recent empty ones."""
        last = (until - 1) // self._window_us * self._window_us
        silent = range(max(since, last - (_SILENT_WINDOWS - 1) * self._window_us), last + 1, self._window_us)
        return sorted({*silent, *(start for start in found if start >= since)})

    def _measured_again(
        self, endpoint: str, again: Sequence[Window], labels: LabelRows | None, until: int
    ) -> Iterator[Window]:
        """Yield settled windows; if the number of predictions is unchanged, only the labels are updated."""
        windows = {window.start: window for window in again}
        for starts in self._batches({window.start: window.predictions for window in again}):
            tallies = self._following.tallied(endpoint, starts, labels, until, features=False)
            for start in starts:
                if tallies[start].rows == windows[start].predictions:
                    yield self._labelled(windows[start], tallies[start], until)
                else:
                    yield from self._measured_first(endpoint, {start: tallies[start].rows}, labels, until)

    def _measured_first(
        self, endpoint: str, unread: Mapping[int, int], labels: LabelRows | None, until: int
    ) -> Iterator[Window]:
        """Yield windows whose predictions must be read; values are approximate numbers of predictions."""
        for starts in self._batches(unread):
            tallies = self._following.tallied(endpoint, starts, labels, until)
            for start in starts:
                yield self._measured(endpoint, start, tallies.pop(start), until)

    def _batches(self, rows: Mapping[int, int]) -> Iterator[list[int]]:
        """Yield lists of adjacent windows that fit in memory together, given their numbers of predictions."""
        batch: list[int] = []
        many = 0
        for start in sorted(rows):
            if batch and (many + rows[start] > self._rows_at_once or start != batch[-1] + self._window_us):
                yield batch
                batch, many = [], 0
            batch.append(start)
            many += rows[start]
        if batch:
            yield batch

    def _measured(self, endpoint: str, start: int, tally: Tally, until: int) -> Window:
        window = figures.empty_window(endpoint, start, start + self._window_us, until)
        made = tally.dominant()
        if made is None:
            return window
        window = figures.with_drift(figures.with_traffic(window, tally), made)
        return self._labelled(window, tally, until)

    def _labelled(self, window: Window, tally: Tally, until: int) -> Window:
        joined = pa.concat_tables(tally.labelled) if tally.labelled else _NO_LABELS
        dominant = tally.dominant()
        versions = {} if dominant is None else {dominant.version: self._served(dominant.digest)}
        for made in tally.made.values() if joined.num_rows else ():
            if made.version not in versions:
                with suppress(MainspringError):  # its bundle is gone, and another version made most predictions
                    versions[made.version] = self._served(made.digest)
        return figures.with_labels(window, joined, versions, until)

    def _alerted(self, known: Sequence[Window], done: Sequence[Window]) -> list[Window]:
        """Return the changed windows: `done`, and any window whose alerts depend on them."""
        stored = {window.start: window for window in known}
        current = stored | {window.start: window for window in done}
        ordered = [current[start] for start in sorted(current)]
        computed = {window.start for window in done}
        before = self._before(ordered)
        return [
            window
            for window in figures.with_alerts([*before, *ordered])[len(before) :]
            if window.start in computed or window != stored[window.start]
        ]

    def _before(self, windows: Sequence[Window]) -> list[Window]:
        """Return the windows just before the first, on which its alerts depend."""
        if not windows:
            return []
        first = windows[0]
        return self._stored(first.endpoint, first.start - _CONTEXT * self._window_us, first.start)

    def _stored(self, endpoint: str, since: int, until: int) -> list[Window]:
        """Return the stored windows of this length that start in `[since, until)`."""
        windows = self._monitors.windows(endpoint, since, until)
        return [window for window in windows if window.end - window.start == self._window_us]
