"""The control plane's server on an address, until a signal says to stop."""

from __future__ import annotations

import asyncio
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from mainspring.core.listening import BACKLOG, listen
from mainspring.core.settings import Address, Tls

_PATIENCE_S = 10  # at the end, for requests that are under way


async def serve(
    app: Any,
    address: Address,
    *,
    tls: Tls | None = None,
    stop: asyncio.Event | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve an ASGI application until SIGTERM, SIGINT or `stop`; requests under way are finished.

    Args:
        tls: Files that `security.tls.check` has found good.
        started: Called once requests are answered.

    Raises:
        Conflict: The address is taken.
    """
    with listen(address, "control") as listener:
        server, stop, loop = _Server(_config(app, tls)), stop or asyncio.Event(), asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        for number in signals:
            loop.add_signal_handler(number, stop.set)
        serving = loop.create_task(server.serve(sockets=[listener]))
        stopping = loop.create_task(_stopped(server, stop))
        try:
            if started is not None and await _answers(server, serving):
                started()
            await serving
        finally:
            stopping.cancel()
            for number in signals:
                loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    """One that leaves signals to us: its own dies of them when it has ended well."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: Any, tls: Tls | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_PATIENCE_S,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=str(tls.client_ca) if tls and tls.client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca else ssl.CERT_NONE,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


async def _stopped(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


async def _answers(server: uvicorn.Server, serving: asyncio.Task[None]) -> bool:
    """Wait until requests are answered; return False if the server ended before that."""
    while not server.started:
        if serving.done():
            return False
        await asyncio.sleep(0.005)
    return True
