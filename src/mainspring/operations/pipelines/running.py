"""Handlers of pipelines: the run, a step, and an approval. Only a step's function runs in a child process.

A run records its plan first, so that it ends as it began, whatever happens to the project's files. Then it adds a job
for each node and waits for them; it is nobody's thread meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.ids import new_id
from mainspring.cost.paying import Payers, paid_by
from mainspring.cost.usage import PIPELINE
from mainspring.jobs.model import JobSkipped, NewJob, Status
from mainspring.jobs.pipelines.graph import STEP, Graph, Node, graph_of, node_of
from mainspring.jobs.pipelines.ports import StepCall, StepRunner
from mainspring.jobs.pipelines.steps import SPARK
from mainspring.jobs.pipelines.values import Scope, computed, outputs, shown
from mainspring.jobs.plain import Plain
from mainspring.jobs.runner import JobRun
from mainspring.operations.auditing import audited
from mainspring.operations.cost.teams import charging
from mainspring.operations.jobs.children import Children, keep_log
from mainspring.operations.jobs.handlers import put_off
from mainspring.operations.pipelines.cache import cache_key
from mainspring.operations.pipelines.calling import call_step
from mainspring.operations.pipelines.names import (
    APPROVED,
    CACHE,
    ITEMS,
    PLAN,
    limits,
    of_node,
    plan_of,
    step_log,
)
from mainspring.project import Project
from mainspring.project.backends.engines import step_runner
from mainspring.registry.processes import started_by

_RUNS_LOGGED = 200  # of the newest runs the logs are kept


def run_pipeline(project: Project, name: str, run: JobRun) -> Plain:
    """Begin or end a run of a pipeline.

    Raises:
        JobWaits: Its steps have not ended.
        Invalid: A step has failed or was cancelled.
    """
    argument = run.argument or {}

    def begin() -> Plain:
        graph = graph_of(argument["graph"]) if "graph" in argument else project.definitions.pipeline(name)
        check_resources(graph)
        with charging(project, PIPELINE, name, by=run.started_by, team=run.team) as payers:
            return plan_of(graph, argument, payers)

    plan = run.step(PLAN, begin)
    graph = graph_of(plan["graph"])
    if any(found is None for found in project.jobs.get(list(plan["jobs"].values()))):
        documents = {each["name"]: each for each in plan["graph"]["nodes"]}
        parts = [of_node(run.id, plan, node, documents[node.name], run.priority) for node in graph.nodes]
        project.jobs.enqueue(parts, project.wall.now())
        _forget_logs(project.settings.state)
    run.wait_for(plan["jobs"].values())
    of, who = f"run/{run.id}", run.started_by or None
    with audited(project, "pipelines.end", of, who=who) as done:
        found = _ended(project, run.id, graph, plan)
        done(f"{name} done")
    return found


def _ended(project: Project, run: str, graph: Graph, plan: Mapping[str, Any]) -> Plain:
    found = dict(zip(plan["jobs"], project.jobs.get(list(plan["jobs"].values())), strict=True))
    bad = [name for name, job in found.items() if job is None or job.status in (Status.FAILED, Status.CANCELLED)]
    if bad:
        first = found[bad[0]]
        told = "is gone" if first is None else str(first.status) + (f": {first.error}" if first.error else "")
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise Invalid(f"Step {bad[0]!r}{more} {told}", fix=f"run `mainspring pipelines retry {run}`.")
    results = {name: job.result for name, job in found.items() if job is not None and job.status is Status.DONE}
    if graph.result is None or not results.keys() >= set(outputs(graph.result)):
        return None
    return computed(graph.result, Scope(plan["parameters"], results))


def run_step(project: Project, children: Children | None, run: JobRun) -> Plain:
    """Run a step of a pipeline.

    Raises:
        JobSkipped: One of its conditions is false.
    """
    argument = run.argument
    node = node_of(argument["node"])
    scope = scope_of(project, argument, node)
    _check_conditions(node, scope)
    if node.over is not None and "item" not in argument:
        return _mapped(project, node, scope, run)
    inputs = {name: computed(value, scope) for name, value in node.inputs}
    call = StepCall(
        argument["pipeline"],
        argument["run"],
        argument["name"],
        node.function,
        inputs,
        step_log(project.settings.state, argument["run"], argument["name"]),
        node.resources,
        argument.get("by", ""),
        tuple(argument.get("teams", ())),
        argument.get("teams_why", ""),
    )
    key, why = cache_key(project, node, inputs) if argument.get("cache", True) else (None, "--no-cache")
    if key is not None:
        if (known := project.jobs.remembered(key)) is not None:
            run.step(CACHE, lambda: {"hit": known.job})
            return known.result
        run.remember(key)
    if node.cache:
        run.step(CACHE, lambda: {"miss": why or key})
    keep_log(project, run, call.log)
    return _runner(project, node.engine, children).run(call, run)


class LocalRunner:
    """Runs steps in child processes of this machine; without them, in this process.

    Args:
        engine: The engine whose driver the child process is.
    """

    def __init__(self, project: Project, children: Children | None, engine: str = "") -> None:
        self._project, self._children, self._engine = project, children, engine

    def run(self, call: StepCall, attempt: JobRun) -> Plain:
        if self._children is None:
            node = Node(call.step, function=call.function, engine=self._engine)
            with started_by(call.by), paid_by(Payers(call.teams, call.teams_why)), put_off(attempt.id):
                return call_step(self._project, node, call.inputs)
        named = {
            "name": f"step {call.step}",
            "pipeline": call.pipeline,
            "step": call.step,
            "function": call.function,
            "engine": self._engine,
            "argument": dict(call.inputs),
            "by": call.by,
            "teams": list(call.teams),
            "teams_why": call.teams_why,
        }
        return self._children.run(attempt, call.log, **named)


class SparkRunner:
    """Runs each step as the driver of a Spark application: in a child process of its own, with which it ends."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def run(self, call: StepCall, attempt: JobRun) -> Plain:
        with closing(Children(self._project.settings)) as children:
            return LocalRunner(self._project, children, SPARK).run(call, attempt)


