"""One Granian server on an address, until a signal says to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from granian.constants import HTTPModes

from mainspring.core.listening import listen
from mainspring.core.settings import Address, Tls
from mainspring.serving.http.embedded import Embedded


async def serve(
    app: object, address: Address, *, tls: Tls | None = None, started: Callable[[], None] | None = None
) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT; requests under way are finished.

    Args:
        tls: Files that `security.tls.check` has found good.
        started: Called once requests are answered.

    Raises:
        Conflict: The address is taken.
    """
    listener = listen(address, "control")
    server = Embedded(app, listener, interface="asgi", http=HTTPModes.auto, tls=tls)
    listener.close()  # the server has its own by now
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
