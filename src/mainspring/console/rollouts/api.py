"""JSON API of rollouts: the content of their pages, and the interventions."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Body, answers
from mainspring.console.endpoints.api import Id, Limit
from mainspring.console.guard import caller
from mainspring.console.rollouts.listing import SHOWN, find_rollout, rollout_list, rollout_page
from mainspring.console.rollouts.pages import intervened
from mainspring.console.rollouts.words import why
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.delivery.rollout.model import Look, RolloutState
from mainspring.delivery.rollout.plan_in_words import planned
from mainspring.project import Project

MaybeId = Annotated[str, Query(pattern=f"^({ID_PATTERN})?$")]
Text = Annotated[str, Query(max_length=200)]
After = Annotated[int, Query(ge=0, le=10**9)]


class Intervention(msgspec.Struct, forbid_unknown_fields=True):
    """Request to end a rollout, or to promote its candidate."""

    reason: str = ""


def add_rollout_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/rollouts`."""

    @router.get("/rollouts")
    def list_rollouts(endpoint: MaybeId = "", before: Text = "", limit: Limit = SHOWN) -> Answer:
        """Live rollouts, and ended ones, newest first; `next` is the `before` of the next page."""
        found = rollout_list(project, endpoint=endpoint, before=before, limit=limit)
        live, ended = ([_fields(each) for each in states] for states in (found.live, found.ended))
        return Answer({"live": live, "ended": ended, "next": found.next or None})

    @router.get("/rollouts/{rollout_id}")
    def show_rollout(rollout_id: Id) -> Answer:
        """One rollout: its plan in words, the newest reading of each metric, each decision with its reasons."""
        view = rollout_page(project, check_id(rollout_id, "rollout"))
        metrics = [
            {
                "reading": each.reading,
                "goal": each.goal,
                "state": each.word,
                "sentence": each.sentence,
                "strength": each.strength,
            }
            for each in view.metrics
        ]
        decisions = [{"look": look, "why": why(look, view.state)} for look in view.decisions]
        return Answer(
            {
                "rollout": _fields(view.state),
                "planned": planned(view.state.plan),
                "breached_from_e_value": view.limit,
                "metrics": metrics,
                "decisions": decisions,
                "events": view.events,
            }
        )

    @router.get("/rollouts/{rollout_id}/looks")
    @answers(looks=list[Look])
    def list_looks(rollout_id: Id, after: After = 0, limit: Limit = 100) -> Answer:
        """The looks of a rollout with a number above `after`, oldest first, with all their numbers."""
        state = find_rollout(project, check_id(rollout_id, "rollout"))
        return Answer({"looks": project.rollouts.looks(state.id, after=after, limit=limit)})

    @router.post("/rollouts/{rollout_id}/{action}")
    async def intervene(
        request: Request, rollout_id: Id, action: str, asked: Annotated[Intervention, Depends(Body(Intervention))]
    ) -> Answer:
        """End a live rollout by `stop` or `rollback`, or `promote` its candidate. The body is `{"reason"}`."""
        made = await run_in_threadpool(intervened, project, rollout_id, action, caller(request).actor, asked.reason)
        return Answer({"rollout": _fields(made)})


def _fields(state: RolloutState) -> dict[str, Any]:
    """Return a rollout without the salt, which tells which unit is in which arm, and without its raw evidence."""
    told = {name: getattr(state, name) for name in state.__struct_fields__ if name not in ("salt", "evidence")}
    return {**told, "requests": {"candidate": state.evidence.candidate, "control": state.evidence.control}}
