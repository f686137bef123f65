"""gRPC health checking: liveness and readiness of this process.

Anybody may ask, and learns nothing else: endpoints are not services here (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from enum import IntEnum
from typing import Any

from mainspring.core.errors import NotFound
from mainspring.serving.grpc import wire
from mainspring.serving.plane.plane import DataPlane

LIVENESS = "liveness"  # what a service that must not be killed while it waits for its models is asked by
READINESS = ("", "readiness", wire.SERVICE)
MAX_WATCHES = 32  # at once: they need no key, and each holds one of the calls that may run
_LOOK_S = 0.5


class Status(IntEnum):
    """`HealthCheckResponse.ServingStatus`."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


def status_of_service(plane: DataPlane, service: str) -> Status:
    """Return the status of a service."""
    if service == LIVENESS:
        return Status.SERVING
    if service not in READINESS:
        return Status.SERVICE_UNKNOWN
    return Status.SERVING if plane.unready() is None else Status.NOT_SERVING


def check(plane: DataPlane, service: str) -> Any:
    """Return the reply to a `Check`.

    Raises:
        NotFound: There is no such service.
    """
    status = status_of_service(plane, service)
    if status is Status.SERVICE_UNKNOWN:
        raise NotFound(f"There is no service {service[:100]!r}.", fix=f"use '', 'readiness' or {LIVENESS!r}.")
    return wire.HealthResponse(status=status)


async def changes(ask: Callable[[], Status], *, stopping: asyncio.Event) -> AsyncIterator[Status]:
    """Yield the status now and whenever it has changed; the last time when `stopping` is set."""
    told: Status | None = None
    while True:
        found = ask()
        if found is not told:
            told = found
            yield found
        if stopping.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await stopping.wait()
