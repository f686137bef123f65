"""The gateway as a process: one Granian server on this event loop, and a clean end at SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from granian.constants import HTTPModes
from granian.server.embed import Server

from mainspring.core.listening import check_free
from mainspring.core.settings import Address
from mainspring.serving.gateway import Gateway

_BACKLOG = 1024


async def serve(
    gateway: Gateway,
    address: Address,
    *,
    stop: asyncio.Event | None = None,
    started: Callable[[], None] | None = None,
    drain_s: float = 10.0,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then answer what is in flight, for up to `drain_s`, and return.

    Args:
        started: Called once the socket listens.

    Raises:
        Conflict: The address is taken.
    """
    check_free(address, "gateway")
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(
        gateway,
        address=address.host,
        port=address.port,
        interface="rsgi",
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        log_enabled=False,
        log_access=False,
    )
    gateway.start()
    serving = loop.create_task(server.serve())
    stopping = loop.create_task(stop.wait())
    try:
        if started is not None:
            loop.call_soon(started)
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            await _drain(gateway, drain_s)
            server.stop()
        await serving
    finally:
        stopping.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await gateway.stop()


async def _drain(gateway: Gateway, drain_s: float) -> None:
    """Wait until nothing is in flight. Connections are closed with their next reply meanwhile."""
    gateway.drain()
    deadline = asyncio.get_running_loop().time() + drain_s
    await asyncio.sleep(0.05)
    while gateway.in_flight and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.005)
