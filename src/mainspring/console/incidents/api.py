"""JSON API of incidents: the list, one of them, and the interventions."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, Body, answers
from mainspring.console.endpoints.api import Id, Limit
from mainspring.console.guard import caller
from mainspring.core.errors import NotFound
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.operations.incidents import IncidentReport, close, end_shed, find, judge, listed, own, report, silence
from mainspring.project import Project

MaybeId = Annotated[str, Query(pattern=f"^({ID_PATTERN})?$")]
ACTIONS = ("own", "silence", "close", "verdict", "end-shed")


class Intervention(msgspec.Struct, forbid_unknown_fields=True):
    """Request to change an incident; each action uses its own fields."""

    reason: str = ""
    owner: str | None = None  # of own: by default the caller
    until: str = ""  # of silence: a duration or an instant
    verdict: str = ""  # of verdict


def add_incident_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/incidents`."""

    @router.get("/incidents")
    @answers(incidents=list[IncidentReport])
    def list_incidents(endpoint: MaybeId = "", ended: bool = False, limit: Limit = 100) -> Answer:
        """Open incidents, the most important first; with `ended` the closed ones after them."""
        return Answer({"incidents": listed(project, endpoint or None, ended=ended, limit=limit)})

    @router.get("/incidents/{incident_id}")
    @answers(incident=IncidentReport)
    def show_incident(incident_id: Id) -> Answer:
        """One incident with its symptoms, history, messages and actions."""
        return Answer({"incident": report(project, find(project, check_id(incident_id, "incident")))})

    @router.post("/incidents/{incident_id}/{action}")
    @answers(incident=IncidentReport)
    async def intervene(
        request: Request, incident_id: Id, action: str, asked: Annotated[Intervention, Depends(Body(Intervention))]
    ) -> Answer:
        """`own`, `silence`, `close`, `end-shed`, or set the `verdict` of an incident."""
        by = caller(request).actor
        made = await run_in_threadpool(changed, project, check_id(incident_id, "incident"), action, asked, by)
        return Answer({"incident": made})


def changed(project: Project, id: str, action: str, asked: Intervention, by: str) -> IncidentReport:
    """Carry out an action on an incident on behalf of a caller; return its report.

    Raises:
        NotFound: There is no such incident or action.
        Invalid: A field of the action is not valid, or the incident is closed.
    """
    if action == "own":
        made = own(project, id, asked.owner, by=by)
    elif action == "silence":
        made = silence(project, id, asked.until, reason=asked.reason, by=by)
    elif action == "close":
        made = close(project, id, reason=asked.reason, by=by)
    elif action == "verdict":
        made = judge(project, id, asked.verdict, reason=asked.reason, by=by)
    elif action == "end-shed":
        made = end_shed(project, id, reason=asked.reason, by=by)
    else:
        raise NotFound(f"There is no action {action!r}.", fix=f"use one of {', '.join(ACTIONS)}.")
    return report(project, made)