GIVING = ("kubernetes", "ray")  # engines that give out resources
ENGINES: dict[str, Callable[[Project], StepRunner]] = {
    "kubernetes": lambda project: step_runner("kubernetes", project.settings),
    "ray": lambda project: step_runner("ray", project.settings),
    SPARK: SparkRunner,
}  # runners of steps by engine, beside the worker's machine


def check_resources(graph: Graph) -> None:
    """Raise if a step asks for resources where none are given out.

    Raises:
        Invalid: One does.
    """
    for node in graph.nodes:
        if node.resources and node.engine not in GIVING:
            where = f"engine={node.engine!r}" if node.engine else "a process of the worker's machine"
            raise Invalid(
                f"Step {node.name!r} asks for {' and '.join(node.resources)}, which {where} does not give out.",
                fix=f"run it with one of {GIVING}, or leave it out; limit= bounds how many run at once.",
            )


def _runner(project: Project, engine: str, children: Children | None) -> StepRunner:
    return ENGINES[engine](project) if engine else LocalRunner(project, children)


def scope_of(project: Project, argument: Mapping[str, Any], node: Node) -> Scope:
    """Return what the node's values are computed from: only the results that they name are read."""
    values = [value for _, value in node.inputs] + list(node.when) + ([] if node.over is None else [node.over])
    names = sorted({name for value in values for name in outputs(value)})
    found = project.jobs.get([argument["jobs"][name] for name in names])
    results = {name: None if job is None else job.result for name, job in zip(names, found, strict=True)}
    return Scope(argument["parameters"], results, argument.get("item"))


def _check_conditions(node: Node, scope: Scope) -> None:
    for condition in node.when:
        if not computed(condition, scope):
            raise JobSkipped(f"The condition {shown(condition)} is false.")


def _mapped(project: Project, node: Node, scope: Scope, run: JobRun) -> Plain:
    """Add a job for each item, or return the results of all."""
    assert node.over is not None
    argument = run.argument

    def begin() -> Plain:
        items = computed(node.over, scope)  # type: ignore[arg-type]
        if not isinstance(items, list):
            raise Invalid(
                f"Step {node.name!r} is mapped over {shown(node.over)}, which is {str(items)[:200]!r}.",  # type: ignore[arg-type]
                fix="return a list from the step.",
            )
        if len(items) > node.most:
            raise Invalid(
                f"Step {node.name!r} is mapped over {len(items):,} items, more than {node.most:,}.",
                fix=f"give .map(most={len(items)}), or fewer and larger items.",
            )
        return sorted(new_id() for _ in items)

    ids = run.step(ITEMS, begin)
    found = project.jobs.get(ids)
    if any(job is None for job in found):
        items = computed(node.over, scope)
        single = {name: value for name, value in argument["node"].items() if name not in ("over", "when", "after")}
        wanted = [
            NewJob(
                STEP,
                {**argument, "node": single, "name": f"{node.name}[{at}]", "item": item},
                id=id,
                parent=argument["run"],
                priority=run.priority,
                **limits(node),
            )
            for at, (id, item) in enumerate(zip(ids, items, strict=True))
        ]
        project.jobs.enqueue(wanted, project.wall.now())
    run.wait_for(ids)
    jobs = [job for job in project.jobs.get(ids) if job is not None]
    bad = [job for job in jobs if job.status is not Status.DONE]
    if bad:
        name = bad[0].argument["name"]
        raise Invalid(f"{len(bad)} of {len(ids)} items failed. {name}: {bad[0].error or bad[0].status}")
    return [job.result for job in jobs]


def run_approval(project: Project, run: JobRun) -> Plain:
    """Ask for an approval, or end when there are enough.

    Raises:
        JobSkipped: One of its conditions is false.
        JobWaits: There are not enough approvals.
    """
    argument = run.argument
    node = node_of(argument["node"])
    _check_conditions(node, scope_of(project, argument, replace(node, inputs=())))
    given = [name.removeprefix(APPROVED) for name in run.finished if name.startswith(APPROVED)]
    if len(given) < node.by:
        run.progress(len(given), node.by, "approvals")
        run.wait_for_signal()
    return {"approved_by": given}


def _forget_logs(state: Path) -> None:
    """Delete the logs of all but the newest runs."""
    folder = state / "logs" / "pipelines"
    with suppress(FileNotFoundError):
        for old in sorted(folder.iterdir(), reverse=True)[_RUNS_LOGGED:]:  # ids are in the order of time
            shutil.rmtree(old, ignore_errors=True)
