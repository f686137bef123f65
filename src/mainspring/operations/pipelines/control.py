"""Use cases of pipelines: start a run, see how it is, retry, approve, cancel, and run one step here."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from mainspring.core.errors import Conflict, Invalid, MainspringError, NotFound
from mainspring.core.ids import new_id
from mainspring.core.nearest import meant
from mainspring.cost.paying import NOBODY, named_here, paid_by
from mainspring.delivery.approving import check_apart
from mainspring.jobs.model import ENDED, Job, Status, Step
from mainspring.jobs.pipelines.graph import APPROVAL, Graph, Node, graph_of
from mainspring.jobs.pipelines.values import computed, outputs, shown
from mainspring.jobs.plain import Plain, encoded
from mainspring.jobs.runner import Runner
from mainspring.operations.auditing import audit
from mainspring.operations.jobs.children import find_logs
from mainspring.operations.jobs.queue import job
from mainspring.operations.models.curating import actor, decider, people
from mainspring.operations.pipelines.calling import call_step
from mainspring.operations.pipelines.names import APPROVED, CACHE, PLAN, RUN, of_run, step_log
from mainspring.operations.pipelines.running import check_resources, scope_of
from mainspring.project import Project
from mainspring.security.model import Action

_MOST = 20_000  # jobs of a run
_LOOK_S = 0.2
_NEEDS = re.compile(r"The job (\w+) that it needs is (\w+)\.")  # as `jobs.transitions` says it
_ENDS = {"failed": "has failed", "skipped": "was skipped", "cancelled": "was cancelled"}


@dataclass(frozen=True, slots=True)
class StepState:
    """A step of a run: of a mapped step, also each item.

    `cache` is "hit", "miss", the reason why its result is not cached, or empty. `note` is of its newest progress until
    it ends: also why a budget holds it back. Instants are UTC epoch microseconds.
    """

    name: str
    kind: str
    status: Status
    job: str
    attempts: int
    started_at: int | None
    ended_at: int | None
    error: str | None
    result: Plain
    cache: str
    approved_by: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class RunState:
    """A run of a pipeline and its steps, in the order of the graph, items behind their step.

    `teams` pay for its steps; `teams_why` is a constant of `cost.paying`. Both are empty before it begins.
    """

    job: Job
    graph: Graph
    parameters: Mapping[str, Plain]
    steps: tuple[StepState, ...]
    teams: tuple[str, ...] = ()
    teams_why: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Number of steps by status, items left out."""
        nodes = {node.name for node in self.graph.nodes}
        return dict(Counter(step.status.value for step in self.steps if step.name in nodes))

    @property
    def done(self) -> int:
        """Number of steps that have ended."""
        return sum(self.counts.get(each.value, 0) for each in ENDED)


def start(
    project: Project,
    name: str,
    parameters: Mapping[str, Plain] | None = None,
    *,
    cache: bool = True,
    key: str | None = None,
    priority: int | None = None,
    by: str | None = None,
    team: str | None = None,
) -> Job:
    """Queue a run of a pipeline as it is declared now, or return the existing one with its key.

    Args:
        parameters: Values that replace defaults.
        cache: Whether remembered results of steps may be used.
        key: Two runs of one pipeline with the same key are one run.
        priority: Of the run and its steps; by default the pipeline's.
        by: Who starts it; by default who is signed in here, or else the user of this process.
        team: Named to pay for it, after `check_charge`; by default the one that this work names.

    Raises:
        NotFound: There is no such pipeline.
        Invalid: It has no such parameter, a value is of another type than the default, JSON cannot represent it, or a
            step asks for resources that its engine does not give out.
    """
    graph = project.definitions.pipeline(name)
    check_resources(graph)
    given = dict(parameters or {})
    graph.bound(given)
    _expect_types(graph, given)
    by = actor(project) if by is None else by
    argument = {"parameters": given, "graph": graph.document(), "cache": cache, "by": by}
    team = named_here() if team is None else team
    if team:
        argument["team"] = team
    encoded(argument, f"The parameters and the graph of {name}")
    with project.audit.together():
        wanted = replace(of_run(graph, argument, key, priority), id=new_id())
        [made] = project.jobs.enqueue([wanted], project.wall.now())
        if made.id == wanted.id:
            told = f"{made.id}, charged to {team}" if team else made.id
            audit(project, "pipelines.run", f"pipeline/{name}", told, who=by)
    return made


