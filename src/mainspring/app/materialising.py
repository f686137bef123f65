"""Bringing every view of a project up to date: one rule for the worker, the command and the replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from mainspring.app.project import Project
from mainspring.core.errors import NotFound
from mainspring.features.model import FeatureView, MaterialiseReport


def materialise_views(
    project: Project,
    views: Iterable[FeatureView] | None = None,
    *,
    through: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[MaterialiseReport]:
    """Materialise views (all by default) whose source has landed; rows that become visible soon go in as pending.

    Soon is within one and a quarter of the intervals at which the worker comes round: reads stay exact until then. What
    is pending costs every read a little, so it is not more.
    """
    horizon = project.settings.materialise_every_us * 5 // 4
    reports = []
    for view in project.definitions.views.values() if views is None else views:
        told = None if progress is None else partial(progress, view.name)
        try:
            reports.append(project.materialiser.run(view, through=through, horizon=horizon, progress=told))
        except NotFound:
            continue
    return reports
