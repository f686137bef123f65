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
from collections.abc import Iterator

PROBE = "mainspring.operations.models.probing"  # confines itself and starts others, which a forked one cannot
COUNT = struct.Struct("!i")
TORCH = "-torch"  # at the end of the address where commands are forked from a process that has imported PyTorch
WORKER = "worker"  # of pytest-xdist: a program whose interpreter is the real one
_NAMES = (b"torch", b"mainspring.training.distributed")


def main(address: str) -> None:
    """Do what this program's name and arguments say; end as that ends."""
    arguments = sys.argv[1:]
    if sys.argv[0].rpartition("/")[2] == "mainspring":
        arguments = ["-m", "mainspring", *arguments]
    elif sys.argv[0].rpartition("/")[2] == WORKER:
        arguments = [WORKER, *arguments[arguments.index("-c") + 1 :]]
    elif arguments[:1] != ["-c"] and not _is_forked(arguments):
        _become(arguments)
    files = _open()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address_of(address, arguments, "."))
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


def address_of(address: str, arguments: list[str], folder: str | os.PathLike[str]) -> str:
    """Return where to ask for a command: arguments, or modules of the project in its folder, can name PyTorch."""
    words = " ".join(arguments).encode()
    named = arguments[0] == WORKER or any(each in words for each in _NAMES)
    return address + TORCH if named or any(_NAMES[0] in text for text in _modules(folder)) else address


def _modules(folder: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the text of each module in a folder, and in those right below it."""
    for path in (folder, *(each.path for each in os.scandir(folder) if each.is_dir() and each.name[0] != ".")):
        with contextlib.suppress(OSError), os.scandir(path) as found:
            for each in found:
                if each.name.endswith(".py"):
                    with open(each.path, "rb") as file:  # noqa: PTH123
                        yield file.read()


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
    if arguments[0] == WORKER:
        arguments = ["-u", "-c", *arguments[1:]]
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
