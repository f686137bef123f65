"""Process that starts the ranks of one machine and watches them: torchrun's elastic agent, with ranks that are forked.

`python -m mainspring.training.distributed.agent ENTRY FOLDER TELL`

It has imported PyTorch before it starts a rank, and each rank is a copy of it: a replaced one trains again within a
second. The agent's `SimpleElasticAgent` gives out ranks and counts restarts
(https://docs.pytorch.org/docs/stable/elastic/agent.html, "Extending the Agent"); which process failed first, and which
one hangs, is found here.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore
from torch.distributed.elastic.agent.server.api import (
    RunResult,
    SimpleElasticAgent,
    WorkerGroup,
    WorkerSpec,
    WorkerState,
)
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

from mainspring.core.environment import set_variable
from mainspring.training.distributed.ends import ERRORS, ORDERLY, End, end_of, keep_error
from mainspring.training.distributed.ports import BEATS, LOGS
from mainspring.training.distributed.silence import Silences
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import OUTSIDE, read_beat
from mainspring.training.loop.signals import Interrupted

_LOOK_S = 0.05
_CAUSE_S = 5.0  # after a rank that lost a peer, until the peer must have shown why
_AFTER_S = 1.0  # for the other ranks to end by themselves after the first
_STOP_S = 30.0  # for all ranks to write a checkpoint after a signal
_STACK_S = 1.0  # for a rank that hangs to write its stack
_FRAMES = 12  # of a stack, the innermost
_TELL_EVERY_S = 0.5
_LOOPBACK = "127.0.0.1"


class OneMachine(RendezvousHandler):  # type: ignore[misc]
    """Rendezvous of the ranks of this machine: a store on the loopback interface, another one for each attempt."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._store: Any = None

    def get_backend(self) -> str:
        return "mainspring"

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        listening = socket.create_server((_LOOPBACK, 0))  # the store itself would listen on every interface
        port = listening.getsockname()[1]
        self._store = TCPStore(
            _LOOPBACK, port, 1, True, timedelta(seconds=60), False, master_listen_fd=listening.detach()
        )
        return RendezvousInfo(self._store, 0, 1, RendezvousStoreInfo(_LOOPBACK, port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """There is nobody else to tell."""

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._id

    def shutdown(self) -> bool:
        self._store = None
        return True


class Agent(SimpleElasticAgent):  # type: ignore[misc]
    """Agent of one machine.

    Args:
        tell: File descriptor of the launcher, which gets lines of JSON.
    """

    def __init__(self, entry: str, folder: Path, distributed: Distributed, tell: int) -> None:
        self._work = import_module(entry).work
        self._folder, self._distributed, self._tell = folder, distributed, tell
        self._request = (folder / "request.json").read_text(encoding="utf-8")
        self._processes: dict[int, int] = {}  # rank -> pid, of those that run
        self._ends: list[End] = []  # of this attempt, in the order in which they were seen
        self._silences = Silences(distributed.silence_s)
        self._attempt, self._stopping = -1, 0
        self._looked = self._told = time.monotonic()
        spec = WorkerSpec(
            "rank", distributed.size, OneMachine(folder.name), entrypoint=entry, max_restarts=distributed.restarts,
            monitor_interval=_LOOK_S,
        )  # fmt: skip
        super().__init__(spec)

    def say(self, **what: Any) -> None:
        with suppress(BrokenPipeError):
            os.write(self._tell, json.dumps(what).encode() + b"\n")

    def stop(self, number: int, _frame: object) -> None:
        """Note a signal, of which the ranks are told."""
        self._stopping = self._stopping or number

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._attempt += 1
        self._ends = []
        self._silences.clear()
        for file in (*self._folder.glob(BEATS.format("*")), *self._folder.glob(ERRORS.format("*"))):
            file.unlink()
        every = {
            "WORLD_SIZE": str(len(worker_group.workers)),
            "LOCAL_WORLD_SIZE": str(len(worker_group.workers)),
            "MASTER_ADDR": worker_group.master_addr,
            "MASTER_PORT": str(worker_group.master_port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(self._attempt),
            "TORCHELASTIC_RUN_ID": self._folder.name,
        }
        sys.stdout.flush()
        sys.stderr.flush()
        self.say(started=len(worker_group.workers), attempt=self._attempt)  # before a rank says a word
        for worker in worker_group.workers:
            own = {"RANK": str(worker.global_rank), "LOCAL_RANK": str(worker.local_rank)}
            pid = os.fork()
            if not pid:
                os._exit(self._rank(worker.global_rank, {**every, **own}))
            self._processes[worker.global_rank] = pid
        return {worker.local_rank: self._processes[worker.global_rank] for worker in worker_group.workers}

    def _rank(self, rank: int, variables: Mapping[str, str]) -> int:
        """Work as a rank, in its process; return the exit code."""
        try:
            end_with_parent_process()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
            for name, value in variables.items():
                set_variable(name, value)
            log = os.open(self._folder / LOGS.format(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            faulthandler.register(
                signal.SIGUSR1, file=(self._folder / f"stack-{rank}.txt").open("w"), all_threads=False
            )
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self._distributed.processes))
            self._work(self._request, self._told_by(rank))
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

    def _told_by(self, rank: int) -> Any:
        def tell(stage: str, share: float) -> None:
            if rank == 0:
                self.say(stage=stage[:200], share=share)

        return tell

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        self._reap()
        if not self._processes and all(end.well for end in self._ends):
            return RunResult(WorkerState.SUCCEEDED, dict.fromkeys(range(len(worker_group.workers))))
        if self._stopping:
            return self._stopped(self._stopping)
        if (failed := self._failed()) is not None:
            return self._after(failed, worker_group)
        self._look_for_silence(passed)
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            beat = read_beat(self._folder / BEATS.format(0))
            if beat.phase != OUTSIDE:
                self.say(step=beat.step)
        return RunResult(WorkerState.HEALTHY)

    def _reap(self) -> None:
        for rank, pid in list(self._processes.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._processes[rank]
                self._ends.append(end_of(self._folder, rank, os.waitstatus_to_exitcode(status)))

    def _failed(self) -> End | None:
        """Return the end that made the others fail, once it is known.

        A rank that was killed comes before one with an error, which can be that of having lost it.
        """
        bad = [end for end in self._ends if not end.well]
        if not bad:
            return None
        causes = [end for end in bad if end.killed] or [end for end in bad if not end.lost_peer]
        if causes:
            return min(causes, key=lambda end: end.at)
        return bad[0] if time.monotonic() - bad[0].seen > _CAUSE_S or not self._processes else None

    def _after(self, failed: End, worker_group: WorkerGroup) -> RunResult:
        size = len(worker_group.workers)
        if failed.orderly:
            return self._stopped(signal.SIGTERM)
        self._end_others()
        if not failed.killed and not failed.lost_peer:
            self._remaining_restarts = 0
            self.say(failed={**failed.error, "rank": failed.rank, "size": size})
            return RunResult(WorkerState.FAILED)
        after = size
        if self._remaining_restarts == 0:
            after = self._distributed.fewer(size)
            if after:
                worker_group.spec.local_world_size = after
                self._remaining_restarts = 1
        self.say(lost=failed.rank, why=failed.why, size=after, before=size)
        return RunResult(WorkerState.FAILED)

    def _look_for_silence(self, passed_s: float) -> None:
        beats = {rank: read_beat(self._folder / BEATS.format(rank)) for rank in self._processes}
        self._silences.look(beats, passed_s)
        hanging = self._silences.hanging({rank: _is_stopped(pid) for rank, pid in self._processes.items()})
        for rank in hanging:
            stack = self._stack(rank)
            pid = self._processes.pop(rank)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            why = f"told nothing for {self._distributed.silence_s:g} s after step {beats[rank].step}"
            self._ends.append(End(rank, -signal.SIGKILL, why=f"{why}{stack}"))

    def _stack(self, rank: int) -> str:
        """Return where a rank is, as text; empty if it cannot say."""
        if _is_stopped(self._processes[rank]):
            return " (its process is stopped by a signal)"
        file = self._folder / f"stack-{rank}.txt"
        os.kill(self._processes[rank], signal.SIGUSR1)
        until = time.monotonic() + _STACK_S
        while time.monotonic() < until and not file.stat().st_size:
            time.sleep(_LOOK_S)
        time.sleep(_LOOK_S)
        text = file.read_text(errors="replace")
        return "".join([". It was at:", *(f"\n{line}" for line in text.splitlines()[:_FRAMES])]) if text else ""

    def _stopped(self, number: int) -> RunResult:
        """Tell all ranks of a signal, and wait for their end."""
        self._signal_all(number)
        until = time.monotonic() + _STOP_S
        while self._processes and time.monotonic() < until:
            time.sleep(_LOOK_S)
            self._reap()
        self._kill_all()
        said = next((end.error["what"] for end in sorted(self._ends, key=lambda end: end.rank) if end.orderly), "")
        preempted = any(end.error.get("preempted") for end in self._ends)
        self.say(stopped=number, what=said, preempted=preempted)
        self._remaining_restarts = 0
        return RunResult(WorkerState.FAILED)

    def _end_others(self) -> None:
        """Let ranks that lost a peer end by themselves, for what they have logged to be written; kill the rest."""
        until = time.monotonic() + _AFTER_S
        while self._processes and time.monotonic() < until:
            time.sleep(_LOOK_S / 5)
            self._reap()
        self._kill_all()

    def _signal_all(self, number: int) -> None:
        for pid in self._processes.values():
            os.kill(pid, number)

    def _kill_all(self) -> None:
        self._signal_all(signal.SIGKILL)
        for pid in self._processes.values():
            os.waitpid(pid, 0)
        self._processes = {}

    def _stop_workers(self, worker_group: WorkerGroup, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._kill_all()

    def _shutdown(self, *_: Any, **__: Any) -> None:
        self._kill_all()


def end_with_parent_process() -> None:
    """Let the kernel kill this process when its parent ends."""
    parent = os.getppid()
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False


def main() -> int:
    """Run the job of a folder; return 0 if all ranks ended well."""
    entry, folder, tell = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    distributed = Distributed(**json.loads((folder / "distributed.json").read_text(encoding="utf-8")))
    import_module("mainspring.training.loop.fit")
    if sys.platform == "linux":
        set_variable("GLOO_SOCKET_IFNAME", "lo", default=True)
        set_variable("NCCL_SOCKET_IFNAME", "lo", default=True)
    agent = Agent(entry, folder, distributed, tell)
    signal.signal(signal.SIGTERM, agent.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result = agent.run()
    return 0 if result.state == WorkerState.SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
