"""Handlers of jobs by name. A handler imports its dependencies when it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import parse_duration
from mainspring.jobs.model import Status
from mainspring.jobs.plain import Plain
from mainspring.jobs.runner import JobRun
from mainspring.project.built_in_jobs import options

if TYPE_CHECKING:
    from mainspring.features.model import FeatureView
    from mainspring.jobs.declaring import OwnJob
    from mainspring.jobs.runner import Handler
    from mainspring.project import Project


@dataclass(frozen=True, slots=True)
class Work:
    """Handler of one of `project.built_in_jobs`: its function, and a check before a job is queued."""

    do: Callable[[Project, JobRun, dict[str, Any]], Plain]
    check: Callable[[Project, dict[str, Any]], object] = lambda _project, _given: None  # raises if it cannot be done


def check_begun(project: Project, name: str, argument: Plain) -> None:
    """Raise if a job cannot begin with this argument. The project's own jobs check their arguments themselves.

    Raises:
        NotFound: There is no such job.
        Invalid: The job does not accept the argument, or the argument names something that does not exist.
    """
    if name in WORK:
        WORK[name].check(project, options(name, argument))
    elif name not in project.definitions.jobs:
        fix = f"use one of {sorted({*WORK, *project.definitions.jobs})}."
        raise NotFound(f"There is no job named {name[:140]!r}.", fix=fix)


def handlers(project: Project) -> Mapping[str, Handler]:
    """Return the handlers of a project's jobs, by its current definitions."""
    return _Handlers(project)


class _Handlers(Mapping[str, "Handler"]):
    def __init__(self, project: Project) -> None:
        self._project = project

    def __getitem__(self, name: str) -> Handler:
        if name in WORK:
            return partial(_run, self._project, name)
        return partial(_run_own, self._project, self._own()[name].do)

    def __iter__(self) -> Iterator[str]:
        return iter({**WORK, **self._own()})

    def __len__(self) -> int:
        return len({**WORK, **self._own()})

    def _own(self) -> Mapping[str, OwnJob]:
        try:
            return self._project.definitions.jobs
        except Invalid:  # invalid definitions must not stop built-in jobs
            return {}


def _run(project: Project, name: str, run: JobRun) -> Plain:
    return WORK[name].do(project, run, options(name, run.argument))


def _run_own(project: Project, do: Callable[[Any, Any], Any], run: JobRun) -> Plain:
    from mainspring.operations.opened import OpenedProject

    found: Plain = do(run, OpenedProject(project))
    return found


def _collect(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.models.curating import garbage

    grace_us = parse_duration(given["grace"])

    def collect() -> Plain:
        done = garbage(project, grace_us=grace_us)
        return {
            "versions": [f"{mark.model}:{mark.version}" for mark in done.versions],
            "bundles": done.bundles,
            "kept": [{"version": f"{mark.model}:{mark.version}", "because": why} for mark, why in done.kept],
            "unfinished": done.unfinished,
        }

    return run.step("collect", collect)


def _materialise(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.materialize import materialise_views

    rebuild = bool(given["rebuild"])
    chosen = _views(project, given)  # all are looked up before any begins
    entities: dict[str, int] = {}
    for number, view in enumerate(chosen):
        run.progress(number, len(chosen), view.name)

        def bring(view: Any = view) -> int:
            return sum(report.entities for report in materialise_views(project, [view], rebuild=rebuild))

        entities[view.name] = run.step(view.name, bring)
    run.progress(len(chosen), len(chosen))
    return entities


def _views(project: Project, given: dict[str, Any]) -> list[FeatureView]:
    try:
        return [project.definitions.view(name) for name in given["views"] or project.definitions.views]
    except NotFound as error:  # a name in the argument: another attempt would not find it either
        raise Invalid(f"The argument of materialise names an unknown view: {error.what}", fix=error.fix) from None


def _tidy(project: Project, run: JobRun, _: dict[str, Any]) -> Plain:
    from mainspring.operations.features.live_views import ViewsInUse, tidy

    def put_away() -> Plain:
        done = tidy(project, ViewsInUse(project).by_slot())
        return {"slots": done.slots, "tables": done.tables, "compacted": done.compacted}

    return run.step("put away", put_away)


def _forget(project: Project, _: JobRun, given: dict[str, Any]) -> Plain:
    now = project.wall.now()
    ended = project.jobs.forget({Status.DONE, Status.CANCELLED}, now - parse_duration(given["ended"]))
    return {"ended": ended, "failed": project.jobs.forget({Status.FAILED}, now - parse_duration(given["failed"]))}


WORK: Mapping[str, Work] = {
    "collect-garbage": Work(_collect),
    "forget-jobs": Work(_forget),
    "materialise": Work(_materialise, _views),
    "tidy": Work(_tidy),
}
