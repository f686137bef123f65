"""Training in several processes of a Ray cluster. The project's folder must have the same path on every node."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

from mainspring.core.errors import Unavailable
from mainspring.deploy.adapters.ray_agent import ASKED
from mainspring.training.distributed.hearing import AGENT_LOG, AgentEnded, run_agent
from mainspring.training.distributed.ports import OWNER, Event, Job


class RayRanks:
    """`Runner` on a Ray cluster. The ranks end with this process, however it ends.

    Args:
        address: The cluster's; empty: Ray is started on this machine, and ends with the training.
        cpus: Processors of each process.
        gpus: GPUs of each process; `None`: one, if the cluster has them for all.
        wait_s: Time for the cluster to give room, before a training and after a machine is lost.
    """

    def __init__(self, address: str, *, cpus: int = 1, gpus: int | None = None, wait_s: float = 60.0) -> None:
        self._address, self._cpus, self._gpus, self._wait_s = address, cpus, gpus, wait_s

    def run(self, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
        owner = os.urandom(16).hex()
        (job.folder / OWNER).write_text(owner)
        asked = {"address": self._address, "owner": owner, "cpus": self._cpus, "gpus": self._gpus}
        (job.folder / ASKED).write_text(json.dumps({**asked, "wait_s": self._wait_s}), encoding="utf-8")
        try:
            yield from run_agent("mainspring.deploy.adapters.ray_agent", job, stop)
        except AgentEnded as error:
            raise Unavailable(
                f"The Ray cluster at {self._address or 'this machine'} went away: {error.what}",
                fix="once the cluster is there again, run the same command again: it resumes from the last checkpoint. "
                f"{job.folder / AGENT_LOG} has Ray's words.",
            ) from None
        finally:
            (job.folder / OWNER).unlink(missing_ok=True)  # ranks that cannot be reached end by themselves
