"""One Granian server on an address, until a signal says to stop."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable

from granian.server.embed import Server

from mainspring.core.errors import Conflict
from mainspring.core.settings import Address


def check_free(address: Address) -> None:
    """Return if nobody listens on `address`: Granian shares ports (SO_REUSEPORT), so two would answer by turns.

    Raises:
        Conflict: Somebody does, or the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise
            raise Conflict(
                f"Cannot listen on {address.host}:{address.port}: {error.strerror}.",
                fix="stop what uses it, or choose another address under [control] in mainspring.toml.",
            ) from error


async def serve(app: object, address: Address, *, started: Callable[[], None] | None = None) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT; requests under way are finished.

    Args:
        started: Called once requests are answered.

    Raises:
        Conflict: The address is taken.
    """
    check_free(address)
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
