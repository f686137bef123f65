"""The monitor: one endpoint's life in windows of time, kept up to date as predictions and labels come in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, Clock
from mainspring.ledger.ports import Arrivals, PredictionStore
from mainspring.monitoring import figures
from mainspring.monitoring.joins import arrived
from mainspring.monitoring.model import LabelRows, Window
from mainspring.monitoring.ports import MonitorStore
from mainspring.monitoring.reader import ROWS_AT_ONCE, Reader, instants
from mainspring.monitoring.tally import Tally
from mainspring.registry.model import Bundle

Progress = Callable[[int, int], None]

_CONTEXT = 8  # windows before those that may change: one of them was judged, unless traffic was thin for long
_SILENT_WINDOWS = 500  # after a long silence, only so many empty windows are kept
_NO_LABELS = pa.table(
    {"version": pa.array([], pa.string()), "score": pa.array([], pa.float64()),
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
        self._states: dict[str, _State] = {}

    def run(self, endpoint: str, until: int | None = None, progress: Progress | None = None) -> list[Window]:
        """Bring the endpoint's windows up to date and return those that were computed, oldest first.

        That is every window that is not settled (a whole window must have passed since its end, so that what was
        logged last is in), and every settled one if labels became visible since it was computed. The same run again
        gives the same windows. Without `until`, what was counted is kept for the next run, which reads only what came
        since, and also knows of predictions that came late and of labels that landed long after they were known.

        Args:
            until: The instant as of which to look, UTC epoch microseconds: predictions made before it, labels visible
                by then. By default the clock's.
            progress: Called with (windows done, windows in all).

        Raises:
            Corrupt: A served bundle is damaged.
        """
        state = self._states.pop(endpoint, None) if until is None else None
        keep, until = until is None, self._clock.now() if until is None else until
        labels = self._labels(endpoint)
        known = self._known(endpoint, until, labels)
        since = next((window.start for window in known if not self._is_settled(window)), None)
        if since is None:
            since = known[-1].end if known else 0
        # A label may land long after it was known: its instant alone would not say that it is new.
        landed = state is not None and state.has_other_labels(labels)
        state, late = self._followed(endpoint, state, since, labels, until)
        again = self._again(known, since, labels, until, late, landed=landed)
        starts = self._starts(state.tallies, since if known else None, until)
        total = len(again) + len(starts)
        done: list[Window] = []
        for window in chain(
            self._measured_again(endpoint, again, late, labels, until),
            (self._measured(endpoint, start, state.tallies.get(start, Tally()), until) for start in starts),
        ):
            done.append(window)
            if progress is not None:
                progress(len(done), total)
        changed = self._alerted(known, done)
        self._monitors.save(changed)
        if keep:
            self._states[endpoint] = state
        return changed

    def _followed(
        self, endpoint: str, state: _State | None, since: int, labels: LabelRows | None, until: int
    ) -> tuple[_State, set[int]]:
        """Return the tallies of all windows from `since`, and the windows before it into which predictions came late.

        Where there is a state, only what came into the store since is read; labels are joined to it alone, unless
        labels came since, too.
        """
        if state is not None and since >= state.since:
            arrivals = self._predictions.arrivals(endpoint, 0, after=state.position)
            if arrivals is not None:
                rejoin = labels is not None and state.labels_may_differ(labels, until)
                state.tallies = {start: tally for start, tally in state.tallies.items() if start >= since}
                late = self._follow(state, arrivals, since, None if rejoin else labels, until)
                if labels is not None and rejoin:
                    self._join_again(endpoint, state, since, labels, until)
                self._recount(endpoint, state.tallies, labels, until)
                return state.joined(since, labels, until), late
        arrivals = self._predictions.arrivals(endpoint, since)
        assert arrivals is not None  # only a position can be too old
        state = _State(arrivals.position, since)
        self._follow(state, arrivals, since, labels, until)
        self._recount(endpoint, state.tallies, labels, until)
        return state.joined(since, labels, until), set()

    def _follow(self, state: _State, arrivals: Arrivals, since: int, labels: LabelRows | None, until: int) -> set[int]:
        """Count what came; return the starts of settled windows that it belongs to. What is not made yet is put off."""
        late: set[int] = set()
        reader = Reader(state.tallies, self._window_us, self._served, labels, until, grows=True)
        early, state.early = state.early, []
        for batch in chain(early, arrivals.batches):
            at = batch["at"]
            future = pc.greater_equal(at, pa.scalar(until, at.type))
            if pc.any(future).as_py():
                state.early.append(batch.filter(future))
            settled = pc.less(at, pa.scalar(since, at.type))
            late.update((instants(batch.filter(settled)) // self._window_us * self._window_us).tolist())
            reader.add(batch.filter(pc.invert(pc.or_(future, settled))))
        reader.join()
        state.position = arrivals.position
        return late

    def _join_again(self, endpoint: str, state: _State, since: int, labels: LabelRows, until: int) -> None:
        """Join all predictions of the open windows with the labels as they are by now."""
        for tally in state.tallies.values():
            tally.labelled = []
        reader = Reader(state.tallies, self._window_us, self._served, labels, until, count=False)
        reader.read(self._predictions.arrivals(endpoint, since, until, features=False))

    def _recount(self, endpoint: str, tallies: dict[int, Tally], labels: LabelRows | None, until: int) -> None:
        """Count those windows again of which the smallest share was not known from the beginning."""
        for start, tally in list(tallies.items()):
            if tally.uneven:
                tallies[start] = self._tallied(endpoint, [start], labels, until, share=tally.share).get(start, Tally())

    def _tallied(
        self,
        endpoint: str,
        starts: Sequence[int],
        labels: LabelRows | None,
        until: int,
        *,
        features: bool = True,
        share: float = math.inf,
    ) -> dict[int, Tally]:
        """Return tallies of consecutive windows, from all of their predictions. `share` is the smallest, if known."""
        tallies = {start: Tally(share) for start in starts}
        reader = Reader(tallies, self._window_us, self._served, labels, until, features=features)
        end = min(until, starts[-1] + self._window_us)
        reader.read(self._predictions.arrivals(endpoint, starts[0], end, features=features))
        if math.isinf(share):
            self._recount(endpoint, tallies, labels, until)
        return tallies

    def _known(self, endpoint: str, until: int, labels: LabelRows | None) -> list[Window]:
        """Return the windows that may still change; where there is none, the last one, to go on from."""
        wait_us = self._label_wait_us + ((labels.label.matures_us or 0) if labels else 0)
        found = self._monitors.windows(endpoint, until - wait_us, until)
        found = found or self._monitors.windows(endpoint, 0, until)[-1:]
        return [window for window in found if window.end - window.start == self._window_us]

    def _is_settled(self, window: Window) -> bool:
        return window.computed_at >= window.end + self._window_us

    def _again(
        self, known: Sequence[Window], since: int, labels: LabelRows | None, until: int, late: set[int], *, landed: bool
    ) -> list[Window]:
        """Return the settled windows to measure once more: all where labels came since, and `late`."""
        settled = [window for window in known if window.start < since]
        again = [window for window in settled if window.predictions] if labels else []
        if again and labels and not landed:
            again = again if arrived(labels, min(window.computed_at for window in again), until) else []
        stored = {window.start: window for window in settled}
        found = {window.start: window for window in again}
        for start in late:
            empty = figures.empty_window("", start, start + self._window_us, 0)
            found[start] = stored.get(start, empty)
        return [found[start] for start in sorted(found)]

    def _starts(self, tallies: Mapping[int, Tally], since: int | None, until: int) -> list[int]:
        """Return the starts of the windows from `since`, or the first prediction, to `until`."""
        if since is None:
            if not tallies:
                return []
            since = min(tallies)
        last = (until - 1) // self._window_us * self._window_us
        silent = range(max(since, last - (_SILENT_WINDOWS - 1) * self._window_us), last + 1, self._window_us)
        return sorted({*tallies, *silent})

    def _measured_again(
        self, endpoint: str, again: Sequence[Window], late: set[int], labels: LabelRows | None, until: int
    ) -> Iterator[Window]:
        """Yield settled windows: of one that has as many predictions as before only its labels change."""
        for windows in _batches(again):
            tallies = self._tallied(endpoint, [each.start for each in windows], labels, until, features=False)
            for window in windows:
                tally = tallies[window.start]
                if tally.rows == window.predictions and window.start not in late:
                    yield self._labelled(window, tally, until)
                else:
                    tally = self._tallied(endpoint, [window.start], labels, until)[window.start]
                    yield self._measured(endpoint, window.start, tally, until)

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
                with suppress(MainspringError):  # its bundle is gone: it is another's window
                    versions[made.version] = self._served(made.digest)
        return figures.with_labels(window, joined, versions, until)

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


@dataclass
class _State:
    """State of an endpoint between two runs: the tallies of its open windows, and how far they go."""

    position: int  # in the store
    since: int  # the start of the first window
    tallies: dict[int, Tally] = field(default_factory=dict)
    early: list[pa.Table] = field(default_factory=list)  # predictions of a clock that is ahead
    until: int = 0  # labels visible by then are in
    labels: int | None = None  # the version of their table

    def joined(self, since: int, labels: LabelRows | None, until: int) -> _State:
        self.since, self.until = since, until
        self.labels = None if labels is None else labels.scan.version
        return self

    def has_other_labels(self, labels: LabelRows | None) -> bool:
        """Return whether the table of labels is another version than the one that was joined."""
        return labels is not None and self.labels != labels.scan.version

    def labels_may_differ(self, labels: LabelRows, until: int) -> bool:
        """Return whether a prediction that was joined before may have another label by now."""
        matures = labels.label.matures_us
        return (
            self.has_other_labels(labels)
            or until < self.until
            or (matures is not None and until - matures > self.since)
            or arrived(labels, self.until, until)
        )


def _batches(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Yield consecutive windows, as many at a time as fit in memory."""
    batch: list[Window] = []
    rows = 0
    for window in windows:
        if batch and rows + window.predictions > ROWS_AT_ONCE:
            yield batch
            batch, rows = [], 0
        batch.append(window)
        rows += window.predictions
    if batch:
        yield batch
