"""The program that a shell finds instead of `mainspring` and `python`: it has `prefork`'s server fork what is asked.

It imports little, so that it starts at once. What the server does not fork, it becomes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys

PROBE = "mainspring.operations.models.probing"  # confines itself and starts others, which a forked one cannot
COUNT = struct.Struct("!i")


def main(address: str) -> None:
    """Do what this program's name and arguments say; end as that ends."""
    arguments = sys.argv[1:]
    if sys.argv[0].rpartition("/")[2] == "mainspring":
        arguments = ["-m", "mainspring", *arguments]
    elif arguments[:1] != ["-c"] and not _is_forked(arguments):
        _become(arguments)
    files = _open()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        said = json.dumps([arguments, os.path.realpath("."), dict(os.environ), umask(), files]).encode()
        socket.send_fds(line, [COUNT.pack(len(said))], files)
        line.sendall(said)
        process = number(line)
        if not process:
            _become(arguments)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda which, _: os.kill(process, which))
        code = number(line)
    if code < 0:
        with contextlib.suppress(OSError):  # what cannot be caught
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _is_forked(arguments: list[str]) -> bool:
    return arguments[:1] == ["-m"] and arguments[1].split(".")[0] == "mainspring" and arguments[1] != PROBE


def umask() -> int:
    """Return what this process takes from the permissions of the files that it makes."""
    found = os.umask(0)
    os.umask(found)
    return found


def _open() -> list[int]:
    """Return the open files that this program has inherited."""
    found = []
    with os.scandir("/dev/fd") as folder:
        for each in folder:
            with contextlib.suppress(OSError):  # one was the folder's own
                if os.get_inheritable(int(each.name)):
                    found.append(int(each.name))
    return sorted(found)


def _become(arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, *arguments])


def number(line: socket.socket) -> int:
    """Return the next number of a connection with the server."""
    (found,) = COUNT.unpack(exactly(line, COUNT.size))
    return int(found)


def exactly(line: socket.socket, count: int) -> bytes:
    """Return the next `count` bytes of a connection with the server."""
    found = b""
    while len(found) < count:
        part = line.recv(count - len(found))
        assert part, "the server of forked commands is gone"
        found += part
    return found
