"""Calls of tools by language models that wait for a person: their page, the buttons that decide them, and the API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Body, answers
from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller, confirmed
from mainspring.console.paging import Begin, paged
from mainspring.console.render import page
from mainspring.core.errors import NotFound
from mainspring.core.ids import check_id
from mainspring.llm.held_calls import HeldCall
from mainspring.operations.held_calls import decide, held_calls
from mainspring.project import Project
from mainspring.security.model import Principal

ACTIONS = {"approve": True, "deny": False}
STATES = {"waiting": "drifted", "approved": "live", "denied": "alert", "used": "fresh"}  # -> style of its mark
_SHOWN = 100


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """Request to decide a call."""

    reason: str = ""


def add_held_call_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/held-calls`."""

    @router.get("/held-calls")
    def show_calls(request: Request, begin: Begin = 0) -> Response:
        who = caller(request).principal
        waiting = paged(held_calls(project, principal=who), begin)
        decided = [each for each in held_calls(project, all_=True, principal=who) if each.status != "waiting"]
        content: dict[str, object] = {"waiting": waiting, "decided": decided[::-1][:_SHOWN], "states": STATES}
        content["arguments"] = arguments_of
        return page("held_calls.html", {**frame(request), "section": "language models", **content})

    @router.post("/held-calls/{call}/{action}")
    async def decide_call(request: Request, call: str, action: str) -> Response:
        fields = await confirmed(request)
        reason, who = fields.get("reason", ""), caller(request).principal
        await run_in_threadpool(decided, project, call, action, who, reason)
        return RedirectResponse("/held-calls", status_code=303)


def add_held_call_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/held-calls`."""

    @router.get("/held-calls")
    @answers(calls=list[HeldCall])
    def list_calls(request: Request, all: bool = False) -> Answer:
        """Calls of tools that wait, or `all` of the last 30 days, of language models for which the caller decides."""
        return Answer({"calls": held_calls(project, all_=all, principal=caller(request).principal)})

    @router.post("/held-calls/{call}/{action}")
    @answers(HeldCall)
    async def decide_call(
        request: Request, call: str, action: str, asked: Annotated[Decision, Depends(Body(Decision))]
    ) -> Answer:
        """Approve a call, so that its caller may make it once within a day, or deny it."""
        who = caller(request).principal
        return Answer(await run_in_threadpool(decided, project, call, action, who, asked.reason))


def arguments_of(call: HeldCall) -> dict[str, str]:
    """Return a call's arguments by name, each as text: a text as it is, all else as JSON."""
    found = msgspec.json.decode(call.arguments)
    named = found if isinstance(found, dict) else {"": found} if found is not None else {}
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in named.items()
    }


def decided(project: Project, call: str, action: str, principal: Principal, reason: str) -> HeldCall:
    """Approve or deny a call on behalf of a caller.

    Raises:
        NotFound: There is no such call or action.
        Conflict: It does not wait any more.
        Denied: The caller may not, or has to be another person.
    """
    if action not in ACTIONS:
        raise NotFound(f"There is no action {action!r}.", fix=f"use one of {', '.join(ACTIONS)}.")
    return decide(project, check_id(call, "held call"), approve=ACTIONS[action], reason=reason, principal=principal)
