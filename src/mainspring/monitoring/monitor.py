"""The monitor: one endpoint's life in windows of time, kept up to date as predictions and labels come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.time import DAY, Clock
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring import figures
from mainspring.monitoring.joins import arrived, distinct, even, join_labels
from mainspring.monitoring.model import LabelRows, Window
from mainspring.monitoring.ports import MonitorStore
from mainspring.registry.model import Bundle

Progress = Callable[[int, int], None]

_ROWS_AT_ONCE = 200_000
_CONTEXT = 8  # windows before those that may change: one of them was judged, unless traffic was thin for long
_SILENT_WINDOWS = 500  # after a long silence, only so many empty windows are kept
_NO_LABELS = pa.table(
    {"at": pa.array([], pa.timestamp("us", tz="UTC")), "score": pa.array([], pa.float64()),
     "label": pa.array([], pa.float64()), "lag_us": pa.array([], pa.int64())}
)  # fmt: skip


class Monitor:
    """Looks at an endpoint's predictions window by window, and again at those whose labels arrived since.

    Args:
        predictions: The log, as far as it is compacted: `compact` first to see what came last.
        monitors: Where the windows are kept.
        labels: Returns an endpoint's label rows as they are now, `None` where its model has no label.
        load: Returns the verified bundle of a digest.
        window_us: The length of a window, microseconds; windows start at its multiples since the epoch.
        label_wait_us: How long after a window's start a label may still change it; of a label that matures, how long
            after its maturity.
    """

    def __init__(
        self,
        predictions: PredictionStore,
        monitors: MonitorStore,
        *,
        labels: Callable[[str], LabelRows | None],
        load: Callable[[str], Bundle],
        clock: Clock,
        window_us: int,
        label_wait_us: int = 30 * DAY,
    ) -> None:
        self._predictions = predictions
        self._monitors = monitors
        self._labels = labels
        self._served = lru_cache(maxsize=32)(lambda digest: figures.served(load(digest)))
        self._clock = clock
        self._window_us = window_us
        self._label_wait_us = label_wait_us

    def run(self, endpoint: str, until: int | None = None, progress: Progress | None = None) -> list[Window]:
        """Bring the endpoint's windows up to date and return those that were computed, oldest first.

        That is every window that is not settled (a whole window must have passed since its end, so that what was
        logged last is in), and every settled one if labels arrived since it was computed. The same run again gives the
        same windows.

        Args:
            until: The instant as of which to look, UTC epoch microseconds: predictions made before it, labels visible
                by then. By default the clock's.
            progress: Called with (windows done, windows in all).

        Raises:
            Corrupt: A served bundle is damaged.
        """
        until = self._clock.now() if until is None else until
        labels = self._labels(endpoint)
        known = self._known(endpoint, until, labels)
        since = next((window.start for window in known if not self._is_settled(window)), None)
        if since is None:
            since = known[-1].end if known else 0
        again = [window for window in known if window.start < since and window.predictions] if labels else []
        if again and labels and not arrived(labels, min(window.computed_at for window in again), until):
            again = []
        recent = self._read(endpoint, since, until)
        starts = self._starts(recent, since if known else None, until)
        total = len(again) + len(starts)
        done: list[Window] = []
        for window in self._computed(endpoint, again, recent, starts, labels, until):
            done.append(window)
            if progress is not None:
                progress(len(done), total)
        changed = self._alerted(known, done)
        self._monitors.save(changed)
        return changed

    def _read(self, endpoint: str, since: int, until: int) -> pa.Table:
        return even(distinct(self._predictions.read(endpoint, since, until)), self._window_us)

    def _known(self, endpoint: str, until: int, labels: LabelRows | None) -> list[Window]:
        """Return the windows that may still change; where there is none, the last one, to go on from."""
        wait_us = self._label_wait_us + ((labels.label.matures_us or 0) if labels else 0)
        found = self._monitors.windows(endpoint, until - wait_us, until)
        found = found or self._monitors.windows(endpoint, 0, until)[-1:]
        return [window for window in found if window.end - window.start == self._window_us]

    def _is_settled(self, window: Window) -> bool:
        return window.computed_at >= window.end + self._window_us

    def _starts(self, predictions: pa.Table, since: int | None, until: int) -> list[int]:
        """Return the starts of the windows from `since`, or the first prediction, to `until`."""
        asked = np.unique(_instants(predictions) // self._window_us * self._window_us)
        if since is None:
            if not asked.size:
                return []
            since = int(asked[0])
        last = (until - 1) // self._window_us * self._window_us
        silent = range(max(since, last - (_SILENT_WINDOWS - 1) * self._window_us), last + 1, self._window_us)
        return sorted({*asked.tolist(), *silent})

    def _computed(
        self,
        endpoint: str,
        again: Sequence[Window],
        recent: pa.Table,
        starts: Sequence[int],
        labels: LabelRows | None,
        until: int,
    ) -> Iterator[Window]:
        for windows in _batches(again):
            predictions = self._read(endpoint, windows[0].start, windows[-1].end)
            yield from self._measured(
                endpoint, predictions, {window.start: window for window in windows}, labels, until
            )
        yield from self._measured(endpoint, recent, dict.fromkeys(starts), labels, until)

    def _measured(
        self,
        endpoint: str,
        predictions: pa.Table,
        windows: dict[int, Window | None],
        labels: LabelRows | None,
        until: int,
    ) -> Iterator[Window]:
        """Yield a window a start. Where it was measured before and has as many predictions, only its labels change."""
        joined = join_labels(predictions, labels, until) if labels and predictions.num_rows else _NO_LABELS
        at, label_at = _instants(predictions), _instants(joined)
        for start, before in windows.items():
            rows = _between(predictions, at, start, start + self._window_us)
            labelled = _between(joined, label_at, start, start + self._window_us)
            if before is None or before.predictions != rows.num_rows:
                window = self._judged(endpoint, start, rows, until)
            else:
                window = before
            task = self._served(figures.dominant(rows)[1]).task if rows.num_rows else "binary"
            yield figures.with_labels(window, labelled, task, until)

    def _judged(self, endpoint: str, start: int, rows: pa.Table, until: int) -> Window:
        window = figures.empty_window(endpoint, start, start + self._window_us, until)
        if not rows.num_rows:
            return window
        window = figures.with_traffic(window, rows)
        version, digest = figures.dominant(rows)
        made = rows.filter(pc.equal(rows["digest"], pa.scalar(digest)))
        return figures.with_drift(window, made, version, self._served(digest))

    def _alerted(self, known: Sequence[Window], done: Sequence[Window]) -> list[Window]:
        """Return what changed: `done`, and any window whose alert depends on one of them."""
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
        """Return the windows just before the first: they do not change any more, but its alerts depend on them."""
        if not windows:
            return []
        first = windows[0]
        found = self._monitors.windows(first.endpoint, first.start - _CONTEXT * self._window_us, first.start)
        return [window for window in found if window.end - window.start == self._window_us]


def _batches(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Yield consecutive windows, as many at a time as fit in memory."""
    batch: list[Window] = []
    rows = 0
    for window in windows:
        if batch and rows + window.predictions > _ROWS_AT_ONCE:
            yield batch
            batch, rows = [], 0
        batch.append(window)
        rows += window.predictions
    if batch:
        yield batch


def _instants(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    instants: np.ndarray[tuple[int], np.dtype[np.int64]] = table["at"].cast(pa.int64()).to_numpy()
    return instants


def _between(table: pa.Table, at: np.ndarray[tuple[int], np.dtype[np.int64]], start: int, end: int) -> pa.Table:
    first, last = np.searchsorted(at, [start, end])
    return table.slice(first, last - first)
