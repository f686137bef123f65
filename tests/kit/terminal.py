"""A command in a terminal of a certain width: what somebody sees of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

from kit import prefork

_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def in_a_terminal(columns: int, folder: Path, *arguments: str, code: int = 0) -> list[str]:
    """Return the lines that `mainspring` leaves in a terminal, without colours and the spaces at their ends.

    Args:
        code: What it exits with.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [prefork.programs() / "mainspring", *arguments]
    with subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        said = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert process.returncode == code, said
    return [line.rpartition("\r")[2].rstrip() for line in _STYLE.sub("", said.decode()).split("\r\n")]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""
