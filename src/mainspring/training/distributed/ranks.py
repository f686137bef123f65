"""Ranks on this machine: processes that are forked from one which has imported PyTorch and touched no device."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch

from mainspring.core.environment import set_variable
from mainspring.training.distributed.ends import ERRORS, ORDERLY, End, end_of, keep_error
from mainspring.training.distributed.logs import Outputs
from mainspring.training.distributed.ports import BEATS, LOGS
from mainspring.training.loop.beats import Beat, read_beat
from mainspring.training.loop.signals import Interrupted

LOOK_S = 0.05
_STACK_S = 1.0  # for a rank that hangs to write its stack
_FRAMES = 12  # of a stack, the innermost


class Ranks:
    """Ranks of one training on this machine.

    Args:
        entry: Module whose `work(request, tell)` each rank calls.
        folder: Folder of the job, with the request.
        threads: PyTorch's threads in each rank.
        tell: Called in the first rank's process, with its stage and its share of the whole.
    """

    def __init__(self, entry: str, folder: Path, threads: int, tell: Callable[[str, float], None]) -> None:
        self._work = import_module(entry).work
        self._folder, self._threads, self._tell = folder, threads, tell
        self._request = (folder / "request.json").read_text(encoding="utf-8")
        self._processes: dict[int, int] = {}  # rank -> pid, of those that run
        self._outputs = Outputs()
        self.ends: list[End] = []  # of this attempt, in the order in which they were seen

    @property
    def running(self) -> list[int]:
        return list(self._processes)

    def start(
        self,
        local: Mapping[int, int],
        variables: Mapping[str, str],
        usual: Mapping[str, str] | None = None,
        stop: Callable[[], object] = lambda: False,
    ) -> None:
        """Start ranks; those of the attempt before have ended.

        Args:
            local: Number on this machine, by rank.
            variables: Of torchrun, the same for all.
            usual: Further ones, unless this process has them.
            stop: Looked at before each rank; once it is true, no further one is started.
        """
        self.ends = []
        for rank in local:
            for name in (BEATS, ERRORS):
                (self._folder / name.format(rank)).unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        for rank, number in local.items():
            if stop():
                return
            output = self._outputs.pipe(self._folder / LOGS.format(rank))
            pid = os.fork()
            if not pid:
                for name, value in (usual or {}).items():
                    set_variable(name, value, default=True)
                own = {"RANK": str(rank), "LOCAL_RANK": str(number)}
                os._exit(self._rank(rank, {**variables, **own}, output))
            os.close(output)
            self._processes[rank] = pid

    def _rank(self, rank: int, variables: Mapping[str, str], output: int) -> int:
        """Work as a rank, in its process, and print to `output`; return the exit code."""
        try:
            end_with_parent_process()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
            for name, value in variables.items():
                set_variable(name, value)
            self._outputs.forget()
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            faulthandler.register(
                signal.SIGUSR1, file=(self._folder / f"stack-{rank}.txt").open("w"), all_threads=False
            )
            torch.set_num_threads(self._threads)
            self._work(self._request, self._tell if rank == 0 else lambda _stage, _share: None)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        except Interrupted as error:
            keep_error(self._folder, rank, error)
            return ORDERLY
        except BaseException as error:
            keep_error(self._folder, rank, error)
            return 1
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
        return 0

    def reap(self) -> None:
        """Keep what ranks have printed, and note their ends."""
        self._outputs.read()
        for rank, pid in list(self._processes.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._outputs.read()  # its last words
                del self._processes[rank]
                self.ends.append(end_of(self._folder, rank, os.waitstatus_to_exitcode(status)))

    def beats(self) -> dict[int, Beat]:
        """Return the last beat of each rank that runs."""
        return {rank: read_beat(self._folder / BEATS.format(rank)) for rank in self._processes}

    def stopped(self) -> dict[int, bool]:
        """Return for each rank that runs whether a signal has stopped its process."""
        return {rank: _is_stopped(pid) for rank, pid in self._processes.items()}

    def end_hanging(self, rank: int, why: str) -> None:
        """Kill a rank that hangs, and note its end with where it was."""
        stack = self._stack(rank)
        pid = self._processes.pop(rank)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.ends.append(End(rank, -signal.SIGKILL, why=f"{why}{stack}"))

    def _stack(self, rank: int) -> str:
        """Return where a rank is, as text; empty if it cannot say."""
        if _is_stopped(self._processes[rank]):
            return " (its process is stopped by a signal)"
        file = self._folder / f"stack-{rank}.txt"
        os.kill(self._processes[rank], signal.SIGUSR1)
        until = time.monotonic() + _STACK_S
        while time.monotonic() < until and not file.stat().st_size:
            time.sleep(LOOK_S)
        time.sleep(LOOK_S)
        text = file.read_text(errors="replace")
        return "".join([". It was at:", *(f"\n{line}" for line in text.splitlines()[:_FRAMES])]) if text else ""

    def signal_all(self, number: int) -> None:
        for pid in self._processes.values():
            os.kill(pid, number)

    def kill_all(self) -> None:
        """Kill the ranks that run."""
        self.signal_all(signal.SIGKILL)
        for pid in self._processes.values():
            os.waitpid(pid, 0)
        self._processes = {}
        self._outputs.close()


def end_with_parent_process() -> None:
    """Let the kernel kill this process when its parent ends."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False
