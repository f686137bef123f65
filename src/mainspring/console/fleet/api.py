"""JSON API of the fleet, and the route to which devices upload. The latter checks the device's own signature."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer, answers
from mainspring.core.errors import MainspringError
from mainspring.operations.edge.fleet import DeviceReport, FleetReport, device, devices, status, take_records
from mainspring.project import Project
from mainspring.security.refused import Refusals

SIGNATURE = "x-mainspring-signature"
Word = Annotated[str | None, Query(max_length=128)]


def add_fleet_api(router: APIRouter, project: Project) -> None:
    """Add the routes under `/edge`."""
    refusals = Refusals(project.audit, project.wall, action="edge.refused", resource="console")
    router.add_event_handler("shutdown", refusals.flush)

    @router.get("/edge/fleet")
    @answers(fleet=FleetReport)
    def show_fleet() -> Answer:
        """Counts of conditions and versions, rollouts, releases, and what was refused."""
        return Answer({"fleet": status(project)})

    @router.get("/edge/devices")
    @answers(devices=list[DeviceReport])
    def list_devices(condition: Word = None, package: Word = None) -> Answer:
        """Devices by id."""
        return Answer({"devices": devices(project, condition=condition, package=package)})

    @router.get("/edge/devices/{device_id}")
    @answers(device=DeviceReport)
    def show_device(device_id: str) -> Answer:
        """One device."""
        return Answer({"device": device(project, device_id)})

    @router.post("/edge/records/{device_id}")
    @answers(until=int, taken=int, refused=int)
    async def take(request: Request, device_id: str) -> Answer:
        """Take what a device predicted. The body is signed by the device's key."""
        body = await request.body()
        address = request.client.host if request.client else ""
        return Answer(await run_in_threadpool(_taken, device_id, body, request.headers.get(SIGNATURE, ""), address))

    def _taken(device_id: str, body: bytes, signature: str, address: str) -> dict[str, int]:
        try:
            done = take_records(project, device_id, body, signature)
        except MainspringError as error:
            refusals.add(address, type(error).__name__.lower())
            raise
        return {"until": done.until, "taken": done.taken, "refused": done.refused}
