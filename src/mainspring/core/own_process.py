"""Messages between a process and a child that runs code apart from it: MessagePack after a length of eight bytes."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgspec

_LENGTH = struct.Struct("<Q")


def python_path() -> str:
    """Return this process's module path, as `PYTHONPATH` of a child in another folder."""
    return os.pathsep.join(str(Path(each).absolute()) for each in sys.path if each)


def send(connection: socket.socket, message: msgspec.Struct) -> None:
    """Send a message after its length."""
    content = msgspec.msgpack.encode(message)
    connection.sendall(_LENGTH.pack(len(content)))
    connection.sendall(content)


def receive(connection: socket.socket, within_s: float | None = None, most: int = 1 << 34) -> bytearray:
    """Return the next message.

    Raises:
        EOFError: The other side is gone, or announces more than `most` bytes.
        TimeoutError: The message is not whole after `within_s` seconds.
    """
    until = None if within_s is None else time.monotonic() + within_s
    (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, until))
    if size > most:
        raise EOFError
    return _exactly(connection, size, until)


def _exactly(connection: socket.socket, size: int, until: float | None) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while view:
        if until is not None:
            connection.settimeout(max(0.001, until - time.monotonic()))
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return content


def kill(child: subprocess.Popen[bytes], connection: socket.socket) -> None:
    """End a process, and close the connection to it."""
    child.kill()
    child.wait()
    connection.close()


def end_with_parent(descriptor: int) -> None:
    """End this process once the other side of its connection is gone. Run it in a thread."""
    hung_up = select.poll()
    hung_up.register(descriptor, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    while not hung_up.poll():
        pass
    os._exit(0)
