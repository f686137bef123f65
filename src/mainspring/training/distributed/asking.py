"""Side of a machine's process that asks it; see `machine`."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import IO

from mainspring.core.environment import for_child
from mainspring.core.own_process import python_path

MACHINES_LOG = "machines.log"


class MachineProcess:
    """A process that has the ranks of its machine. It ends with this one.

    Args:
        owner: Content of the job's file `OWNER`; with another one the process ends.
        threads: PyTorch's threads in each rank.
        at: Folder in which it works, where there is such a folder; by default that of this process.
    """

    def __init__(self, entry: str, folder: Path, owner: str, threads: int, at: Path | None = None) -> None:
        hold, self._held = os.pipe()
        asked, asking = os.pipe()
        answered, answering = os.pipe()
        command = [sys.executable, "-m", "mainspring.processes.child", str(hold)]
        command += ["mainspring.training.distributed.machine", entry, str(folder), owner, str(threads)]
        log = os.open(folder / MACHINES_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.process = subprocess.Popen(
            [*command, str(asked), str(answering)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=(hold, asked, answering), start_new_session=True,
            cwd=at if at is not None and at.is_dir() else None,
            env=for_child({"PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}),
        )  # fmt: skip
        for inherited in (hold, asked, answering, log):
            os.close(inherited)
        self._requests: IO[bytes] = os.fdopen(asking, "wb", 0)
        self._answers: IO[bytes] = os.fdopen(answered, "rb")

    def answer(self, request: str, within_s: float | None = None) -> str:
        """Return the answer to a request, both JSON; an empty text if the process has ended, or gives none in time."""
        try:
            self._requests.write(request.encode() + b"\n")
            ready = select.select([self._answers], [], [], within_s)[0]  # there is never more than one answer
            told = self._answers.readline() if ready else b""
        except OSError:
            return ""
        return told.decode() if told.endswith(b"\n") else ""

    def close(self) -> None:
        """End the process and its ranks."""
        self.process.kill()
        self.process.wait()
        self._requests.close()
        self._answers.close()
        os.close(self._held)
