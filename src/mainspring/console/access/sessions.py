"""Sessions of people who signed in: the page, and the same over the API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Body, Json, answers
from mainspring.console.endpoints.api import Id
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller, confirmed
from mainspring.console.permissions import may
from mainspring.console.render import page
from mainspring.operations.sessions import OpenSession, end_session, open_sessions
from mainspring.project import Project
from mainspring.security.model import PROJECT, Action


class Ended(msgspec.Struct, forbid_unknown_fields=True):
    """Request to end a session."""

    reason: str = ""


def add_session_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/sessions`."""

    @router.get("/sessions")
    def show_sessions(request: Request) -> Response:
        known = caller(request)
        content = {
            "rows": open_sessions(project),
            "may_end": may(request, project, Action.SESSIONS_END, PROJECT),
            "own": "" if known.session is None else known.session.id,
        }
        return page("sessions.html", {**frame(request), "section": "access", **content})

    @router.post("/sessions/{session_id}/end")
    async def end(request: Request, session_id: Id) -> Response:
        fields = await confirmed(request)
        by = caller(request).actor
        await run_in_threadpool(lambda: end_session(project, session_id, fields.get("reason", ""), who=by))
        return RedirectResponse("/sessions", status_code=303)


def add_session_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/api/sessions`."""

    @router.get("/sessions")
    @answers(sessions=list[OpenSession])
    def list_sessions() -> Answer:
        """Open sessions of people who signed in at the identity provider."""
        return Answer({"sessions": open_sessions(project)})

    @router.post("/sessions/{session_id}/end")
    async def end(request: Request, session_id: Id, asked: Annotated[Ended, Depends(Body(Ended))]) -> Json:
        """End a session, with `{"reason"}`."""
        by = caller(request).actor
        ended = await run_in_threadpool(lambda: end_session(project, session_id, asked.reason, who=by))
        return Json({"id": ended.id, "ended": True})
