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

_COUNT = struct.Struct("!i")


def main(address: str) -> None:
    """Do what this program's name and arguments say; end as that ends."""
    arguments = sys.argv[1:]
    if sys.argv[0].rpartition("/")[2] == "mainspring":
        arguments = ["-m", "mainspring", *arguments]
    elif arguments[:1] != ["-c"]:
        _become(arguments)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        said = json.dumps([arguments, os.path.realpath("."), dict(os.environ)]).encode()
        socket.send_fds(line, [_COUNT.pack(len(said))], [0, 1, 2])
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


def _become(arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, *arguments])


def _number(line: socket.socket) -> int:
    (number,) = _COUNT.unpack(line.recv(_COUNT.size, socket.MSG_WAITALL))
    return int(number)
