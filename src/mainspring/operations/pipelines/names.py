"""Names under which pipelines are jobs, and the documents that their jobs carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mainspring.core.ids import new_id
from mainspring.cost.paying import NOBODY, Payers
from mainspring.jobs.model import NewJob
from mainspring.jobs.pipelines.graph import APPROVAL, STEP, Graph, Node
from mainspring.jobs.pipelines.values import parameters
from mainspring.jobs.plain import Plain

RUN = "pipeline:"  # followed by the pipeline's name: the handler of a run
PLAN, ITEMS, CACHE = "pipeline: plan", "pipeline: items", "pipeline: cache"  # steps that the runner itself records
APPROVED = "approved by "


def of_run(graph: Graph, argument: Plain, key: str | None = None, priority: int | None = None) -> NewJob:
    """Return the job of a run of a pipeline, by default with the pipeline's priority."""
    limit = graph.limit
    group = None if limit is None else f"{RUN}{graph.name}"
    priority = graph.priority if priority is None else priority
    by = argument.get("by") if isinstance(argument, dict) else None
    team = argument.get("team") if isinstance(argument, dict) else None
    return NewJob(
        f"{RUN}{graph.name}", argument, key, group=group, group_limit=limit, priority=priority, started_by=by or None,
        team=team or None,
    )  # fmt: skip


def plan_of(graph: Graph, argument: dict[str, Any], payers: Payers = NOBODY) -> dict[str, Any]:
    """Return what a run is, as recorded at its beginning: graph, parameters, payers, and the id of each node's job."""
    ids = sorted(new_id() for _ in graph.nodes)
    return {
        "graph": graph.document(),
        "parameters": graph.bound(argument.get("parameters") or {}),
        "jobs": dict(zip((node.name for node in graph.nodes), ids, strict=True)),
        "cache": argument.get("cache", True),
        "by": argument.get("by", ""),
        "teams": list(payers.teams),
        "teams_why": payers.why,
    }


def of_node(run: str, plan: dict[str, Any], node: Node, document: Plain, priority: int) -> NewJob:
    """Return the job of a node. Its argument has all that it needs beside the results of other steps."""
    values = [value for _, value in node.inputs] + list(node.when) + ([] if node.over is None else [node.over])
    used = {name for value in values for name in parameters(value)}
    jobs = plan["jobs"]
    return NewJob(
        APPROVAL if node.kind == "approval" else STEP,
        {
            "pipeline": plan["graph"]["name"],
            "run": run,
            "name": node.name,
            "node": document,
            "parameters": {name: plan["parameters"][name] for name in used},
            "jobs": {need: jobs[need] for need in node.needs},
            "cache": plan["cache"],
            "by": plan.get("by", ""),
            "teams": plan.get("teams", []),
            "teams_why": plan.get("teams_why", ""),
        },
        id=jobs[node.name],
        parent=run,
        priority=priority,
        needs=tuple(jobs[need] for need in node.needs),
        **{} if node.over is not None else limits(node),
    )


def limits(node: Node) -> dict[str, Any]:
    """Return the limits of a job that runs a node's function."""
    group = f"step:{node.group}" if node.group_limit is not None else None
    return {
        "attempts": node.retries + 1,
        "timeout_us": node.timeout_us,
        "group": group,
        "group_limit": node.group_limit,
    }


def step_log(state: Path, run: str, step: str) -> Path:
    """Return the path of a step's log; of a mapped step, each item has one."""
    return state / "logs" / "pipelines" / run / f"{step.replace('[', '-').replace(']', '')}.log"
