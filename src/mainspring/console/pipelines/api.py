"""JSON API of pipelines: the content of their pages, and the actions."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Body, answers
from mainspring.console.endpoints.api import Id, Limit
from mainspring.console.guard import caller
from mainspring.console.jobs.api import raw
from mainspring.console.permissions import seen
from mainspring.console.pipelines.graph_picture import is_asked
from mainspring.console.pipelines.listing import (
    SHOWN,
    PipelineRow,
    RunRow,
    acted,
    pipeline_list,
    pipeline_page,
    run_page,
    step_page,
)
from mainspring.core.ids import check_id
from mainspring.jobs.model import Status
from mainspring.jobs.plain import Plain
from mainspring.operations.cost.teams import check_charge
from mainspring.operations.models.curating import approver_of
from mainspring.operations.pipelines import control
from mainspring.operations.pipelines.control import StepState
from mainspring.project import Project
from mainspring.security.model import Action

MOST_STEPS = 1_000
Text = Annotated[str, Query(max_length=200)]
Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]
StepLimit = Annotated[int, Query(ge=1, le=MOST_STEPS)]
Kind = TypeVar("Kind", bound=msgspec.Struct)


class NewRun(msgspec.Struct, forbid_unknown_fields=True):
    """Request for a run. Runs of one pipeline with the same key are one run. `team` pays, with `team.charge`."""

    parameters: dict[str, Any] = {}
    key: str | None = None
    cache: bool = True
    team: str = ""


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """Request for an action on a run. `step` is the approval, or the step to retry."""

    step: str = ""
    note: str = ""


def add_pipeline_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/pipelines`."""

    @router.get("/pipelines")
    def list_pipelines(request: Request) -> Answer:
        """The declared pipelines, how they start, and the newest runs of each."""
        rows = seen(request, project, Action.PIPELINE_READ, "pipeline", pipeline_list(project), lambda row: row.name)
        return Answer({"pipelines": [_pipeline(each) for each in rows]})

    @router.get("/pipelines/{name}")
    def show_pipeline(name: Id, before: Text = "", limit: Limit = SHOWN) -> Answer:
        """One pipeline with its graph, and its runs, newest first; `next` is the `before` of the next page."""
        view = pipeline_page(project, check_id(name, "pipeline"), before=before, limit=limit)
        graph = raw(view.graph.document())
        runs = [_run(each) for each in view.runs]
        head = {"pipeline": _pipeline(view.row), "declared": view.declared, "graph": graph}
        return Answer({**head, "runs": runs, "next": view.next or None})

    @router.post("/pipelines/{name}/runs", status_code=201)
    @answers(id=str, status=Status)
    async def start_run(request: Request, name: Id, asked: Annotated[NewRun, Depends(Body(NewRun))]) -> Answer:
        """Queue a run from `{"parameters", "key", "cache", "team"}`; a `team` needs `team.charge` on its group."""
        principal = caller(request).principal
        await run_in_threadpool(check_charge, project, asked.team, principal)
        by = approver_of(principal)
        made = await run_in_threadpool(
            control.start,
            project,
            check_id(name, "pipeline"),
            asked.parameters,
            cache=asked.cache,
            key=asked.key,
            by=by,
            team=asked.team,
        )
        return Answer({"id": made.id, "status": made.status}, 201)

    @router.get("/pipelines/{name}/runs/{run_id}")
    def show_run(name: Id, run_id: Id, begin: Begin = 0, limit: StepLimit = MOST_STEPS) -> Answer:
        """One run with its parameters, its result, and its steps in the order of the graph.

        `next` is the `from` of the next page of steps.
        """
        view = run_page(project, check_id(name, "pipeline"), check_id(run_id, "run"))
        paid = {"teams": list(view.state.teams), "teams_why": view.state.teams_why}
        head = {**_run(view.row), **paid, "parameters": raw(dict(view.state.parameters))}
        head["result"] = raw(view.state.job.result)
        steps, end = view.state.steps[begin : begin + limit], begin + limit
        more = end if end < len(view.state.steps) else None
        return Answer({"run": head, "steps": [_step(each) for each in steps], "next": more})

    @router.get("/pipelines/{name}/runs/{run_id}/steps/{step}/log")
    def show_log(name: Id, run_id: Id, step: str) -> Answer:
        """The end of what a step wrote on the console's machine; `cut` is the number of characters before it."""
        view = step_page(project, check_id(name, "pipeline"), check_id(run_id, "run"), step)
        return Answer({"log": raw(view.log), "cut": view.cut})

    @router.post("/pipelines/{name}/runs/{run_id}/{action}")
    async def act(
        request: Request, name: Id, run_id: Id, action: str, asked: Annotated[Asked, Depends(Body(Asked))]
    ) -> Answer:
        """`approve` a step, `retry` a run or a step, or `cancel` a run. The body is `{"step", "note"}`."""
        names = check_id(name, "pipeline"), check_id(run_id, "run")
        await run_in_threadpool(acted, project, *names, action, caller(request).principal, asked.step, asked.note)
        view = await run_in_threadpool(run_page, project, *names)
        return Answer({"run": _run(view.row), "steps": [_step(each) for each in view.state.steps]})


def _pipeline(row: PipelineRow) -> dict[str, Any]:
    schedule = row.schedule
    times = None if schedule is None else {"when": schedule.when, "last": schedule.last, "next": schedule.next}
    return {**_fields(row), "schedule": times, "runs": [_run(each) for each in row.runs]}


def _run(row: RunRow) -> dict[str, Any]:
    return {**_fields(row), "parameters": raw(row.parameters)}


def _step(step: StepState) -> dict[str, Any]:
    result: Plain = step.result
    return {**_fields(step), "result": raw(result), "asked": is_asked(step)}


def _fields(of: Any) -> dict[str, Any]:
    return {each.name: getattr(of, each.name) for each in fields(of)}
