"""Ranks of this machine, and how they are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Unavailable
from mainspring.core.files import write_atomic
from mainspring.training.distributed.asking import MACHINES_LOG, MachineProcess
from mainspring.training.distributed.ports import OWNER

_START_S = 300.0  # to import PyTorch, which may lie on a slow disk
_ANSWER_S = 60.0


class OwnRanks:
    """Ranks of this machine. They end with this process, however it ends.

    Args:
        entry: Module whose `work(request, tell)` each rank calls.
        folder: Folder of the job, with the request.
        run: Id of the run.
    """

    def __init__(self, entry: str, folder: Path, run: str, processes: int) -> None:
        self._log = folder / MACHINES_LOG
        write_atomic(folder / OWNER, run.encode())
        self._within_s = _START_S
        self._process = MachineProcess(entry, folder, run, max(1, usable_cores() // processes))

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; see `training.distributed.machine`.

        Raises:
            Unavailable: The process has ended, or hangs.
        """
        text = self._process.answer(json.dumps(request), self._within_s)
        if not text:
            raise Unavailable(
                "The process that watches this machine's ranks does not answer.", fix=f"read {self._log}."
            )
        self._within_s = _ANSWER_S
        answer: dict[str, Any] = json.loads(text)
        return answer

    def close(self) -> None:
        """End the ranks."""
        self._process.close()