def _expect_types(graph: Graph, given: Mapping[str, Plain]) -> None:
    """Raise if a parameter's value is of another type than its default; a default of `None` accepts all."""
    defaults = dict(graph.parameters)
    for name, value in given.items():
        default = defaults[name]
        fits = (int, float) if isinstance(default, float) else type(default)
        truth = isinstance(value, bool) == isinstance(default, bool)  # a Boolean is not a number
        if default is not None and value is not None and not (isinstance(value, fits) and truth):
            raise Invalid(
                f"Parameter {name!r} of pipeline {graph.name!r} is {value!r}, of type {type(value).__name__}.",
                fix=f"give a value of type {type(default).__name__}, as its default {default!r}.",
            )


def find_run(project: Project, run: str) -> Job:
    """Return the job of a run.

    Raises:
        NotFound: There is no such run.
    """
    found = job(project, run)
    if not found.handler.startswith(RUN):
        raise NotFound(
            f"The job {run} ({found.handler}) is not a run of a pipeline.", fix="see `mainspring jobs show`."
        )
    return found


def runs(project: Project, pipeline: str, limit: int = 20) -> list[Job]:
    """Return the newest runs of a pipeline, newest first."""
    return project.jobs.find(handlers={f"{RUN}{pipeline}"}, limit=limit)


def state(project: Project, run: str) -> RunState:
    """Return a run and its steps.

    Raises:
        NotFound: There is no such run.
    """
    found = find_run(project, run)
    plan = _plan(project, found)
    if plan is None:  # its first attempt has not begun
        given = found.argument or {}
        name = found.handler.removeprefix(RUN)
        graph = graph_of(given["graph"]) if "graph" in given else project.definitions.pipeline(name)
        waiting = tuple(
            StepState(node.name, node.kind, Status.WAITING, "", 0, None, None, None, None, "") for node in graph.nodes
        )
        return RunState(found, graph, graph.bound(given.get("parameters") or {}), waiting)
    parts = {each.id: each for each in project.jobs.find(parent=run, limit=_MOST)}
    items: dict[str, list[Job]] = {}
    for each in parts.values():
        if "item" in each.argument:
            items.setdefault(each.argument["node"]["name"], []).append(each)
    graph, steps, names = graph_of(plan["graph"]), [], {id: name for name, id in plan["jobs"].items()}
    for node in graph.nodes:
        part = parts.get(plan["jobs"][node.name])
        steps.append(_step(project, node, node.name, part, names))
        steps += [_step(project, node, each.argument["name"], each, names) for each in items.get(node.name, [])]
    paid = tuple(plan.get("teams", ())), plan.get("teams_why", "")
    return RunState(found, graph, plan["parameters"], tuple(steps), *paid)


def _plan(project: Project, run: Job) -> dict[str, Any] | None:
    return next((step.result for step in project.jobs.steps(run.id) if step.name == PLAN), None)


def _step(project: Project, node: Node, name: str, part: Job | None, names: Mapping[str, str]) -> StepState:
    if part is None:
        return StepState(name, node.kind, Status.WAITING, "", 0, None, None, None, None, "")
    recorded = project.jobs.steps(part.id) if node.cache or node.kind == "approval" else []
    cached = next((step.result for step in recorded if step.name == CACHE), None)
    cache = "" if cached is None else "hit" if "hit" in cached else _missed(cached["miss"])
    approved = tuple(step.name.removeprefix(APPROVED) for step in recorded if step.name.startswith(APPROVED))
    return StepState(
        name, node.kind, part.status, part.id, part.attempts, part.started_at, part.ended_at, _reason(part, names),
        part.result, cache, approved, part.progress.note if part.progress and part.status not in ENDED else "",
    )  # fmt: skip


def _reason(part: Job, names: Mapping[str, str]) -> str | None:
    """Return the error of a step; one that is skipped for another names that step, and not its job.

    A step that waits again after a retry has no such reason any more.
    """
    match = _NEEDS.fullmatch(part.error or "")
    if match is None or match[1] not in names:
        return part.error
    if part.status is not Status.SKIPPED:
        return None
    return f"The step {names[match[1]]} that it needs {_ENDS.get(match[2], match[2])}."


def asks(project: Project, run: Job) -> bool:
    """Return whether a run asks for an approval now."""
    if run.status is not Status.WAITING:
        return False
    waiting = project.jobs.find(parent=run.id, handlers={APPROVAL}, statuses={Status.WAITING})
    return any(job.started_at is not None for job in waiting)


