"""Update of the quality table from the monitor's windows: what changed is measured again, and differences appended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.core.locks import Locks
from mainspring.core.time import DAY, HOUR, MINUTE, Clock
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring.model import LabelRows, Window
from mainspring.monitoring.ports import MonitorStore
from mainspring.monitoring.quality.business import READ as BUSINESS
from mainspring.monitoring.quality.business import BusinessTable, business_figures
from mainspring.monitoring.quality.measuring import Judged, Measuring, Watched
from mainspring.monitoring.quality.table import Key, QualityTable
from mainspring.registry.model import Bundle
from mainspring.stats.quality_sums import Sums

ROWS_AT_ONCE = 200_000
EVERY_US = 5 * MINUTE
_WAIT_S = 600.0
_UNKNOWN = Judged("", (), (), None, math.inf, {})


class QualityUpdates:
    """Keeps the quality table as new as the monitor's windows.

    A window whose predictions or labels may have changed has a later `computed_at` than the table knows. Its hours are
    measured again, and the differences from the table appended: an update may be killed at any time, and repeated.

    Args:
        crossed: Table of the sums in bins of features. It is written first, and `table` notes what was looked at: so an
            update that was killed in between is repeated, and finds no difference.
        labels: Returns an endpoint's current label rows, `None` if its model has no label.
        load: Returns the verified bundle of a digest.
        watched: Returns the declared segments, rankings and forecasts of an endpoint.
        window_us: Length of a window, microseconds; windows of other lengths are ignored.
        label_wait_us: As the monitor's.
    """

    def __init__(
        self,
        predictions: PredictionStore,
        monitors: MonitorStore,
        table: QualityTable,
        crossed: QualityTable,
        business: BusinessTable,
        *,
        labels: Callable[[str], LabelRows | None],
        load: Callable[[str], Bundle],
        watched: Callable[[str], Watched],
        clock: Clock,
        locks: Locks,
        window_us: int,
        label_wait_us: int = 30 * DAY,
    ) -> None:
        self._predictions = predictions
        self._monitors = monitors
        self._table = table
        self._crossed = crossed
        self._business = business
        self._labels = labels
        self._load = load
        self._watched = watched
        self._clock = clock
        self._locks = locks.within("quality")
        self._window_us = window_us
        self._label_wait_us = label_wait_us
        self._ran: dict[str, int] = {}
        self._judged = lru_cache(maxsize=32)(self._described)

    def run_if_due(self, endpoint: str) -> None:
        """Run if this object has not for `EVERY_US`: each run appends to the lake."""
        now, last = self._clock.now(), self._ran.get(endpoint)
        if last is None or not last <= now < last + EVERY_US:
            self.run(endpoint)
            self._ran[endpoint] = now

    def run(self, endpoint: str) -> list[Window]:
        """Measure the changed windows again, and return them, oldest first.

        Raises:
            Conflict: Another process has been measuring the endpoint for ten minutes.
        """
        with self._locks.hold(endpoint, wait_s=_WAIT_S):
            now, labels = self._clock.now(), self._labels(endpoint)
            wait_us = self._label_wait_us + ((labels.matures_us or 0) if labels else 0) + 2 * self._window_us
            windows = [
                window
                for window in self._monitors.windows(endpoint, now - wait_us)
                if window.end - window.start == self._window_us and window.predictions
            ]
            looked = self._table.looked(endpoint, windows[0].start) if windows else {}
            stale = [window for window in windows if window.computed_at > looked.get(window.start, -1)]
            spans: dict[tuple[int, int], list[Window]] = {}  # whole hours, which several windows may share
            for window in stale:
                spans.setdefault((window.start // HOUR * HOUR, -(-window.end // HOUR) * HOUR), []).append(window)
            for span, within in spans.items():  # one at a time: memory stays flat, and what is done stays done
                self._update(endpoint, span, within, labels)
            self._table.fold(now)
            self._crossed.fold(now)
            return stale

    def _update(
        self, endpoint: str, span: tuple[int, int], windows: Sequence[Window], labels: LabelRows | None
    ) -> None:
        for window in windows:
            self._count(window, labels)
        looked = {window.start: window.computed_at for window in windows}
        until = max(looked.values())
        measured, key = self._measured(endpoint, span, labels, until), f"{endpoint}:{span[0]}:{span[1]}:{until}"
        for table, sums in ((self._crossed, measured.crossed), (self._table, measured.sums)):
            rows = differences(table.sums(endpoint, *span), sums)
            if rows or table is self._table:
                table.add(endpoint, looked, {windows[0].start: rows}, key)

    def _count(self, window: Window, labels: LabelRows | None) -> None:
        """Store the business metrics of a window."""
        metrics = self._watched(window.endpoint).metrics
        if metrics:
            end = min(window.end, window.computed_at)
            arrivals = self._predictions.arrivals(window.endpoint, window.start, end, columns=BUSINESS)
            batches = arrivals.batches if arrivals else ()
            self._business.add(window, business_figures(metrics, batches, labels, window.computed_at))

    def _measured(self, endpoint: str, span: tuple[int, int], labels: LabelRows | None, until: int) -> Measuring:
        watched = self._watched(endpoint)
        watched = replace(watched, crossed=watched.crossed and labels is not None)
        measuring = Measuring(labels, self._judged, watched, until, span[0])
        arrivals = self._predictions.arrivals(endpoint, span[0], min(span[1], until), columns=watched.columns)
        waiting: list[pa.Table] = []
        for batch in arrivals.batches if arrivals else ():
            waiting.append(batch.select(watched.columns))
            if sum(each.num_rows for each in waiting) >= ROWS_AT_ONCE:
                measuring.add(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            measuring.add(pa.concat_tables(waiting))
        return measuring

    def _described(self, digest: str) -> Judged:
        try:
            return Judged.of(self._load(digest))
        except MainspringError:  # without its bundle a version's predictions are counted, and not measured
            return _UNKNOWN


def differences(before: Mapping[Key, Sums], after: Mapping[Key, Sums]) -> dict[Key, Sums]:
    """Return what must be added to `before` to make it `after`, without zeros."""
    nothing = Sums.nothing()
    found = {key: after.get(key, nothing) - before.get(key, nothing) for key in {**before, **after}}
    return {key: sums for key, sums in found.items() if not sums.empty}
