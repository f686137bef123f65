"""Granian on this event loop, on a socket that we listen on: one that other processes may share.

Granian itself would bind the address with SO_REUSEPORT. Then every process has a queue of its own, and what waits in it
dies with the process; a stranger can join, too. So it is given a socket instead. It has no public way to take one:
`_init_shared_socket` is overridden, which tests/integration/test_workers.py watches over.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from mainspring.core.listening import BACKLOG
from mainspring.core.settings import Limits, Tls

_HOLDER: Any = SocketHolder  # its stub lacks the constructor


class Embedded(Server):  # type: ignore[misc]  # granian is not typed
    """A server to be awaited with `serve`, until `stop` is called; then connections are closed with their next reply,
    those without a request at once.

    Args:
        app: An RSGI or ASGI application.
        interface: Which of both, `rsgi` or `asgi`.
        listener: Listens already. It stays its owner's.
        tls: Files that `security.tls.check` has found good.
    """

    def __init__(
        self,
        app: object,
        listener: socket.socket,
        *,
        interface: str,
        http: HTTPModes = HTTPModes.http1,
        limits: Limits | None = None,
        tls: Tls | None = None,
    ) -> None:
        limits = limits or Limits()
        super().__init__(
            app,
            interface=interface,
            http=http,
            websockets=False,
            backlog=BACKLOG,
            backpressure=limits.connections,
            http1_settings=HTTP1Settings(
                header_read_timeout=max(1, limits.idle_us // 1000), max_buffer_size=limits.header_bytes
            ),
            log_enabled=False,
            log_access=False,
            ssl_cert=tls.cert if tls else None,
            ssl_key=tls.key if tls else None,
            ssl_ca=tls.client_ca if tls else None,
            ssl_client_verify=tls is not None and tls.client_ca is not None,
            ssl_protocol_min=SSLProtocols.tls12,
        )
        self._accepting = listener.dup().detach()  # Granian's own: it closes it

    def _init_shared_socket(self) -> None:
        self._shd = _HOLDER(self._accepting, False, BACKLOG)

    def refuse_more(self) -> None:
        """Accept no more connections and go on serving those there are. Only before `stop`."""
        # Granian stops accepting and serving at once only. So the number under which it holds the listener is given
        # to a socket that nobody connects to; the listener itself is whoever else's it is.
        with socket.create_server(("127.0.0.1", 0), backlog=1) as nobody:
            nobody.setblocking(False)
            os.dup2(nobody.fileno(), self._accepting, inheritable=False)
