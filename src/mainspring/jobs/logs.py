"""Log of a job: a file of bounded size that what a process writes is copied to."""

from __future__ import annotations

import os
import re
import select
import threading
from contextlib import suppress
from pathlib import Path

_LOOK_S = 0.2
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")  # of ECMA-48
_CONTROLS = dict.fromkeys([*range(9), *range(11, 13), *range(14, 32), *range(127, 160)])
_LOG_BYTES = 1 << 20  # of each of the two files of a log
_PIPE_BYTES = 1 << 16


class JobLog:
    """Copies what comes through a pipe to the log of the current job.

    Args:
        pipe: The reading end, which this closes when the last writer has closed its own.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._path: Path | None = None
        self._size = 0
        self._open = True
        self._changing = threading.Lock()
        self._thread = threading.Thread(target=self._copy, name="job-log", daemon=True)
        self._thread.start()

    def to(self, path: Path | None) -> None:
        """Copy to another file from now on, to none if it is `None`. All written until now goes to the one before."""
        with self._changing:
            left = _PIPE_BYTES  # a writer that goes on must not keep this
            while left > 0 and self._open and self._unread(0):
                left -= self._take()
            self._path = path
            if path is not None:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._size = path.stat().st_size if path.exists() else 0

    def finish(self) -> None:
        """Wait for the rest, but not for a process that was left behind and still could write."""
        self._thread.join(_LOOK_S)

    def _unread(self, within_ms: int | None) -> bool:
        polled = select.poll()  # one that two threads share refuses the second
        polled.register(self._pipe, select.POLLIN)
        return bool(polled.poll(within_ms))

    def _take(self) -> int:
        """Copy the next piece and return its bytes, 0 at the end. The caller holds the lock."""
        piece = os.read(self._pipe, _PIPE_BYTES)
        if not piece:
            self._open = False
        elif self._path is not None:
            self._size = append(self._path, piece, self._size)
        return len(piece)

    def _copy(self) -> None:
        while self._open:
            self._unread(None)
            with self._changing:
                if self._unread(0):
                    self._take()
        os.close(self._pipe)


def append(path: Path, piece: bytes, size: int) -> int:
    """Append to a log of `size` bytes and return its new size; what is full is put aside first."""
    if size + len(piece) > _LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
        size = 0
    with suppress(OSError):  # a full disk must not stop the job
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            log.write(piece)
        size += len(piece)
    return size


def append_last(path: Path, text: bytes) -> None:
    """Append the last part of a text, as much as a log may have."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    append(path, text[-_LOG_BYTES:], path.stat().st_size if path.exists() else 0)


def plain(text: str) -> str:
    """Return a log as a terminal shows it in the end: without colours, commands and text that was written over.

    What a step writes may come from anybody. A terminal must not obey it: it could write into a clipboard.
    """
    text = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")).translate(_CONTROLS)
