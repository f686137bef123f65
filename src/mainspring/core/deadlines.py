"""A limit to the whole of a conversation over a socket, whose own time-out is of each read alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def closing_after(connection: socket.socket, within_s: float) -> Iterator[None]:
    """Shut the connection down after `within_s` seconds unless the block ends before: its reads then fail."""

    def shut() -> None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(within_s, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
