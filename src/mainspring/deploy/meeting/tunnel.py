"""Bytes of a rank's connection with the store, carried over a connection that is authenticated and encrypted.

PyTorch's store admits everybody who reaches its port, so it listens on the loopback interface of machine 0 alone.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

_PIECE = 1 << 16


def carry(secure: ssl.SSLSocket, plain: socket.socket, begun: bytes = b"") -> None:
    """Copy bytes in both directions until one end closes, then close both.

    Args:
        begun: Bytes for the plain end that were read from the secure one already.
    """
    ends: dict[socket.socket, socket.socket] = {secure: plain, plain: secure}
    with suppress(OSError), secure, plain:
        for each in ends:
            each.setblocking(False)  # a record may be TLS's own, after which a call would wait for data
        _send(plain, begun)
        while True:
            ready = [secure] if secure.pending() else select.select(list(ends), [], [])[0]
            for each in ready:
                try:
                    piece = each.recv(_PIECE)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    continue
                if not piece:
                    return
                _send(ends[each], piece)


def _send(end: socket.socket, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[end.send(rest) :]
        except ssl.SSLWantReadError:
            select.select([end], [], [])
        except (ssl.SSLWantWriteError, BlockingIOError):
            select.select([], [end], [])


class Entrance:
    """Port on the loopback interface of this machine, whose connections are carried to the store of machine 0.

    Args:
        connect: Returns a connection with machine 0 for one of them.
    """

    def __init__(self, connect: Callable[[], ssl.SSLSocket]) -> None:
        self._connect = connect
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, name="store-entrance", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                plain, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(plain,), name="store-tunnel", daemon=True).start()

    def _carry(self, plain: socket.socket) -> None:
        try:
            secure = self._connect()
        except OSError:
            plain.close()
            return
        carry(secure, plain)

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
