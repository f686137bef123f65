"""View models of pipelines, their runs and steps, for the templates and the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mainspring.console.pipelines import graph_picture
from mainspring.console.pipelines.graph_picture import GraphPicture, is_asked
from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.ids import ID_PATTERN
from mainspring.core.nearest import meant
from mainspring.jobs.logs import plain
from mainspring.jobs.model import ENDED, Job, Status
from mainspring.jobs.pipelines.graph import Graph, graph_of
from mainspring.jobs.plain import Plain
from mainspring.jobs.times import parse_when
from mainspring.operations.jobs.queue import Planned, planned
from mainspring.operations.models.curating import approver_of
from mainspring.operations.pipelines import control
from mainspring.operations.pipelines.control import RunState, StepState
from mainspring.operations.pipelines.names import RUN
from mainspring.project import Project
from mainspring.security.model import Principal

SHOWN, STEPS, RECENT = 25, 100, 5
_TAIL_LINES, _TAIL = 300, 40_000  # of a log on the page
_STARTS = {"landed": "when {} lands", "drifted": "on drift of {}", "webhook": "by the webhook {}"}
_PLACE = re.compile(rf"(\d{{1,16}})-({ID_PATTERN})")

# Status of a run -> its word, and the stylesheet's class. A run waits for its steps while they are under way.
RUN_STATES: Mapping[Status, tuple[str, str]] = {
    Status.WAITING: ("Under way", "live"),
    Status.QUEUED: ("Queued", "waits"),
    Status.RUNNING: ("Under way", "live"),
    Status.DONE: ("Done", "fresh"),
    Status.FAILED: ("Failed", "late"),
    Status.CANCELLED: ("Cancelled", "drifted"),
    Status.SKIPPED: ("Skipped", "drifted"),
}


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. `took_us` is the time since it was asked for, until now if it goes on; `None` before it began."""

    id: str
    status: Status
    by: str  # empty for a schedule or trigger
    parameters: Plain
    asked_at: int
    ended_at: int | None
    took_us: int | None
    cancelling: bool
    asks: bool  # whether an approval is asked for
    error: str | None

    @property
    def state(self) -> tuple[str, str]:
        """A word for its status, and the stylesheet's class. A run that has not begun waits for one before it."""
        if self.asks:
            return "Asks for approval", "drifted"
        begun = self.took_us is not None or self.status is not Status.WAITING
        return RUN_STATES[self.status if begun else Status.QUEUED]

    @property
    def brief(self) -> str:
        """The beginning of its error, in one line."""
        return next(iter((self.error or "").splitlines()), "")[:200]


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """One declared pipeline, how it starts by itself, and its newest runs, newest first."""

    name: str
    description: str
    steps: int
    starts: tuple[str, ...]
    schedule: Planned | None
    runs: tuple[RunRow, ...]


@dataclass(frozen=True, slots=True)
class PipelinePage:
    """A pipeline, and some of its runs, newest first; `next` is where older ones begin.

    `graph` is of the newest run if the pipeline is not declared any more.
    """

    name: str
    declared: bool
    graph: Graph
    row: PipelineRow
    picture: GraphPicture | None
    runs: tuple[RunRow, ...]
    before: str
    next: str


@dataclass(frozen=True, slots=True)
class RunPage:
    """A run with its steps."""

    row: RunRow
    state: RunState
    picture: GraphPicture | None
    asked: tuple[StepState, ...]

    @property
    def failed(self) -> list[StepState]:
        """Steps that failed; of a mapped one its items."""
        bad = [step for step in self.state.steps if step.status is Status.FAILED]
        mapped = {step.name.partition("[")[0] for step in bad if "[" in step.name}
        return [step for step in bad if step.name not in mapped]

    @property
    def may_be_cancelled(self) -> bool:
        return self.row.status not in ENDED and not self.row.cancelling

    @property
    def may_be_retried(self) -> bool:
        return self.row.status in ENDED - {Status.DONE}


@dataclass(frozen=True, slots=True)
class StepPage:
    """A step of a run, and the end of its log; `cut` is the number of characters before that."""

    row: RunRow
    state: RunState
    step: StepState
    log: str
    cut: int

    @property
    def plain_log(self) -> str:
        """The log without what only a terminal understands."""
        return plain(self.log)

    @property
    def may_be_retried(self) -> bool:
        return self.row.status in ENDED - {Status.DONE} and self.step.status in ENDED - {Status.DONE}


def pipeline_list(project: Project) -> list[PipelineRow]:
    """Return the declared pipelines by name."""
    schedules = {each.name: each for each in planned(project)}
    return [_row(project, each.graph, schedules) for _, each in sorted(project.definitions.pipelines.items())]


