"""The route of webhooks. It is authenticated by the delivery's signature, not by a key or a session."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from mainspring.console.answers import Answer
from mainspring.core.errors import Conflict, Denied, MainspringError
from mainspring.core.ids import check_id
from mainspring.operations.pipelines.webhooks import deliver
from mainspring.project import Project
from mainspring.security.refused import Refusals


def add_webhook_api(router: APIRouter, project: Project) -> None:
    """Add the route under `/webhooks`."""
    refusals = Refusals(project.audit, project.wall, action="webhook.refused", resource="console")
    router.add_event_handler("shutdown", refusals.flush)

    @router.post("/webhooks/{name}")
    async def receive(name: str, request: Request) -> Answer:
        """Start the pipelines that name this webhook. The body is signed as GitHub or GitLab does."""
        body = await request.body()
        address = request.client.host if request.client else ""
        return Answer(await run_in_threadpool(_received, name, dict(request.headers), body, address))

    def _received(name: str, headers: dict[str, str], body: bytes, address: str) -> dict[str, Any]:
        try:
            jobs = deliver(project, check_id(name, "webhook"), headers, body)
        except MainspringError as error:
            reason = "signature or time" if isinstance(error, Denied) else type(error).__name__.lower()
            refusals.add(address, "came before" if isinstance(error, Conflict) else reason)
            raise
        return {"runs": [{"pipeline": job.handler.partition(":")[2], "id": job.id} for job in jobs]}
