"""One Granian server on an address, until a signal says to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from granian.server.embed import Server

from mainspring.core.listening import check_free
from mainspring.core.settings import Address


async def serve(app: object, address: Address, *, started: Callable[[], None] | None = None) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT; requests under way are finished.

    Args:
        started: Called once requests are answered.

    Raises:
        Conflict: The address is taken.
    """
    check_free(address, "control")
    server = Server(
        app,
        address=address.host,
        port=address.port,
        interface="asgi",
        websockets=False,
        log_enabled=False,
        log_access=False,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    serving = loop.create_task(server.serve())
    try:
        if started is not None and await accepts(address, serving):
            started()
        await serving
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def accepts(address: Address, serving: asyncio.Task[None]) -> bool:
    """Wait until somebody can connect; return False if the server ended before that."""
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return True
    return False