def _missed(why: str) -> str:
    return "miss" if len(why) == 64 else f"not cached: {why}"  # a key, or the reason why there is none


def wait(project: Project, run: str, told: Callable[[RunState], None]) -> Job:
    """Return a run when it has ended; `told` gets its state again and again until then.

    An approval that is asked for ends the wait as well, since it may take days.
    """
    while True:
        before = time.monotonic()
        found = state(project, run)
        if found.job.status in ENDED or (asked(found) and not _under_way(found)):
            return found.job
        told(found)
        time.sleep(max(_LOOK_S, 4 * (time.monotonic() - before)))  # a graph of thousands is looked at less often


def asked(found: RunState) -> list[StepState]:
    """Return the approvals that a run asks for."""
    return [
        step
        for step in found.steps
        if step.kind == "approval" and step.status is Status.WAITING and step.started_at is not None
    ]


def _under_way(found: RunState) -> bool:
    return any(step.status in (Status.QUEUED, Status.RUNNING) for step in found.steps)


def run_here(project: Project, run: str, told: Callable[[RunState], None] = lambda _: None) -> Job:
    """Run in this process, with child processes for steps, what is due, until a run has ended or asks for approval."""
    from mainspring.operations.jobs.children import Children
    from mainspring.operations.jobs.handlers import handlers

    with closing(Children(project.settings)) as children, paid_by(NOBODY):  # each job has payers of its own
        runner = Runner(project.jobs, handlers(project, children), project.wall, holder=f"command-{new_id()}")
        while job(project, run).status not in ENDED:
            if runner.run_one() is None:
                found = state(project, run)
                told(found)
                if asked(found) and not _under_way(found):
                    break
                time.sleep(_LOOK_S)
    return job(project, run)


def retry(project: Project, run: str, step: str | None = None, *, by: str | None = None) -> Job:
    """Queue failed and cancelled steps of a run again, with those that were skipped because of them.

    Args:
        step: Only this step, or item of a mapped step, and what follows it.
        by: Who asks for it; by default the user of this process.

    Raises:
        NotFound: There is no such run or step.
        Conflict: The run goes on or is done, or the step has not failed.
    """
    found = state(project, run)
    if found.job.status not in ENDED - {Status.DONE}:
        told = "is done" if found.job.status is Status.DONE else "has not ended"
        raise Conflict(f"The run {run} {told}.", fix="wait for its end, or start another: `mainspring pipelines run`.")
    bad = [each for each in found.steps if each.status in ENDED - {Status.DONE}]
    chosen = bad
    if step is not None:
        [wanted] = _named(found, [step])
        if wanted.status not in ENDED - {Status.DONE}:
            raise Conflict(f"Step {step!r} of run {run} is {wanted.status}.", fix="retry a step that has failed.")
        node = step.partition("[")[0]
        after = found.graph.following([node]) | {node}
        chosen = [each for each in bad if each.name == step or (each.name in after and "[" not in each.name)] + (
            [each for each in bad if each.name.startswith(f"{step}[")] if "[" not in step else []
        )
    ids = list(dict.fromkeys([*(each.job for each in chosen if each.job), run]))
    with project.audit.together():
        project.jobs.retry(ids, project.wall.now())
        audit(project, "pipelines.retry", f"run/{run}", step or "all", who=by)
    return job(project, run)


def retry_jobs(project: Project, ids: Sequence[str]) -> list[Job]:
    """Queue failed and cancelled jobs again; of a run with its failed steps, of a step with its run and what follows.

    Raises:
        NotFound: A job does not exist. No job is queued.
        Conflict: A job runs or is done, or is a step that has ended while its run goes on.
    """
    found = [job(project, id) for id in ids]
    plain = []
    for each in found:
        if each.parent is None and not each.handler.startswith(RUN):
            plain.append(each.id)
        elif each.parent is None:
            retry(project, each.id)
        elif each.status is Status.QUEUED:  # for its next attempt, which is made at once
            plain.append(each.id)
        else:
            retry(project, each.parent, each.argument["name"])
    if plain:
        who = actor(project)
        with project.audit.together():
            for each in project.jobs.retry(plain, project.wall.now()):
                audit(project, "jobs.retry", f"job/{each.id}", each.handler, who=who)
    return [job(project, id) for id in ids]


def _named(found: RunState, names: list[str]) -> list[StepState]:
    by_name = {step.name: step for step in found.steps}
    for name in names:
        if name not in by_name:
            raise NotFound(f"The run {found.job.id} has no step {name!r}.", fix=meant(name, by_name))
    return [by_name[name] for name in names]


