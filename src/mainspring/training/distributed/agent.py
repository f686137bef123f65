"""Process that starts the ranks of one machine and watches them: torchrun's elastic agent, with ranks that are forked.

`python -m mainspring.training.distributed.agent ENTRY FOLDER TELL`

It has imported PyTorch before it starts a rank, and each rank is a copy of it: a replaced one trains again within a
second. The agent's `SimpleElasticAgent` gives out ranks and counts restarts
(https://docs.pytorch.org/docs/stable/elastic/agent.html, "Extending the Agent"); which process failed first, and which
one hangs, is found here.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore
from torch.distributed.elastic.agent.server.api import (
    RunResult,
    SimpleElasticAgent,
    WorkerGroup,
    WorkerSpec,
    WorkerState,
)
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

from mainspring.core.cores import usable_cores
from mainspring.core.environment import set_variable
from mainspring.training.distributed.ends import End, cause, said_at_stop
from mainspring.training.distributed.hearing import telling
from mainspring.training.distributed.ports import DECLARED
from mainspring.training.distributed.ranks import LOOK_S, Ranks
from mainspring.training.distributed.silence import Silences
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import OUTSIDE

_AFTER_S = 1.0  # for the other ranks to end by themselves after the first
_STOP_S = 30.0  # for all ranks to write a checkpoint after a signal
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
        self._folder, self._distributed, self._say = folder, distributed, telling(tell)
        threads = max(1, usable_cores() // distributed.processes)
        self._ranks = Ranks(entry, folder, threads, lambda stage, share: self._say(stage=stage[:200], share=share))
        self._silences = Silences(distributed.silence_s)
        self._attempt, self._stopping = -1, 0
        self._looked = self._told = time.monotonic()
        spec = WorkerSpec(
            "rank", distributed.size, OneMachine(folder.name), entrypoint=entry, max_restarts=distributed.restarts,
            monitor_interval=LOOK_S,
        )  # fmt: skip
        super().__init__(spec)

    def stop(self, number: int, _frame: object) -> None:
        """Note a signal, of which the ranks are told."""
        self._stopping = self._stopping or number

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._attempt += 1
        self._silences.clear()
        every = {
            "WORLD_SIZE": str(len(worker_group.workers)),
            "LOCAL_WORLD_SIZE": str(len(worker_group.workers)),
            "MASTER_ADDR": worker_group.master_addr,
            "MASTER_PORT": str(worker_group.master_port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(self._attempt),
            "TORCHELASTIC_RUN_ID": self._folder.name,
        }
        self._say(started=len(worker_group.workers), attempt=self._attempt)  # before a rank says a word
        local = {worker.global_rank: worker.local_rank for worker in worker_group.workers}
        self._ranks.start(local, every, stop=lambda: self._stopping)
        return {worker.local_rank: worker.global_rank for worker in worker_group.workers}

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        self._ranks.reap()
        if not self._ranks.running and all(end.well for end in self._ranks.ends):
            return RunResult(WorkerState.SUCCEEDED, dict.fromkeys(range(len(worker_group.workers))))
        if self._stopping:
            return self._stopped(self._stopping)
        if (failed := cause(self._ranks.ends, running=bool(self._ranks.running))) is not None:
            return self._after(failed, worker_group)
        self._look_for_silence(passed)
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            beat = self._ranks.beats().get(0)
            if beat is not None and beat.phase != OUTSIDE:
                self._say(step=beat.step)
        return RunResult(WorkerState.HEALTHY)

    def _after(self, failed: End, worker_group: WorkerGroup) -> RunResult:
        size = len(worker_group.workers)
        if failed.orderly:
            return self._stopped(signal.SIGTERM)
        self._end_others()
        if not failed.killed and not failed.lost_peer:
            self._remaining_restarts = 0
            self._say(failed={**failed.error, "rank": failed.rank, "size": size})
            return RunResult(WorkerState.FAILED)
        after = size
        if self._remaining_restarts == 0:
            after = self._distributed.fewer(size)
            if after:
                worker_group.spec.local_world_size = after
                self._remaining_restarts = 1
        self._say(lost=failed.rank, why=failed.why, size=after, before=size, printed=failed.error.get("printed", ""))
        return RunResult(WorkerState.FAILED)

    def _look_for_silence(self, passed_s: float) -> None:
        beats = self._ranks.beats()
        self._silences.look(beats, passed_s)
        first_ended = any(end.rank == 0 for end in self._ranks.ends)
        for rank in self._silences.hanging(self._ranks.stopped(), first_ended=first_ended):
            self._ranks.end_hanging(rank, self._silences.why(beats[rank]))

    def _stopped(self, number: int) -> RunResult:
        """Tell all ranks of a signal, and wait for their end."""
        self._ranks.signal_all(number)
        until = time.monotonic() + _STOP_S
        while self._ranks.running and time.monotonic() < until:
            time.sleep(LOOK_S)
            self._ranks.reap()
        self._ranks.kill_all()
        said, preempted = said_at_stop(self._ranks.ends)
        self._say(stopped=number, what=said, preempted=preempted)
        self._remaining_restarts = 0
        return RunResult(WorkerState.FAILED)

    def _end_others(self) -> None:
        """Let ranks that lost a peer end by themselves, for what they have logged to be written; kill the rest."""
        until = time.monotonic() + _AFTER_S
        while self._ranks.running and time.monotonic() < until:
            time.sleep(LOOK_S / 5)
            self._ranks.reap()
        self._ranks.kill_all()

    def _stop_workers(self, worker_group: WorkerGroup, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._ranks.kill_all()

    def _shutdown(self, *_: Any, **__: Any) -> None:
        self._ranks.kill_all()


def main() -> int:
    """Run the job of a folder; return 0 if all ranks ended well."""
    entry, folder, tell = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    distributed = Distributed(**json.loads((folder / DECLARED).read_text(encoding="utf-8")))
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
