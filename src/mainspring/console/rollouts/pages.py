"""The pages of rollouts, and the buttons that end or promote one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller, confirmed
from mainspring.console.permissions import may
from mainspring.console.render import page
from mainspring.console.rollouts.listing import LOOKS, STATES, find_rollout, rollout_list, rollout_page
from mainspring.console.rollouts.words import DECISIONS, why
from mainspring.core.errors import Conflict, NotFound
from mainspring.core.ids import check_id
from mainspring.delivery.model import Promotion
from mainspring.delivery.rollout.model import RolloutState
from mainspring.delivery.rollout.plan_in_words import planned
from mainspring.operations.promote import expect_promoted
from mainspring.operations.rollout.interventions import end, promote
from mainspring.project import Project
from mainspring.security.model import Action

Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]
ACTIONS = ("stop", "rollback", "promote")


def add_rollout_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/rollouts`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        rollout = request.path_params.get("rollout", "")
        may_manage = may(request, project, Action.ENDPOINT_ROLLOUT, f"rollout/{rollout}")
        shared = {"section": "rollouts", "states": STATES, "decisions": DECISIONS, "may_manage": may_manage}
        return {**frame(request), **shared, **content}

    @router.get("/rollouts")
    def show_rollouts(request: Request, before: str = "") -> Response:
        return page("rollouts.html", framed(request, found=rollout_list(project, before=before)))

    @router.get("/rollouts/{rollout}")
    def show_rollout(request: Request, rollout: str, begin: Begin = 0) -> Response:
        view = rollout_page(project, check_id(rollout, "rollout"))
        newest = view.looks[::-1][begin : begin + LOOKS]
        content = {"view": view, "begin": begin, "newest": newest, "plan": planned(view.state.plan), "why": why}
        return page("rollout.html", framed(request, **content))

    @router.post("/rollouts/{rollout}/{action}")
    async def intervene(request: Request, rollout: str, action: str) -> Response:
        fields = await confirmed(request)
        await run_in_threadpool(intervened, project, rollout, action, caller(request).actor, fields.get("reason", ""))
        return RedirectResponse(f"/rollouts/{rollout}", status_code=303)


def intervened(project: Project, rollout: str, action: str, actor: str, reason: str) -> RolloutState:
    """Stop a live rollout, roll it back, or promote its candidate, on behalf of a caller; return its state.

    Raises:
        NotFound: There is no such rollout or action.
        Conflict: It has ended, or its candidate does not pass its gates.
    """
    if action not in ACTIONS:
        raise NotFound(f"There is no action {action!r}.", fix=f"use one of {', '.join(ACTIONS)}.")
    state = find_rollout(project, check_id(rollout, "rollout"))
    if not state.live:
        raise Conflict(f"The rollout {rollout} has ended: {state.status}.", fix="look at its page again.")
    if action != "promote":
        word = "stop" if action == "stop" else "roll back"
        return end(project, state.endpoint, word, reason=reason, by=actor, only=rollout)
    made = promote(project, state.endpoint, reason=reason, by=actor, only=rollout)
    if isinstance(made, Promotion):
        expect_promoted(made)
        return find_rollout(project, rollout)
    return made
