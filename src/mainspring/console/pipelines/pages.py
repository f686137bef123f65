"""The pages of pipelines, and the buttons that start, approve, retry and cancel."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller, confirmed
from mainspring.console.jobs.listing import STATES, line, written
from mainspring.console.permissions import may, seen
from mainspring.console.pipelines.graph_picture import SIGNS, is_asked, took, word_of
from mainspring.console.pipelines.listing import (
    STEPS,
    acted,
    pipeline_list,
    pipeline_page,
    run_page,
    step_page,
)
from mainspring.console.render import page
from mainspring.core.ids import check_id
from mainspring.operations.models.curating import approver_of
from mainspring.operations.pipelines import control
from mainspring.project import Project
from mainspring.security.model import Action

Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]


def add_pipeline_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/pipelines`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        shared = {
            "section": "pipelines",
            "states": {str(status): look for status, look in STATES.items()},
            "word_of": word_of,
            "signs": SIGNS,
            "took": took,
            "is_asked": is_asked,
            "line": line,
            "written": written,
            "may_manage": any(
                may(request, project, action, f"pipeline/{request.path_params.get('name', '')}")
                for action in (Action.PIPELINE_RUN, Action.PIPELINE_APPROVE)
            ),
        }
        return {**frame(request), **shared, **content}

    @router.get("/pipelines")
    def show_pipelines(request: Request) -> Response:
        rows = seen(request, project, Action.PIPELINE_READ, "pipeline", pipeline_list(project), lambda row: row.name)
        return page("pipelines.html", framed(request, rows=rows))

    @router.get("/pipelines/{name}")
    def show_pipeline(request: Request, name: str, before: str = "") -> Response:
        view = pipeline_page(project, check_id(name, "pipeline"), before=before)
        return page("pipeline.html", framed(request, view=view))

    @router.post("/pipelines/{name}/runs")
    async def start_run(request: Request, name: str) -> Response:
        await confirmed(request)
        by = approver_of(caller(request).principal)
        made = await run_in_threadpool(control.start, project, check_id(name, "pipeline"), by=by)
        return RedirectResponse(f"/pipelines/{name}/runs/{made.id}", status_code=303)

    @router.get("/pipelines/{name}/runs/{run}")
    def show_run(request: Request, name: str, run: str, begin: Begin = 0) -> Response:
        view = run_page(project, check_id(name, "pipeline"), check_id(run, "run"))
        steps = view.state.steps[begin : begin + STEPS]
        return page("pipeline_run.html", framed(request, view=view, name=name, begin=begin, steps=steps))

    @router.get("/pipelines/{name}/runs/{run}/steps/{step}")
    def show_step(request: Request, name: str, run: str, step: str) -> Response:
        view = step_page(project, check_id(name, "pipeline"), check_id(run, "run"), step)
        return page("pipeline_step.html", framed(request, view=view, name=name))

    @router.post("/pipelines/{name}/runs/{run}/{action}")
    async def act(request: Request, name: str, run: str, action: str) -> Response:
        fields = await confirmed(request)
        step, note = fields.get("step", ""), fields.get("reason", "")
        names = check_id(name, "pipeline"), check_id(run, "run")
        await run_in_threadpool(acted, project, *names, action, caller(request).principal, step, note)
        return RedirectResponse(f"/pipelines/{name}/runs/{run}", status_code=303)
