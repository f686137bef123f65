"""Evidence: the newest report of each framework, signed, for those who may read the audit log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller, confirmed
from mainspring.console.permissions import may
from mainspring.console.render import page
from mainspring.core.time import parse_instant
from mainspring.jobs.model import ENDED, Job, Status
from mainspring.operations.evidence.reporting import FORMS, newest, newest_file
from mainspring.operations.jobs.queue import begin
from mainspring.project import Project
from mainspring.security.model import PROJECT, Action

_JOB = "evidence"
_TYPES = {"html": "text/html; charset=utf-8", "json": "application/json"}
Name = Annotated[str, Path(pattern="^[a-z0-9-]{1,40}$")]
Form = Annotated[str, Path(pattern=f"^({'|'.join(FORMS)})$")]


def add_evidence_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/evidence`."""

    @router.get("/evidence")
    def show_evidence(request: Request) -> Response:
        content = {
            "rows": [(each, parse_instant(each.at) if each.at else None) for each in newest(project)],
            "may_measure": may(request, project, Action.EVIDENCE_MEASURE, PROJECT),
            "job": _measuring(project),
        }
        return page("evidence.html", {**frame(request), "section": "access", **content})

    @router.post("/evidence")
    async def measure(request: Request) -> Response:
        await confirmed(request)
        await run_in_threadpool(_measure, project, caller(request).actor)
        return RedirectResponse("/evidence", status_code=303)

    @router.get("/evidence/{framework}/{form}")
    def download_evidence(framework: Name, form: Form) -> Response:
        """A report as it was signed: a file to keep, not a page of the console."""
        content = newest_file(project, framework, form)
        headers = {"content-disposition": f'attachment; filename="{framework}.{form}"'}
        return Response(content, media_type=_TYPES[form], headers=headers)


def add_evidence_api(router: APIRouter, project: Project) -> None:
    """Add `/api/evidence`."""

    @router.get("/evidence")
    def list_evidence() -> Answer:
        """The newest report of each framework: when it was measured, and how many controls are in each state."""
        return Answer({"reports": [asdict(each) for each in newest(project)]})

    @router.post("/evidence")
    def measure(request: Request) -> Answer:
        """Queue a job that measures all frameworks; or return the one that waits or runs."""
        return Answer({"job": _measure(project, caller(request).actor).id})


def _measuring(project: Project) -> Job | None:
    waiting = project.jobs.find(handlers={_JOB}, statuses={*Status} - ENDED, limit=1)
    return waiting[0] if waiting else None


def _measure(project: Project, by: str) -> Job:
    return _measuring(project) or begin(project, _JOB, by=by)
