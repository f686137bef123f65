"""Update of an endpoint's windows as predictions and labels arrive: sums of the sketches of their hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

import msgspec
import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.core.locks import Locks, MemoryLocks
from mainspring.core.time import DAY, Clock
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring import figures
from mainspring.monitoring.following import Following, Open
from mainspring.monitoring.hours import HourSketch, Made, made
from mainspring.monitoring.joins import arrived
from mainspring.monitoring.model import Checkpoint, LabelRows, Window
from mainspring.monitoring.ports import MonitorStore, SketchStore
from mainspring.monitoring.reader import ROWS_AT_ONCE
from mainspring.monitoring.served import served
from mainspring.monitoring.tally import Tally
from mainspring.registry.model import Bundle

Progress = Callable[[int, int], None]

_CONTEXT = 8  # number of earlier windows read for alerts; usually one of them was tested
_WAIT_S = 600.0  # wait for another process that monitors the same endpoint
_SILENT_WINDOWS = 500  # maximum number of empty windows stored after a long silence
_SKETCHES_AT_ONCE = 32  # windows
_NO_LABELS = pa.table(
    {"version": pa.array([], pa.string()), "score": pa.array([], pa.float64()),
     "label": pa.array([], pa.float64()), "lag_us": pa.array([], pa.int64())}
)  # fmt: skip


class WindowUpdates:
    """Computes an endpoint's windows, and again those whose labels have arrived since.

    Args:
        predictions: The prediction log, as far as it is compacted; call `compact` first to include the latest.
        monitors: The store of windows.
        sketches: The sketches of the predictions, made as they are compacted.
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
        sketches: SketchStore,
        *,
        labels: Callable[[str], LabelRows | None],
        load: Callable[[str], Bundle],
        clock: Clock,
        locks: Locks | None = None,
        window_us: int,
        label_wait_us: int = 30 * DAY,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        self._predictions = predictions
        self._monitors = monitors
        self._sketches = sketches
        self._labels = labels
        self._served = lru_cache(maxsize=32)(lambda digest: served(load(digest)))
        self._following = Following(predictions, window_us)
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
        sketches and new predictions. Without a checkpoint, windows are compared with the sketches by their number of
        predictions.

        Args:
            until: Time of the evaluation, UTC epoch microseconds: includes predictions of hours that began before it,
                and labels visible by it. By default the clock's time.
            progress: Called with (windows done, windows in all).

        Raises:
            Conflict: Another process has been monitoring the endpoint for ten minutes.
            Corrupt: A served bundle is damaged.
        """
        with self._locks.hold(endpoint, wait_s=_WAIT_S):
            if not self._sketches.started() or self._sketches.doubts():
                self._predictions.compact()  # sketches the predictions of an older log, and those in doubt
            checkpoint = self._monitors.checkpoint(endpoint, self._window_us)
            if until is not None:
                changed, _, _ = self._run(endpoint, None, None, until, progress)
                # Labels joined as of another time are joined again in the next run.
                void = None if checkpoint is None else msgspec.structs.replace(checkpoint, labels=None)
                self._monitors.save(changed, void)
                return changed
            until = self._clock.now()
            resumed = self._resumed(endpoint, checkpoint, until)
            changed, opened, sketched = self._run(endpoint, resumed, checkpoint, until, progress)
            done = self._following.checkpoint(endpoint, opened, until, sketched)
            self._monitors.save(changed, done)
            if opened is not None:
                opened.checkpoint = done
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
    ) -> tuple[list[Window], Open | None, int]:
        labels = self._labels(endpoint)
        stored = self._known(endpoint, until, labels)
        since = next((window.start for window in stored if not self._is_settled(window)), None)
        if since is None and stored:
            since = stored[-1].end
        sketched, came = self._came(endpoint, None if checkpoint is None else checkpoint.sketched, until)
        # Windows before `opening` are settled by this run, so their tallies are dropped.
        opening = max(since or 0, (until // self._window_us - 1) * self._window_us)
        opened = None if labels is None else self._following.follow(endpoint, opened, opening, labels, until)
        tallies = {} if opened is None else opened.tallies
        # After a long pause the first open window may precede the known ones.
        since = min([*tallies, *(came if since is None else [since])], default=until)
        again = self._again(endpoint, stored, since, came, checkpoint, labels, until)
        starts = sorted({*came, *again, *self._starts(endpoint, since, until)})
        computed: list[Window] = []
        for window in self._measured(endpoint, starts, labels, tallies, until):
            computed.append(window)
            if progress is not None:
                progress(len(computed), len(starts))
        if opened is not None:
            opened.tallies = {start: tally for start, tally in tallies.items() if start >= opening}
        return self._alerted(stored, computed), opened, sketched

    def _came(self, endpoint: str, after: int | None, until: int) -> tuple[int, set[int]]:
        """Return the position in the store of sketches, and the windows with predictions behind an earlier one."""
        position, hours = self._sketches.changed(endpoint, after)
        if after is not None and after > position:  # a backup was restored
            after, (position, hours) = None, self._sketches.changed(endpoint)
        came: Counter[int] = Counter()
        for hour, rows in hours.items():
            if hour < until:
                came[hour // self._window_us * self._window_us] += rows
        if after is not None:
            return position, {start for start, rows in came.items() if rows}  # else only segments were counted
        # Fewer predictions than before mean that old ones have expired, which is not a change.
        known = {window.start: window.predictions for window in self._stored(endpoint, 0, until)}
        return position, {start for start, rows in came.items() if rows > known.get(start, 0)}

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
    ) -> list[int]:
        """Return the settled windows whose labels may have changed, except those that are measured anyway."""
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
        starts = [window.start for window in settled]
        return [start for start in starts if start not in came and (others is None or start in others)]

    def _starts(self, endpoint: str, since: int, until: int) -> set[int]:
        """Return the starts of windows in `[since, until)`: those with predictions, and the most recent empty ones."""
        last = (until - 1) // self._window_us * self._window_us
        recent = last - (_SILENT_WINDOWS - 1) * self._window_us
        starts = {*range(max(since, recent), last + 1, self._window_us)}
        if since < recent:
            hours = self._sketches.changed(endpoint)[1]
            starts |= {hour // self._window_us * self._window_us for hour in hours if since <= hour < recent}
        return starts

    def _measured(
        self, endpoint: str, starts: Sequence[int], labels: LabelRows | None, tallies: Mapping[int, Tally], until: int
    ) -> Iterator[Window]:
        """Yield the windows with these starts, in order; those in `tallies` have their labels."""
        for near in self._runs(starts):
            hours: dict[int, list[HourSketch]] = {start: [] for start in near}
            end = min(near[-1] + self._window_us, until)
            for each in self._sketches.hours(endpoint, near[0], end):
                start = each.hour // self._window_us * self._window_us
                if start in hours:  # else of a window of another length
                    hours[start].append(each)
            of_windows = {start: made(hours[start]) for start in near}
            rows = {start: sum(each.rows for each in of_windows[start]) for start in near}
            for batch in self._batches(rows):
                unread = [start for start in batch if start not in tallies and rows[start]]
                read = {} if labels is None or not unread else self._following.tallied(endpoint, unread, labels, until)
                for start in batch:
                    window = figures.empty_window(endpoint, start, start + self._window_us, until)
                    window = figures.with_traffic(window, of_windows[start])
                    window = figures.with_drift(window, of_windows[start], self._served)
                    tally = tallies.get(start) or read.get(start)
                    yield self._labelled(window, of_windows[start], tally, until)

    def _runs(self, starts: Sequence[int]) -> Iterator[list[int]]:
        """Yield lists of adjacent windows whose sketches are read at once."""
        run: list[int] = []
        for start in starts:
            if run and (start != run[-1] + self._window_us or len(run) == _SKETCHES_AT_ONCE):
                yield run
                run = []
            run.append(start)
        if run:
            yield run

    def _batches(self, rows: Mapping[int, int]) -> Iterator[list[int]]:
        """Yield lists of adjacent windows that fit in memory together, given their numbers of predictions."""
        batch: list[int] = []
        many = 0
        for start in sorted(rows):
            if batch and many + rows[start] > self._rows_at_once:
                yield batch
                batch, many = [], 0
            batch.append(start)
            many += rows[start]
        if batch:
            yield batch

    def _labelled(self, window: Window, made: Sequence[Made], tally: Tally | None, until: int) -> Window:
        if not made:
            return window
        joined = pa.concat_tables(tally.labelled) if tally is not None and tally.labelled else _NO_LABELS
        versions = {made[0].version: self._served(made[0].digest)}
        for each in made if joined.num_rows else ():
            if each.version not in versions:
                with suppress(MainspringError):  # its bundle is gone, and another version made most predictions
                    versions[each.version] = self._served(each.digest)
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
