"""Training in several processes of a Ray cluster.

Its nodes see the folder of the job at the same path, or Ray copies the project's code to them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mainspring.core.errors import Unavailable
from mainspring.core.ray_cluster import AUTHENTICATION
from mainspring.deploy.adapters.ray_agent import ASKED
from mainspring.training.distributed.hearing import AGENT_LOG, AgentEnded, run_agent
from mainspring.training.distributed.ports import OWNER, Event, Job, Started

_REFUSED = "InvalidAuthToken"  # in Ray's log, where the cluster takes no call
_WRONG = (" E ", " W ", "Error")  # of lines in Ray's log
_MOST = 300  # characters of one


class RayRanks:
    """`Runner` on a Ray cluster. The ranks end with this process, however it ends.

    Args:
        address: The cluster's; empty: Ray is started on this machine, and ends with the training.
        cpus: Processors of each process.
        gpus: GPUs of each process; `None`: one, if the cluster has them for all.
        wait_s: Time for the cluster to give room, before a training and after a machine is lost.
        code: Folder of the project, which is copied to nodes that do not see the folder of the job, and the state
            folder, which is not. The entry's module then has `moved(request, folder, root)`, which returns the request
            with other folders. `None`: such nodes are refused.
    """

    def __init__(
        self, address: str, *, cpus: int = 1, gpus: int | None = None, wait_s: float = 60.0,
        code: tuple[Path, Path] | None = None,
    ) -> None:  # fmt: skip
        self._address = address
        root, state = ("", "") if code is None else map(str, code)
        self._asked = {"address": address, "cpus": cpus, "gpus": gpus, "wait_s": wait_s, "code": root, "state": state}

    def run(self, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
        owner = os.urandom(16).hex()
        (job.folder / OWNER).write_text(owner)
        (job.folder / ASKED).write_text(json.dumps({**self._asked, "owner": owner}), encoding="utf-8")
        began = False
        try:
            for event in run_agent("mainspring.deploy.adapters.ray_agent", job, stop):
                began = began or isinstance(event, Started)
                yield event
        except Unavailable as error:
            cluster, log = f"The Ray cluster at {self._address or 'this machine'}", job.folder / AGENT_LOG
            if not began and _REFUSED in log.read_text(encoding="utf-8", errors="replace"):
                raise Unavailable(
                    f"{cluster} asks for a token, and got none or another one.",
                    fix=f"run the same command with {AUTHENTICATION}.",
                ) from None
            if not isinstance(error, AgentEnded):
                raise
            raise Unavailable(
                f"{cluster} {'went away' if began else 'does not answer'}: {_last_words(log)}",
                fix="once the cluster is there, run the same command again: it resumes from the last checkpoint.",
            ) from None
        finally:
            (job.folder / OWNER).unlink(missing_ok=True)  # ranks that cannot be reached end by themselves


def _last_words(log: Path) -> str:
    """Return the last line of Ray's log that tells of something wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    wrong = [line for line in lines if any(mark in line for mark in _WRONG) and "state-dump" not in line]
    said = wrong[-1].rpartition("] ")[2] if wrong else "its process ended"
    return f"{said[:_MOST]} ({log} has more)"
