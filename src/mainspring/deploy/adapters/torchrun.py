"""Training in several processes of this machine, by torchrun's elastic agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid
from mainspring.training.distributed.hearing import run_agent
from mainspring.training.distributed.ports import Event, Job
from mainspring.training.distribution import Distributed

_MOST_TO_A_CORE = 16


class LocalRunner:
    """`Runner` on this machine. The agent and its ranks end with this process, however it ends."""

    @staticmethod
    def check(distributed: Distributed) -> None:
        """Raise if this machine never starts these processes."""
        if distributed.machines > 1:
            raise Invalid(
                f"Distributed has machines={distributed.machines}; processes are started on this machine alone.",
                fix="run the same command with --machine N on each of them, N from 0; or train on Ray: --runner ray.",
            )
        if distributed.processes > (most := max(64, _MOST_TO_A_CORE * usable_cores())):
            raise Invalid(
                f"{distributed.processes:,} processes would wait for {usable_cores()} processor cores.",
                fix=f"give one for each GPU or core of this machine; up to {most} are started.",
            )

    def run(self, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
        self.check(job.distributed)
        yield from run_agent("mainspring.training.distributed.agent", job, stop)
