"""The pages of jobs, read-only: jobs are queued, retried and cancelled on the command line."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.features.pages import Frame
from mainspring.console.jobs.listing import STATES, STEPS, job_list, job_page, line, written
from mainspring.console.render import page
from mainspring.core.ids import check_id
from mainspring.project import Project

Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]


def add_job_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/jobs`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "jobs", "states": STATES, "line": line, "written": written, **content}

    @router.get("/jobs")
    def show_jobs(request: Request, status: str = "", before: str = "") -> Response:
        found = job_list(project, status=status, before=before)
        return page("jobs.html", framed(request, found=found))

    @router.get("/jobs/{job_id}")
    def show_job(request: Request, job_id: str, begin: Begin = 0) -> Response:
        view = job_page(project, check_id(job_id, "job"))
        return page("job.html", framed(request, view=view, begin=begin, steps=view.steps[begin : begin + STEPS]))
