"""The gateway as a process: HTTP on this event loop, and a clean end at SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

from mainspring.core.listening import listen
from mainspring.core.settings import Address, Limits, Tls
from mainspring.serving.http.acceptor import Acceptor
from mainspring.serving.http.gateway import Gateway
from mainspring.serving.plane.slots import Slots

_PRELOAD_S = 20.0
_QUIET_S = 0.4
_POLL_S = 0.005
_STEERED_S = 0.1  # in which new connections are steered to the others

_log = logging.getLogger(__name__)


async def serve(
    gateway: Gateway,
    address: Address,
    *,
    listener: socket.socket | None = None,
    limits: Limits | None = None,
    tls: Tls | None = None,
    slots: Slots | None = None,
    stop: asyncio.Event | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then answer what is in flight, within the limits, and return.

    Nobody is answered before the routing table's bundles are loaded and warm; who connects until then waits. (Unless
    that takes very long, or the table cannot be read: then callers are told so.)

    Args:
        listener: Listens on the address already; this process lets go of it when it stops.
        slots: This process's place among others that listen there.
        started: Called once requests are answered.

    Raises:
        Conflict: The address is taken.
    """
    limits = limits or Limits()
    listener = listener or listen(address, "gateway")
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = loop.create_task(stop.wait())
    gateway.start()
    try:
        preloading = loop.create_task(gateway.preloaded())
        await asyncio.wait((preloading, stopping), timeout=_PRELOAD_S, return_when=asyncio.FIRST_COMPLETED)
        preloading.cancel()
        server = Acceptor(
            listener,
            gateway.handle,
            unreadable=gateway.refused,
            max_body_bytes=gateway.max_body_bytes,
            limits=limits,
            tls=tls,
        )
        gateway.metrics.connections = server.numbers
        server.start()
        if slots is not None:
            gateway.scrape = slots.scrape
            await slots.start(gateway.metrics.text, lambda: gateway.unready() is None)
        if started is not None:
            loop.call_soon(started)
        await stopping
        if slots is not None:
            await slots.stop()
            await asyncio.sleep(_STEERED_S)
        server.refuse_more()
        listener.close()
        await _end(gateway, server, limits.drain_us / 1e6)
    finally:
        listener.close()
        stopping.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if slots is not None:
            await slots.stop()
        await gateway.stop()


async def _end(gateway: Gateway, server: Acceptor, within_s: float) -> None:
    """Close each connection with its next reply, and the idle ones when none is asked on any more.

    A connection that is in use is not closed before its caller was told, since a request that is on its way to a
    closed connection is lost. So there must be quiet for a while first, where there is any connection.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    gateway.drain(within_s)
    server.ending = True
    answered, quiet_since = gateway.metrics.total(), loop.time()
    while loop.time() < min(deadline, quiet_since + _QUIET_S) and (gateway.in_flight or server.open):
        await asyncio.sleep(_POLL_S)
        if gateway.in_flight or gateway.metrics.total() != answered:
            answered, quiet_since = gateway.metrics.total(), loop.time()
    if not await server.close(max(0.1, deadline - loop.time())):  # somebody sends slower than we wait
        _log.warning("Connections were cut off: they were still open %g s after the stop signal.", within_s)
