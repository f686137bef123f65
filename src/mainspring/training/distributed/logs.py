"""Output of ranks, of bounded size: its first part and its last one are kept, and what is between them is counted.

    rank-3.log     the first part
    rank-3.log.1   a line that says what is left out, if anything is
    rank-3.log.2   the last part but one
    rank-3.log.3   the last part

All attempts of a rank have one log.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

FIRST_BYTES = 1 << 19  # of a rank's log
LAST_BYTES = 1 << 19  # of each of its last two parts
_PIPE_BYTES = 1 << 20  # that a rank can print between two looks without waiting
_SHOWN_LINES, _SHOWN_BYTES = 10, 2000


class BoundedLog:
    """The files of one rank's output."""

    def __init__(self, path: Path, first: int = FIRST_BYTES, last: int = LAST_BYTES) -> None:
        self._path, self._first_bytes, self._last_bytes = path, first, last
        self._sizes = [0, 0, 0]  # of the first part, the last but one and the last
        self._lines = [0, 0, 0]
        self._left_out = [0, 0]  # lines, bytes

    def write(self, piece: bytes) -> None:
        """Append to the output."""
        room = self._first_bytes - self._sizes[0]
        if room > 0 and self._sizes[2] == 0:
            end = len(piece) if len(piece) <= room else piece.rfind(b"\n", 0, room) + 1 or room
            self._append(0, self._path, piece[:end])
            piece = piece[end:]
            if piece or self._left_out[1]:
                self._first_bytes = 0  # all else comes later
        while piece:
            room = self._last_bytes - self._sizes[2]
            end = len(piece) if len(piece) <= room else piece.rfind(b"\n", 0, max(0, room)) + 1
            if end == 0 and self._sizes[2]:  # a part ends with a line, if it can
                self._turn()
                continue
            self._append(2, _beside(self._path, 3), piece[: end or room])
            piece = piece[end or room :]

    def _append(self, part: int, path: Path, piece: bytes) -> None:
        written = 0
        with suppress(OSError):  # a full disk: the rank goes on
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                while written < len(piece):
                    written += os.write(file, piece[written:])
            finally:
                os.close(file)
        self._sizes[part] += written
        self._lines[part] += piece.count(b"\n", 0, written)
        self._leave_out(piece.count(b"\n", written), len(piece) - written)

    def _turn(self) -> None:
        """Begin the last part anew; the one before it is left out."""
        self._leave_out(self._lines[1], self._sizes[1])
        self._sizes[1:], self._lines[1:] = [self._sizes[2], 0], [self._lines[2], 0]
        with suppress(OSError):
            _beside(self._path, 3).replace(_beside(self._path, 2))

    def _leave_out(self, lines: int, size: int) -> None:
        if not size:
            return
        self._left_out = [self._left_out[0] + lines, self._left_out[1] + size]
        said = f"\n[... {self._left_out[0]:,} lines, {self._left_out[1]:,} bytes, are left out ...]\n"
        with suppress(OSError):
            _beside(self._path, 1).write_text(said)


class Outputs:
    """Pipes of the ranks that run, and the logs of all. Not for several threads.

    What a rank has printed and this process has not read yet, up to 1 MiB, is lost if this process is killed.
    """

    def __init__(self) -> None:
        self._logs: dict[Path, BoundedLog] = {}
        self._pipes: dict[int, Path] = {}  # by the end that is read

    def pipe(self, path: Path) -> int:
        """Return the end of a new pipe that a rank writes to, for its log at this path; the caller closes it."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        with suppress(OSError, AttributeError):  # not on every system, nor for every user
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._logs.setdefault(path, BoundedLog(path))
        self._pipes[read] = path
        return write

    def forget(self) -> None:
        """Close what another process, of which this one is a copy, reads."""
        for read in self._pipes:
            os.close(read)
        self._pipes = {}

    def read(self) -> None:
        """Append to the logs what ranks have printed since, at most 1 MiB of each."""
        for read, path in list(self._pipes.items()):
            with suppress(BlockingIOError):
                piece = os.read(read, _PIPE_BYTES)
                self._logs[path].write(piece)
                if not piece:
                    os.close(read)
                    del self._pipes[read]

    def close(self) -> None:
        """Read what ranks that have ended left, and close their pipes."""
        self.read()
        self.forget()


def logged(path: Path) -> bytes:
    """Return the log whose first part is at `path`, with a line where something is left out."""
    return b"".join(_content(each) for each in (path, *(_beside(path, number) for number in (1, 2, 3))))


def last_lines(path: Path) -> str:
    """Return the last lines of a log, indented; empty if there are none."""
    parts: Iterable[Path] = [_beside(path, 3), path]
    content = next(filter(None, (_content(each) for each in parts)), b"")[-_SHOWN_BYTES:]
    lines = content.decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_SHOWN_LINES:])


def said_last(told: Mapping[str, str]) -> str:
    """Return the sentence that shows the last lines of a rank's output, from what its agent told."""
    return f" The last lines that it printed:\n{told['printed']}" if told.get("printed") else ""


def _beside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _content(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""
