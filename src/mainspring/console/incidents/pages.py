"""The pages of incidents, and the buttons by which people own, silence, judge and close one."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mainspring.console.features.pages import Frame
from mainspring.console.guard import caller, confirmed
from mainspring.console.incidents.api import Intervention, MaybeId, changed
from mainspring.console.incidents.listing import STATES, incident_list, incident_page
from mainspring.console.permissions import may, seen_endpoints
from mainspring.console.render import page
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.monitoring.incidents.model import VERDICTS
from mainspring.project import Project
from mainspring.security.model import Action

Before = Annotated[str, Query(max_length=80)]


def add_incident_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/incidents`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        incident = request.path_params.get("incident", "")
        may_manage = may(request, project, Action.INCIDENT_WRITE, f"incident/{incident}")
        shared = {"section": "incidents", "states": STATES, "verdicts": VERDICTS, "may_manage": may_manage}
        return {**frame(request), **shared, **content}

    @router.get("/incidents")
    def show_incidents(request: Request, endpoint: MaybeId = "", before: Before = "") -> Response:
        found = incident_list(project, endpoint, before=_position(before))
        found = replace(found, endpoints=tuple(seen_endpoints(request, project, found.endpoints)))
        return page("incidents.html", framed(request, found=found))

    @router.get("/incidents/{incident}")
    def show_incident(request: Request, incident: str) -> Response:
        view = incident_page(project, check_id(incident, "incident"))
        return page("incident.html", framed(request, view=view))

    @router.post("/incidents/{incident}/{action}")
    async def intervene(request: Request, incident: str, action: str) -> Response:
        fields = await confirmed(request)
        asked = Intervention(
            reason=fields.get("reason", ""),
            owner=fields.get("owner") or None,
            until=fields.get("until", ""),
            verdict=fields.get("verdict", ""),
        )
        by = caller(request).actor
        await run_in_threadpool(changed, project, check_id(incident, "incident"), action, asked, by)
        return RedirectResponse(f"/incidents/{incident}", status_code=303)


def _position(text: str) -> tuple[int, str] | None:
    """Return the position in the list that an address names."""
    if not text:
        return None
    at, _, last = text.partition(":")
    if not (at.isascii() and at.isdigit() and len(at) < 19):
        raise Invalid(f"{text!r} is no position in the list.", fix="follow the links of the page.")
    return int(at), check_id(last, "incident")
