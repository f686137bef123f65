"""Bytes of a rank's connection with the store, carried over a connection that is authenticated and encrypted.

PyTorch's store admits everybody who reaches its port, so it listens on the loopback interface of machine 0 alone.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

_PIECE = 1 << 16
_PAUSE_S = 0.1


def connections(listening: socket.socket) -> Iterator[socket.socket]:
    """Yield what connects to a listening socket, until that is closed or shut down."""
    while True:
        try:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # this connection's, or of a process with too many files: others will come
            if not _listens(listening):
                return
            time.sleep(_PAUSE_S)
            continue
        yield connection


def _listens(listening: socket.socket) -> bool:
    try:
        return bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def carry(secure: ssl.SSLSocket, plain: socket.socket, begun: bytes = b"") -> None:
    """Copy bytes in both directions until one end closes, then close both.

    Args:
        begun: Bytes for the plain end that were read from the secure one already.
    """
    with suppress(OSError), secure, plain:
        ready = select.poll()  # `select` takes no number of a file above 1,023
        for each in (secure, plain):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else questions and answers wait 40 ms each
            each.setblocking(False)  # a record may be TLS's own, after which a call would wait for data
            ready.register(each, select.POLLIN)
        _send(plain, begun)
        ends: dict[int, tuple[socket.socket, socket.socket]] = {
            secure.fileno(): (secure, plain), plain.fileno(): (plain, secure)
        }  # fmt: skip
        while True:
            for number in [secure.fileno()] if secure.pending() else [number for number, _ in ready.poll()]:
                source, other = ends[number]
                try:
                    piece = source.recv(_PIECE)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    continue
                if not piece:
                    return
                _send(other, piece)


def _send(end: socket.socket, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[end.send(rest) :]
        except ssl.SSLWantReadError:
            _wait(end, select.POLLIN)
        except (ssl.SSLWantWriteError, BlockingIOError):
            _wait(end, select.POLLOUT)


def _wait(end: socket.socket, event: int) -> None:
    ready = select.poll()
    ready.register(end, event)
    ready.poll()


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
        for plain in connections(self._listening):
            threading.Thread(target=self._carry, args=(plain,), name="store-tunnel", daemon=True).start()

    def _carry(self, plain: socket.socket) -> None:
        with suppress(OSError), plain:
            carry(self._connect(), plain)

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
