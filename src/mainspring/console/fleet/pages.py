"""The page of the fleet and the page of a device, read-only: rollouts are moved on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.features.pages import Frame
from mainspring.console.render import page
from mainspring.core.ids import check_id
from mainspring.deploy.fleet.model import Rollout
from mainspring.deploy.fleet.rings import Decision
from mainspring.operations.edge.fleet import DeviceReport, FleetReport, decision, device, devices, status
from mainspring.project import Project

# condition -> the style of its mark
CONDITIONS = {
    "healthy": "live",
    "trial": "plain",
    "updating": "plain",
    "behind": "drifted",
    "failing": "alert",
    "off": "plain",
    "never seen": "plain",
}
_ROWS = 200
_ORDER = ("failing", "behind", "trial", "updating", "off", "never seen", "healthy")
Condition = Annotated[str, Query(max_length=20)]


@dataclass(frozen=True, slots=True)
class FleetPage:
    """The fleet with its devices, those that need a person first, and each rollout with what its gates say."""

    fleet: FleetReport
    condition: str
    of: int
    rows: tuple[DeviceReport, ...]
    rollouts: tuple[tuple[Rollout, Decision | None], ...]


def fleet_page(project: Project, condition: str = "") -> FleetPage:
    """Return the page of the fleet; of one condition if one is named."""
    fleet = status(project)
    found = devices(project, condition=condition or None)
    found.sort(key=lambda each: (_ORDER.index(each.condition), not each.duplicate, each.id))
    rollouts = tuple((each, decision(project, each) if each.status == "running" else None) for each in fleet.rollouts)
    return FleetPage(fleet, condition, len(found), tuple(found[:_ROWS]), rollouts)


def add_fleet_pages(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add the routes under `/fleet`."""

    def framed(request: Request, **content: Any) -> dict[str, Any]:
        return {**frame(request), "section": "fleet", "conditions": CONDITIONS, **content}

    @router.get("/fleet")
    def show_fleet(request: Request, condition: Condition = "") -> Response:
        return page("fleet.html", framed(request, view=fleet_page(project, condition)))

    @router.get("/fleet/{device_id}")
    def show_device(request: Request, device_id: str) -> Response:
        found = device(project, check_id(device_id, "device"))
        return page("fleet_device.html", framed(request, each=found))