def pipeline_page(project: Project, name: str, *, before: str = "", limit: int = SHOWN) -> PipelinePage:
    """Return a pipeline that is declared, or has run.

    Raises:
        NotFound: It is neither.
        Invalid: `before` is not a valid position.
    """
    known = project.definitions.pipelines
    found = project.jobs.find(handlers={f"{RUN}{name}"}, before=_place(before) if before else None, limit=limit + 1)
    if name in known:
        graph = known[name].graph
    elif found and (old := _graph_of_run(found[0])) is not None:
        graph = old
    else:
        raise NotFound(f"There is no pipeline {name!r}.", fix=meant(name, known))
    rows = found[:limit]
    return PipelinePage(
        name=name,
        declared=name in known,
        graph=graph,
        row=_row(project, graph, {each.name: each for each in planned(project)}),
        picture=graph_picture.declared(graph),
        runs=tuple(run_row(project, job) for job in rows),
        before=before,
        next=f"{rows[-1].enqueued_at}-{rows[-1].id}" if len(found) > limit else "",
    )


def run_page(project: Project, name: str, run: str) -> RunPage:
    """Return a run with its steps.

    Raises:
        NotFound: The pipeline has no such run.
    """
    state, now = run_state(project, name, run), project.wall.now()
    return RunPage(
        row=run_row(project, state.job),
        state=state,
        picture=graph_picture.of_run(state, now, lambda step: f"/pipelines/{name}/runs/{run}/steps/{step}"),
        asked=tuple(step for step in state.steps if is_asked(step)),
    )


def step_page(project: Project, name: str, run: str, step: str) -> StepPage:
    """Return a step of a run with the end of what it wrote on this machine.

    Raises:
        NotFound: The pipeline has no such run, or the run no such step.
    """
    state = run_state(project, name, run)
    text = control.logs(project, run, step).get(step, "")
    [found] = [each for each in state.steps if each.name == step]
    lines = text.split("\n")
    tail = "\n".join(lines[-_TAIL_LINES - (not lines[-1]) :])[-_TAIL:]
    return StepPage(run_row(project, state.job), state, found, tail, len(text) - len(tail))


def run_state(project: Project, name: str, run: str) -> RunState:
    """Return a run of a pipeline.

    Raises:
        NotFound: The pipeline has no such run.
    """
    found = control.find_run(project, run)
    if found.handler != f"{RUN}{name}":
        raise NotFound(f"Pipeline {name!r} has no run {run}.", fix=f"it is one of {found.handler.removeprefix(RUN)!r}.")
    return control.state(project, run)


def run_row(project: Project, job: Job) -> RunRow:
    """Return the row of a run."""
    now = project.wall.now()
    given = job.argument if isinstance(job.argument, dict) else {}
    end = now if job.ended_at is None else job.ended_at
    return RunRow(
        id=job.id,
        status=job.status,
        by=str(given.get("by", "")),
        parameters=given.get("parameters") or given.get("trigger"),
        asked_at=job.enqueued_at,
        ended_at=job.ended_at,
        took_us=None if job.started_at is None else max(0, end - job.enqueued_at),
        cancelling=job.cancelling,
        asks=control.asks(project, job),
        error=job.error,
    )


def acted(project: Project, name: str, run: str, action: str, principal: Principal, step: str, note: str) -> None:
    """Approve a step of a run, retry the run or a step, or cancel the run, on behalf of a caller.

    Raises:
        NotFound: There is no such run, step or action.
        Conflict: It is not possible in the state of the run.
        Denied: The caller is not known to be another person than the one who started the run; see `control.approve`.
    """
    run_state(project, name, run)
    who = approver_of(principal)
    if action == "approve":
        control.approve(project, run, step, note=note, by=who)
    elif action == "retry":
        control.retry(project, run, step or None, by=who)
    elif action == "cancel":
        if control.find_run(project, run).status in ENDED:
            raise Conflict(f"The run {run} has ended.", fix="look at its page again.")
        control.cancel(project, run, by=who)
    else:
        raise NotFound(f"There is no action {action!r}.", fix="use approve, retry or cancel.")


def _row(project: Project, graph: Graph, schedules: Mapping[str, Planned]) -> PipelineRow:
    starts = [str(parse_when(graph.schedule))] if graph.schedule else []
    starts += [_STARTS[each.kind].format(each.name) for each in graph.triggers]
    return PipelineRow(
        name=graph.name,
        description=graph.description,
        steps=len(graph.nodes),
        starts=tuple(starts),
        schedule=schedules.get(f"{RUN}{graph.name}"),
        runs=tuple(run_row(project, job) for job in control.runs(project, graph.name, RECENT)),
    )


def _graph_of_run(job: Job) -> Graph | None:
    given = job.argument if isinstance(job.argument, dict) else {}
    return graph_of(given["graph"]) if "graph" in given else None


def _place(text: str) -> tuple[int, str]:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise Invalid(
            "This is not a position in the list of runs.", fix="use `next` of the previous page, or leave it out."
        )
    return int(match[1]), match[2]
