"""Materialisation of a project's views, shared by the worker, the command and the replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from mainspring.core.errors import NotFound
from mainspring.cost.usage import VIEW, Subject
from mainspring.features.model import FeatureView, MaterialiseReport
from mainspring.operations.auditing import audited, begun
from mainspring.operations.cost.teams import charging
from mainspring.operations.features.deriving import derive
from mainspring.project import Project

Told = Callable[[str, int, int, int], None]  # view, entities done, total entities, rows
ACTION = "materialise"


def materialise(
    project: Project,
    views: Iterable[FeatureView] | None = None,
    *,
    through: int | None = None,
    rebuild: bool = False,
    progress: Told | None = None,
) -> list[MaterialiseReport]:
    """Materialise views as `materialise_views` does, because somebody asked for it: with one event."""
    chosen = list(project.definitions.views.values() if views is None else views)
    with materialising(project, chosen, rebuild=rebuild) as counts:
        reports = materialise_views(project, chosen, through=through, rebuild=rebuild, progress=progress)
        counts.update({report.view: report.entities for report in reports})
    return reports


@contextmanager
def materialising(project: Project, views: Sequence[FeatureView], *, rebuild: bool) -> Iterator[dict[str, int]]:
    """Context of one run, yielding view -> number of changed entities, to be filled in.

    Its event is left out if nothing changed. Only a rebuild, which replaces what is served, has an event before it too.
    """
    of = f"view/{views[0].name}" if len(views) == 1 else "views"
    counts: dict[str, int] = {}
    with (begun if rebuild else audited)(project, ACTION, of) as done:
        yield counts
        if rebuild or any(counts.values()):
            told = ", ".join(f"{count} entities of {name}" for name, count in counts.items() if count)
            done(("rebuilt: " if rebuild else "") + (told or "nothing"))


def materialise_views(
    project: Project,
    views: Iterable[FeatureView] | None = None,
    *,
    through: int | None = None,
    rebuild: bool = False,
    progress: Told | None = None,
) -> list[MaterialiseReport]:
    """Materialise views (all by default) whose source has data; rows that become visible soon are stored as pending.

    Soon means within 1.25 intervals of the worker, so that reads stay exact until then. Pending rows cost every read a
        little, so it is not longer. A view that fails does not stop the others: the first error is raised when all are
        done.

    Args:
        rebuild: Compute every state again, beside the live ones.
    """
    horizon = project.settings.materialise_every_us * 5 // 4
    run = project.materialiser.rebuild if rebuild else project.materialiser.run
    reports = []
    failure: Exception | None = None
    for view in project.definitions.views.values() if views is None else views:
        told = None if progress is None else partial(progress, view.name)
        try:
            with charging(project, VIEW, view.name), project.metering.of(Subject(VIEW, view.name)):
                derive(project, [view])
                reports.append(run(view, through=through, horizon=horizon, progress=told))
        except NotFound as error:
            if project.lake.version(view.source.name) is not None:
                failure = failure or error
        except Exception as error:  # an unexpected error in one view must not stop the others either
            failure = failure or error
    if failure is not None:
        raise failure
    return reports
