"""TLS that tells the other side why a handshake failed.

asyncio closes the connection first, so a caller without the certificate that is wanted would see it cut off, and
nothing else. The alert (RFC 8446, 6.2) is there already, in what OpenSSL has to send.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

PEER: ContextVar[socket.socket] = ContextVar("peer")  # whose connection is made in this context


class _Telling(ssl.SSLObject):
    """Of its handshake's failure the peer is told."""

    peer: socket.socket | None = None
    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self.peer is not None:
                with suppress(OSError):  # it does not block, and whoever does not take it need not be told
                    self.peer.send(self.outgoing.read())
            raise


class TellingContext(ssl.SSLContext):
    """For connections that are made in a context that has a `PEER`."""

    sslobject_class = _Telling

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **named: Any) -> Any:
        made: Any = super().wrap_bio(incoming, outgoing, *arguments, **named)
        made.peer, made.outgoing = PEER.get(None), outgoing
        return made
