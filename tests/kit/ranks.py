"""Processes of one training, as torchrun would start them, forked from one that has imported PyTorch already."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from kit import prefork
from kit.waiting import free_port


def fork(size: int, folder: Path, work: Callable[[], None]) -> None:
    """Do `work` in `size` processes that know their ranks, and wait; what a rank prints is in `FOLDER/rank-N.log`.

    Each has one thread, as the tests share a machine. The status of the first that fails is this process's.
    """
    from mainspring.training.distributed.ranks import end_with_parent_process

    every = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            end_with_parent_process()
            os.environ.update({**every, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            os._exit(_worked(folder / f"rank-{rank}.log", work))
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(next((each for each in statuses if each), 0))


def _worked(log: Path, work: Callable[[], None]) -> int:
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    return 0


def run(
    script: Path, size: int, folder: Path, arguments: Sequence[str], within_s: float = 180
) -> tuple[int, list[str]]:
    """Run `SCRIPT SIZE FOLDER ARGUMENTS`, which calls `fork`; return its exit status and what each rank printed."""
    command = prefork.script(script, size, folder, *arguments, imports="torch")
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            status = process.wait(within_s)
        finally:
            process.kill()  # the ranks end with it
    return status, [(folder / f"rank-{rank}.log").read_text() for rank in range(size)]
