"""Drift of a feature view's features, at each endpoint whose model uses the view."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.console.endpoints.period import Period, windows_in
from mainspring.monitoring.model import ColumnDrift, Window
from mainspring.operations.data.lineage import models_using
from mainspring.project import Project


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One feature in the newest window of an endpoint that has a drift test."""

    endpoint: str
    feature: str
    window: Window
    drift: ColumnDrift

    @property
    def state(self) -> str:
        """A word of the drift table: "alert", "drifted" or "steady"."""
        return "alert" if self.drift.alert else "drifted" if self.drift.drifted else "steady"


def view_drift(project: Project, view: str) -> tuple[FeatureDrift, ...]:
    """Return the drift of a view's features by endpoint, the largest distance first."""
    models, prefix = models_using(project.definitions.models, view), f"{view}."
    found: list[FeatureDrift] = []
    for name, endpoint in project.definitions.endpoints.items():
        if endpoint.model_name not in models:
            continue
        windows = windows_in(project, name, Period())
        judged = next((window for window in reversed(windows) if window.columns), None)
        if judged is not None:
            found += [
                FeatureDrift(name, each.column.removeprefix(prefix), judged, each)
                for each in judged.columns
                if each.column.startswith(prefix)
            ]
    return tuple(sorted(found, key=lambda each: (not each.drift.alert, not each.drift.drifted, -each.drift.ks)))
