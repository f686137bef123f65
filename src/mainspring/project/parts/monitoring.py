"""Sketches, quality, monitors and incidents."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.time import DAY, HOUR
from mainspring.project.backends import monitoring as backends
from mainspring.project.parts.cached import cached_property
from mainspring.project.parts.serving import ServingParts

if TYPE_CHECKING:
    from mainspring.monitoring.incidents.ports import IncidentStore
    from mainspring.monitoring.model import LabelRows
    from mainspring.monitoring.ports import MonitorStore, SketchStore
    from mainspring.monitoring.quality.business import BusinessTable
    from mainspring.monitoring.quality.held_out import HeldOutQuality
    from mainspring.monitoring.quality.table import QualityTable
    from mainspring.monitoring.quality.updating import QualityUpdates
    from mainspring.monitoring.separations import SeparationTable
    from mainspring.monitoring.service.ports import ServiceStore
    from mainspring.monitoring.sketching import Ages, Sketching
    from mainspring.monitoring.window_updates import WindowUpdates


_HOURS_KEPT_US = 32 * DAY  # channels look at hours for 16 days; older ones are added up to days

_log = logging.getLogger(__name__)


class MonitoringParts(ServingParts):
    """Sketches, quality, monitors and incidents."""

    @cached_property
    def sketches(self) -> SketchStore:
        built: SketchStore = self._build("sketches", backends.SKETCHES, self.settings.ledger)
        return built

    @cached_property
    def sketching(self) -> Sketching:
        """Sketches of predictions, made as they come into the store."""
        from mainspring.monitoring.served import served
        from mainspring.monitoring.sketching import Sketching

        return Sketching(
            self.sketches,
            lambda digest: served(self.bundles.load(digest)),
            self._segments,
            slot_us=math.gcd(HOUR, self.settings.monitor_window_us),
            ages=self._ages_of_sketches,
        )

    def _ages_of_sketches(self) -> Ages:
        from mainspring.monitoring.sketching import Ages

        return Ages(
            made_before=self.oldest_kept(self.settings.keep_sketches_us),
            folded_before=self.clock.now() - _HOURS_KEPT_US,
            fold_us=math.gcd(DAY, self.settings.monitor_window_us),
        )

    def oldest_kept(self, kept_us: int | None) -> int | None:
        """Return the instant before which predictions or their sketches are deleted, the start of a day.

        Those whose labels have not matured are kept longer.

        Args:
            kept_us: How long they are kept, microseconds; `None` for ever, and `None` is returned.
        """
        if kept_us is None:
            return None
        waits = [each.matures_us or 0 for model in self.definitions.models.values() for each in model.labels]
        kept = kept_us + max(waits, default=0) + 2 * self.settings.monitor_window_us
        return (self.clock.now() - kept) // DAY * DAY

    def _segments(self, endpoint: str) -> Sequence[str]:
        try:
            monitor = self.definitions.monitors.get(endpoint)
        except MainspringError as error:  # the log must go on where a definition is wrong
            _log.warning("Traffic is not sketched by segment: %s", error)
            return ()
        return () if monitor is None else monitor.segments

    @cached_property
    def monitors(self) -> MonitorStore:
        built: MonitorStore = self._build("monitors", backends.MONITORS, self.settings.catalog)
        return built

    @cached_property
    def incidents(self) -> IncidentStore:
        built: IncidentStore = self._build("incidents", backends.INCIDENTS, self.settings.catalog)
        return built

    @cached_property
    def service(self) -> ServiceStore:
        """Samples of service health."""
        built: ServiceStore = self._build("service", backends.SERVICE_STORES, self.settings.catalog)
        return built

    @cached_property
    def monitor(self) -> WindowUpdates:
        from mainspring.monitoring.window_updates import WindowUpdates

        return WindowUpdates(
            self.predictions,
            self.monitors,
            self.sketches,
            labels=self.label_rows,
            load=self.bundles.load,
            clock=self.clock,
            locks=self.locks,
            window_us=self.settings.monitor_window_us,
        )

    @cached_property
    def quality_table(self) -> QualityTable:
        from mainspring.monitoring.quality.table import QualityTable

        return QualityTable(self.lake)

    @cached_property
    def crossed_quality(self) -> QualityTable:
        """The sums in bins of the features that matter, and in their pairs."""
        from mainspring.monitoring.quality.table import CROSSED, QualityTable

        return QualityTable(self.lake, CROSSED)

    @cached_property
    def held_out_quality(self) -> HeldOutQuality:
        from mainspring.monitoring.quality.held_out import HeldOutQuality

        return HeldOutQuality(self.bundles.load)

    @cached_property
    def separations(self) -> SeparationTable:
        from mainspring.monitoring.separations import SeparationTable

        return SeparationTable(self.lake)

    @cached_property
    def business_table(self) -> BusinessTable:
        from mainspring.monitoring.quality.business import BusinessTable

        return BusinessTable(self.lake)

    @cached_property
    def quality_updates(self) -> QualityUpdates:
        from mainspring.monitoring.quality.measuring import Watched
        from mainspring.monitoring.quality.updating import QualityUpdates

        def watched(endpoint: str) -> Watched:
            found = self.definitions.monitors.get(endpoint)
            if found is None:
                return Watched(crossed=True)
            chosen = (found.segments, found.ranking, found.forecast, found.fairness)
            return Watched(*chosen, metrics=found.metrics, crossed=True)

        return QualityUpdates(
            self.predictions,
            self.monitors,
            self.quality_table,
            self.crossed_quality,
            self.business_table,
            labels=self.label_rows,
            load=self.bundles.load,
            watched=watched,
            clock=self.clock,
            locks=self.locks,
            window_us=self.settings.monitor_window_us,
        )

    def label_rows(self, endpoint: str) -> LabelRows | None:
        """Return the label rows of an endpoint; `None` while a label has no table yet."""
        from mainspring.monitoring import joins

        if endpoint in self.definitions.answers:
            return self._feedback(endpoint)
        model = self.definitions.models.get(self.definitions.endpoint(endpoint).model_name)
        if model is None:  # registered with `mainspring models`, without a declared label
            return None
        try:
            return joins.label_rows(model.labels, model.observations, self.lake.scan, self.lake.appended)
        except NotFound:
            return None

    def _feedback(self, answers: str) -> LabelRows | None:
        """Return what people say of a chain's answers; `None` while nobody said anything."""
        from mainspring.llm.answers.feedback import ANSWER
        from mainspring.monitoring import joins

        labels = self.definitions.answers[answers].labels
        known = [each for each in labels if self.lake.version(each.source.name) is not None]
        return joins.feedback_rows(known, ANSWER, self.lake.scan, self.lake.appended) if known else None
