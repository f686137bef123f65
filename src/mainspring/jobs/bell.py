"""Bell of a worker: a named pipe that processes of its machine write to when they have queued a job."""

from __future__ import annotations

import os
import select
import stat
from contextlib import suppress
from pathlib import Path

_NAME = "jobs.bell"


def ring(state: Path) -> None:
    """Wake the worker of a state folder, if there is one."""
    with suppress(OSError):  # no worker has opened it, or it is full: then the worker wakes in any case
        pipe = os.open(state / _NAME, os.O_WRONLY | os.O_NONBLOCK)
        try:
            if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                os.write(pipe, b".")
        finally:
            os.close(pipe)


class Bell:
    """The worker's end. Without it, as where a file system has no pipes, a worker finds jobs when it looks again."""

    def __init__(self, state: Path) -> None:
        self._path = state / _NAME
        self._pipe: int | None = None

    def __enter__(self) -> Bell:
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            os.mkfifo(self._path, 0o600)
            self._pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)  # with a writer it does not end when one does
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipe is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._pipe)

    def wait(self, longest_s: float) -> bool:
        """Return whether it was rung, now or since the last call; wait for it so long."""
        pipes = [] if self._pipe is None else [self._pipe]
        if not select.select(pipes, [], [], longest_s)[0]:
            return False
        with suppress(BlockingIOError):
            os.read(pipes[0], 1 << 16)
        return True
