"""Handlers of jobs by name. A handler imports its dependencies when it runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import MINUTE, parse_duration, parse_instant
from mainspring.cost.usage import BATCH, JOB, RUN, Subject
from mainspring.jobs.model import JobHeld, JobStopped, Status
from mainspring.jobs.pipelines.graph import APPROVAL, STEP
from mainspring.jobs.plain import Plain
from mainspring.jobs.runner import JobRun
from mainspring.operations.budgets.acting import BudgetExceeded, check_hold, model_of
from mainspring.operations.cost.teams import charging
from mainspring.project.built_in_jobs import options
from mainspring.project.definitions.model import Definitions
from mainspring.registry.processes import started_by

if TYPE_CHECKING:
    from mainspring.features.model import FeatureView
    from mainspring.jobs.runner import Handler
    from mainspring.operations.jobs.children import Children
    from mainspring.project import Project

_TAKEN_BACK = MINUTE  # until a machine that was preempted is gone, so that another one goes on
_HELD_FOR = 5 * MINUTE  # until a job that a budget holds is looked at again
_HELD = {"batch": "queue", "train": "queue", "search": "stop-searches"}
_log = logging.getLogger(__name__)
RAN = "jobs.end"  # the action of the event of a job of the project's own


@dataclass(frozen=True, slots=True)
class Work:
    """Handler of one of `project.built_in_jobs`: its function, and a check before a job is queued."""

    do: Callable[[Project, JobRun, dict[str, Any]], Plain]
    check: Callable[[Project, dict[str, Any]], object] = lambda _project, _given: None  # raises if it cannot be done
    long: bool = False  # whether the worker runs it in a process of its own


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


def handlers(
    project: Project, children: Children | None = None, *, steps: Children | None = None
) -> Mapping[str, Handler]:
    """Return the handlers of a project's jobs, as its definitions are when one is looked up.

    Args:
        children: Runs jobs of the project's own, and built-in ones that take long, in processes of their own; by
            default they run in this process.
        steps: Runs steps of pipelines; by default `children`.
    """
    return _Handlers(project, children, steps or children)


def handler(project: Project, name: str) -> Handler:
    """Return the handler of one job, which runs it in this process.

    Raises:
        Invalid: There is no such job.
    """
    found = _Handlers(project, None, None)
    if name not in found:
        raise Invalid(f"There is no job named {name[:140]!r}.", fix=f"use one of {sorted(found)}.")
    return found[name]


class _Handlers(Mapping[str, "Handler"]):
    def __init__(self, project: Project, children: Children | None, steps: Children | None) -> None:
        self._project = project
        self._children = children
        self._steps = steps

    def __getitem__(self, name: str) -> Handler:
        from mainspring.operations.pipelines import names, running

        if name == STEP:
            return partial(running.run_step, self._project, self._steps)
        if name == APPROVAL:
            return partial(running.run_approval, self._project)
        if name.startswith(names.RUN):
            return partial(running.run_pipeline, self._project, name.removeprefix(names.RUN))
        if self._children is not None and (name not in WORK or WORK[name].long):
            return partial(_run_in_child, self._project, self._children, name)
        if name in WORK:
            return partial(_run, self._project, name)
        return partial(_run_own, self._project, name, self._own().jobs[name].do)

    def __iter__(self) -> Iterator[str]:
        own = self._own()
        yield from {**WORK, **own.jobs}
        if own.pipelines:
            from mainspring.operations.pipelines import names

            yield from (STEP, APPROVAL, *(f"{names.RUN}{name}" for name in own.pipelines))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _own(self) -> Definitions:
        try:
            return self._project.definitions
        except Invalid:  # errors in the definitions do not stop built-in jobs
            return Definitions({}, {}, {}, {}, (), {}, {}, {})


@contextmanager
def put_off(job: str) -> Iterator[None]:
    """Context of an attempt at a job: while a budget holds back work within it, the job waits in the queue.

    Raises:
        JobHeld: A budget does.
    """
    try:
        yield
    except BudgetExceeded as held:
        _log.warning("job %s: %s", job, held)
        raise JobHeld(job, held.what, again_after_us=_HELD_FOR) from held


def _run(project: Project, name: str, run: JobRun) -> Plain:
    with (
        started_by(run.started_by),
        _charged(project, name, run),
        project.metering.of(Subject(JOB, name, key=run.started_by)),
    ):
        return WORK[name].do(project, run, options(name, run.argument))


@contextmanager
def _charged(project: Project, name: str, run: JobRun) -> Iterator[None]:
    """Context of a job with its payers, those of a model if it is for one. A budget may put it off, see `put_off`."""
    given = options(name, run.argument) if name in WORK else {}
    kind, of = JOB, name
    if "model" in given:
        kind, of = RUN, str(given["model"])
    elif name == "batch":
        kind, of = BATCH, model_of(project, str(given["endpoint"]))
    with charging(project, kind, of, by=run.started_by, team=run.team), put_off(run.id):
        if name in _HELD:
            check_hold(project, _HELD[name], f"The job {run.id} ({name})", of)
        yield


def _run_own(project: Project, name: str, do: Callable[[Any, Any], Any], run: JobRun) -> Plain:
    with (
        started_by(run.started_by),
        _charged(project, name, run),
        project.metering.of(Subject(JOB, name, key=run.started_by)),
    ):
        return _audited(project, name, do, run)


def _audited(project: Project, name: str, do: Callable[[Any, Any], Any], run: JobRun) -> Plain:
    from mainspring.operations.auditing import audited
    from mainspring.operations.opened import OpenedProject

    with audited(project, RAN, f"job/{run.id}", who=run.started_by or None) as done:
        try:
            found: Plain = do(run, OpenedProject(project))
        except BudgetExceeded as error:  # it has not failed, and is tried every few minutes: no event
            held = error
        else:
            done(f"{name} done")
            return found
    raise held


def _run_in_child(project: Project, children: Children, name: str, run: JobRun) -> Plain:
    from mainspring.operations.jobs.children import job_log, keep_log

    with _charged(project, name, run):  # before a process is started
        pass
    log = job_log(project.settings.state, run.id)
    keep_log(project, run, log)
    more: dict[str, Plain] = {"by": run.started_by, "team": run.team}
    return children.run(run, log, name=name, handler=name, argument=run.argument, **more)


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
    from mainspring.operations.materialize import materialise_views, materialising

    rebuild = bool(given["rebuild"])
    chosen = _views(project, given)  # all are looked up before any begins
    with materialising(project, chosen, rebuild=rebuild) as entities:
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


def _pull(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.pulling import pull, pulled_sources

    chosen = given["sources"] or pulled_sources(project)
    found: dict[str, Plain] = {}
    for source in chosen:

        def told(done: int, total: int | None, source: str = source) -> None:
            run.check()
            run.progress(done, total or done, source)

        def bring(source: str = source, told: Callable[[int, int | None], None] = told) -> Plain:
            report = pull(project, source, progress=told)
            names = ("read", "rows", "quarantined", "known", "until", "version", "reasons")
            return {**{name: getattr(report, name) for name in names}, "warnings": [*report.warnings]}

        found[source] = run.step(source, bring)
    return found


def _tidy(project: Project, run: JobRun, _: dict[str, Any]) -> Plain:
    from mainspring.operations.features.live_views import ViewsInUse, tidy

    def put_away() -> Plain:
        done = tidy(project, ViewsInUse(project).by_slot())
        return {"slots": done.slots, "tables": done.tables, "compacted": done.compacted}

    return run.step("put away", put_away)


def _forget(project: Project, _: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.auditing import audit

    now = project.wall.now()
    with project.audit.together():
        ended = project.jobs.forget({Status.DONE, Status.CANCELLED}, now - parse_duration(given["ended"]))
        failed = project.jobs.forget({Status.FAILED}, now - parse_duration(given["failed"]))
        if ended or failed:
            audit(project, "jobs.forget", "jobs", f"{ended} ended, {failed} failed")
    return {"ended": ended, "failed": failed}


def _batch(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.batch.running import run_batch
    from mainspring.operations.batch.values import Request
    from mainspring.project.backends.engines import chunk_engine

    def told(done: int, total: int, left_s: float | None) -> None:
        run.check()
        run.progress(done, total, "" if left_s is None else f"ends in {left_s:.0f} s")

    def do() -> Plain:
        request = Request(
            given["endpoint"], given["from"], given["to"], given["as_of"], tuple(given["keep"]), given["new"], run.id
        )
        # The caller that queues a job may read and write less than the worker.
        engine = chunk_engine(given["engine"], project.settings)
        report = run_batch(project, request, engine=engine, progress=told, confined=project.settings.root)
        names = ("run", "version", "rows", "predicted", "quarantined", "reasons", "seconds", "cost", "drifted")
        return {name: getattr(report, name) for name in names}

    return run.step("predict", do)


def _target(project: Project, given: dict[str, Any]) -> object:
    from mainspring.operations.batch.planning import version_for

    return version_for(project, given["endpoint"])


def _train(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.train import train
    from mainspring.training.loop.signals import Interrupted

    def told(stage: str, share: float) -> None:
        run.progress(round(share * 100), 100, stage)

    since, until = (None if given[each] is None else parse_instant(given[each]) for each in ("since", "until"))

    def do() -> Plain:
        try:
            report = train(project, given["model"], since=since, until=until, progress=told)
        except Interrupted as stopped:  # it is no failure of the job, which goes on from a checkpoint
            raise JobStopped(run.id, None, again_after_us=_TAKEN_BACK if stopped.preempted else 0) from stopped
        return {**asdict(report), "metrics": _finite(report.metrics), "baseline": _finite(report.baseline)}

    return run.step("train", do)


def _evidence(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.governance.evidence import frameworks
    from mainspring.operations.evidence.reporting import keep, report

    counted: dict[str, Plain] = {}
    wanted = given["frameworks"] or frameworks()
    for done, name in enumerate(wanted):
        run.progress(done, len(wanted), name)
        found = report(project, name)
        keep(project, found)
        counted[name] = {str(state): count for state, count in found.counts.items()}
    return counted


def _known_frameworks(_: Project, given: dict[str, Any]) -> object:
    from mainspring.governance.evidence import framework

    return [framework(each) for each in given["frameworks"]]


def _explain(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from msgspec import to_builtins

    from mainspring.operations.explaining import explain_prediction

    found: dict[str, Plain] = {}
    for number, prediction in enumerate(given["predictions"]):
        run.progress(number, len(given["predictions"]), prediction)

        def explain(prediction: str = prediction) -> Plain:
            made = explain_prediction(
                project, prediction, sampled=True, calls=given["budget"], seconds=given["seconds"]
            )
            explanation: Plain = to_builtins(made.explanation)
            return explanation

        found[prediction] = run.step(prediction, explain)
    return found


def _predictions(project: Project, given: dict[str, Any]) -> object:
    if not given["predictions"]:
        raise Invalid("The argument of explain names no prediction.", fix='write {"predictions": ["ID"]}.')
    return [project.predictions.find(each) for each in given["predictions"]]


def _search(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.search.searching import search

    def told(stage: str, share: float) -> None:
        run.progress(round(share * 100), 100, stage)

    def do() -> Plain:
        report = search(project, given["model"], trials=given["trials"], workers=given["workers"], progress=told)
        return {"run_id": report.run_id, "metric": report.metric, "best": report.best}

    return run.step("search", do)


def _monitor(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.watching import watch

    chosen = given["endpoints"] or list(project.definitions.endpoints)
    for number, endpoint in enumerate(chosen):
        run.progress(number, len(chosen), endpoint)
        project.monitor.run(endpoint)
        project.quality_updates.run(endpoint)
        run.check()
    watch(project, chosen, windows=False)
    return {"endpoints": chosen}


def _build(project: Project, run: JobRun, given: dict[str, Any]) -> Plain:
    from mainspring.operations.collections import build_collection

    chosen = given["collections"] or list(project.definitions.collections)
    found: dict[str, Plain] = {}
    for number, name in enumerate(chosen):
        run.progress(number, len(chosen), name)

        def build(name: str = name) -> Plain:
            done = build_collection(project, name, lambda _step, _done, _total: run.check())
            return {"documents": done.documents, "chunks": done.chunks, "embedded": done.embedded}

        found[name] = run.step(name, build)
    run.progress(len(chosen), len(chosen))
    return found


def _snapshot(project: Project, _: JobRun, given: dict[str, Any]) -> Plain:
    found = {}
    for source in given["sources"] or list(project.definitions.sources):
        project.definitions.source(source)
        found[source] = {"source": source, "version": project.lake.version(source)}
    return found


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _model(project: Project, given: dict[str, Any]) -> object:
    return project.definitions.model(given["model"])


def _endpoints(project: Project, given: dict[str, Any]) -> object:
    return [project.definitions.endpoint(each) for each in given["endpoints"]]


def _collections(project: Project, given: dict[str, Any]) -> object:
    return [project.definitions.collection(each) for each in given["collections"]]


def _sources(project: Project, given: dict[str, Any]) -> object:
    return [project.definitions.source(each) for each in given["sources"]]


WORK: Mapping[str, Work] = {
    "batch": Work(_batch, _target, long=True),
    "collect-garbage": Work(_collect),
    "collections": Work(_build, _collections, long=True),
    "evidence": Work(_evidence, _known_frameworks, long=True),
    "explain": Work(_explain, _predictions, long=True),
    "forget-jobs": Work(_forget),
    "ingest-warehouse": Work(_pull, _sources, long=True),
    "materialise": Work(_materialise, _views),
    "monitor": Work(_monitor, _endpoints, long=True),
    "search": Work(_search, _model, long=True),
    "snapshot": Work(_snapshot, _sources),
    "tidy": Work(_tidy),
    "train": Work(_train, _model, long=True),
}
