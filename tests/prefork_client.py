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

CHILD = "mainspring.app.processes.child"
_COUNT = struct.Struct("!i")


def main(address: str) -> None:
    """Do what this program's name and arguments say; end as that ends."""
    arguments = sys.argv[1:]
    if sys.argv[0].rpartition("/")[2] == "mainspring":
        arguments = ["-m", "mainspring", *arguments]
    elif arguments[:1] != ["-c"] and arguments[:2] not in (["-m", "mainspring"], ["-m", CHILD]):
        _become(arguments)
    files = _open()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        said = json.dumps([arguments, os.path.realpath("."), dict(os.environ), files]).encode()
        socket.send_fds(line, [_COUNT.pack(len(said))], files)
        line.sendall(said)
        process = _number(line)
        if not process:
            _become(arguments)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(process, number))
        code = _number(line)
    if code < 0:
        with contextlib.suppress(OSError):  # what cannot be caught
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


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


def _number(line: socket.socket) -> int:
    (number,) = _COUNT.unpack(line.recv(_COUNT.size, socket.MSG_WAITALL))
    return int(number)