def cancel(project: Project, run: str, *, by: str | None = None) -> Job:
    """Cancel a run: what waits at once; the processes of running steps are ended within seconds.

    Raises:
        NotFound: There is no such run.
    """
    find_run(project, run)
    with project.audit.together():
        [found] = project.jobs.cancel([run], project.wall.now())
        audit(project, "pipelines.cancel", f"run/{run}", who=by)
    return found


def approve(project: Project, run: str, name: str, *, note: str = "", by: str | None = None) -> StepState:
    """Approve on behalf of a person, by default of who decides here; see `curating.decider`.

    Raises:
        NotFound: There is no such run or approval.
        Conflict: It is not asked for now, or the person has approved it already.
        Denied: The person is not known to be another than the one who started the run, and the profile asks for
            approvals by others (`approvals`) or has an identity provider; or may not.
    """
    found = state(project, run)
    [step] = _named(found, [name])
    if step.kind != "approval":
        raise Invalid(f"Step {name!r} of run {run} is not an approval.", fix="name one of its approvals.")
    who = decider(project, None, Action.PIPELINE_APPROVE, f"pipeline/{found.graph.name}") if by is None else by
    plan = _plan(project, found.job)
    author = "" if plan is None else plan["by"]
    if (project.settings.approvals or project.settings.sign_in is not None) and author:
        check_apart(who, [author], people(project), f"started the run {run}", "approve it")
    if step.status is not Status.WAITING or step.started_at is None:
        raise Conflict(f"The approval {name!r} of run {run} is not asked for: it is {step.status}.", fix="wait for it.")
    if people(project).same(who, step.approved_by):
        raise Conflict(f"{who} has approved {name!r} of run {run} already.", fix="let somebody else approve it too.")
    with project.audit.together():
        project.jobs.signal(step.job, Step(f"{APPROVED}{who}", {"note": note}, project.wall.now()))
        audit(project, "pipelines.approve", f"run/{run}", f"{name} {note}".strip(), who=who)
    [step] = _named(state(project, run), [name])
    return step


def run_step(project: Project, run: str, step: str) -> Plain:
    """Run a step of a run in this process, with its inputs, and return its result, which is not recorded.

    Raises:
        NotFound: There is no such run or step.
        Conflict: A step whose result it needs is not done.
    """
    found = state(project, run)
    [wanted] = _named(found, [step])
    node = found.graph.node(step.partition("[")[0])
    [part] = project.jobs.get([wanted.job])
    if part is None or node.kind != "step":
        raise Conflict(f"Step {step!r} of run {run} cannot be run.", fix="name a step that the run has begun.")
    needs = {need for _, value in node.inputs for need in outputs(value)}
    open_ = [each.name for each in _named(found, sorted(needs)) if each.status is not Status.DONE]
    if open_:
        raise Conflict(f"Step {step!r} needs {open_[0]!r}, which is not done.", fix="wait for it, or retry it.")
    if node.over is not None and "item" not in part.argument:
        raise Invalid(f"Step {step!r} is mapped over {shown(node.over)}.", fix=f"name an item: '{step}[0]'.")
    scope = scope_of(project, part.argument, node)
    inputs = {name: computed(value, scope) for name, value in node.inputs}
    return call_step(project, node, inputs)


def failed(project: Project, step: str, error: Exception) -> MainspringError:
    """Return the error of a step that raised `error`; it names the project's line."""
    from mainspring.project.definitions.loading import place_of

    place = place_of(error, project.settings.root)
    return MainspringError(
        f"Step {step!r} failed at {place}: {type(error).__name__}: {error}",
        fix="correct it there, and run `mainspring pipelines retry RUN`; --pdb starts the debugger where it failed.",
    )


def logs(project: Project, run: str, step: str | None = None) -> dict[str, str]:
    """Return what steps of a run wrote, by step; at most the last megabyte or two of each.

    Of a step that another machine ran, it is the end of its output, once the attempt has ended, if the catalog is on a
    server.

    Raises:
        NotFound: There is no such run or step.
    """
    found = state(project, run)
    chosen = [each for each in (_named(found, [step]) if step is not None else found.steps) if each.job]
    texts = find_logs(project, {each.job: step_log(project.settings.state, run, each.name) for each in chosen})
    return {each.name: texts[each.job] for each in chosen if each.job in texts}
