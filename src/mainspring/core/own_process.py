"""A child that runs code apart from its parent, and their messages: MessagePack after a length of eight bytes."""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import msgspec

from mainspring.core.sandbox import Confinement

_BEGINNING = "mainspring.core.confined"
_LENGTH = struct.Struct("<Q")
_AT_ONCE = 64 << 20  # bytes that are reserved for a message before they come
_MINUTE_S, _MOST_LINES, _LONGEST_LINE = 60.0, 100, 2_000

_log = logging.getLogger(__name__)


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
    content = bytearray(min(size, _AT_ONCE))  # grows as bytes come: who announces many need not have them
    count = 0
    while count < size:
        if count == len(content):
            content += bytes(min(size - count, count))
        if until is not None:
            connection.settimeout(max(0.001, until - time.monotonic()))
        with memoryview(content) as view:
            got = connection.recv_into(view[count:])
        if not got:
            raise EOFError
        count += got
    return content


class Child:
    """A process that answers messages. It ends with `stop`, with this object, and with this process.

    Args:
        name: Whose lines are logged: what the process writes to its standard error, as far as that is little.
        module: Its `main` gets the connection; see `core.confined`.
        environment: Its whole environment.
        confinement: What it may reach.
        most: Largest answer, bytes.
    """

    def __init__(
        self, name: str, module: str, environment: Mapping[str, str], confinement: Confinement, *, most: int = 1 << 30
    ) -> None:
        self._name = name
        self._module = module
        self._environment = environment
        self._confinement = confinement
        self._most = most
        self._connection: socket.socket | None = None
        self._end: Callable[[], object] = lambda: None

    @property
    def runs(self) -> bool:
        return self._connection is not None

    def start(self, load: msgspec.Struct, within_s: float) -> bytearray:
        """Start the process and send its first message; return the answer. Raises as `ask` does.

        Raises:
            Unavailable: The confinement is required, and this machine cannot do it.
        """
        self._confinement.check()
        ours, theirs = socket.socketpair()
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", _BEGINNING, str(theirs.fileno()), self._module],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # its own file would be the one that it can write to, and fill
                pass_fds=(theirs.fileno(),),
                env=dict(self._environment),
            )
        threading.Thread(target=_relay, args=(self._name, child.stderr), daemon=True).start()
        self._connection = ours
        self._end = weakref.finalize(self, _kill, child, ours)
        ours.settimeout(within_s)
        try:
            send(ours, self._confinement)
        except OSError:
            self.stop()
            raise
        return self.ask(load, within_s)

    def ask(self, message: msgspec.Struct, within_s: float) -> bytearray:
        """Send a message and return the answer. After an error the process has ended.

        Raises:
            EOFError: It ended, does not run, or answers too many bytes.
            OSError: It ended; as TimeoutError, it took too long.
        """
        connection = self._connection
        if connection is None:
            raise EOFError
        connection.settimeout(within_s)
        try:
            send(connection, message)
            return receive(connection, within_s, self._most)
        except (OSError, EOFError):
            self.stop()
            raise

    def stop(self) -> None:
        """End the process."""
        self._connection = None
        self._end()


def _relay(name: str, lines: IO[bytes]) -> None:
    """Log lines until their end, at most `_MOST_LINES` a minute; the others are counted."""
    since, left, dropped = time.monotonic(), _MOST_LINES, 0
    with lines:
        while line := lines.readline(_LONGEST_LINE):
            if time.monotonic() - since > _MINUTE_S:
                since, left = time.monotonic(), _MOST_LINES
            if left:
                text = line.decode(errors="replace").rstrip()
                _log.warning("%s: %s%s", name, text, f" ({dropped} lines before it were dropped)" if dropped else "")
                left, dropped = left - 1, 0
            else:
                dropped += 1


def _kill(child: subprocess.Popen[bytes], connection: socket.socket) -> None:
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
