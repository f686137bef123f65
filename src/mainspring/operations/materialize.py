"""Bringing every view of a project up to date: one rule for the worker, the command and the replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from mainspring.core.errors import NotFound
from mainspring.features.model import FeatureView, MaterialiseReport
from mainspring.project import Project

Told = Callable[[str, int, int, int], None]  # view, entities done, of how many, from how many rows


def materialise_views(
    project: Project,
    views: Iterable[FeatureView] | None = None,
    *,
    through: int | None = None,
    rebuild: bool = False,
    progress: Told | None = None,
) -> list[MaterialiseReport]:
    """Materialise views (all by default) whose source has landed; rows that become visible soon go in as pending.

    Soon is within one and a quarter of the intervals at which the worker comes round: reads stay exact until then. What
    is pending costs every read a little, so it is not more. A view that fails does not keep the others waiting: what
    went wrong first is raised when all are done.

    Args:
        rebuild: Compute every state again, beside what is served.
    """
    horizon = project.settings.materialise_every_us * 5 // 4
    run = project.materialiser.rebuild if rebuild else project.materialiser.run
    reports = []
    failure: Exception | None = None
    for view in project.definitions.views.values() if views is None else views:
        told = None if progress is None else partial(progress, view.name)
        try:
            reports.append(run(view, through=through, horizon=horizon, progress=told))
        except NotFound as error:
            if project.lake.version(view.source.name) is not None:
                failure = failure or error
        except Exception as error:  # a defect in one view too must not keep the others waiting
            failure = failure or error
    if failure is not None:
        raise failure
    return reports
