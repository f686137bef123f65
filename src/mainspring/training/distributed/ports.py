"""Runner of a training in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mainspring.training.distribution import Distributed

BEATS = "beat-{}"  # files of a job's folder, one for each rank: its heartbeats, its output
LOGS = "rank-{}.log"
DECLARED = "distributed.json"  # file of a launcher's folder of a job: its `Distributed`
OWNER = "owner"  # file of a job's folder: which launcher has it; ranks of another one end


@dataclass(frozen=True, slots=True)
class Job:
    """A training that a runner starts in each of its processes.

    Args:
        id: Id of the run.
        entry: Module whose `work(request, tell)` each process calls, with the variables of torchrun set.
        request: Its argument, the same in each process: JSON.
        folder: Folder of the job, which all processes see: heartbeats, logs, checkpoints.
    """

    id: str
    entry: str
    request: str
    folder: Path
    distributed: Distributed


@dataclass(frozen=True, slots=True)
class Started:
    """All processes were started, `attempt` counts from 0."""

    size: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Stage:
    """The first rank's stage, and its completed share of the whole."""

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class Stepped:
    """The first rank has completed a step."""

    step: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A rank died or hung; `size` processes go on from the last checkpoint."""

    rank: int
    why: str
    size: int


Event = Started | Stage | Stepped | Lost


class Runner(Protocol):
    """Starts the processes of a training and watches them until their end."""

    def run(self, job: Job, stop: Callable[[], int]) -> Iterator[Event]:
        """Yield what happens, and return when all processes have ended well. None is left in any case.

        A process that dies or hangs is replaced by `job.distributed`: all start again, and resume from the last
        checkpoint. One that ends with an error ends all.

        Args:
            stop: Looked at often; the number of a signal, or 0. The processes then write a checkpoint and end.

        Raises:
            MainspringError: The first error of a process, of its kind, with its rank; or processes were lost and are
                not replaced any more.
            Interrupted: The processes ended after a signal.
        """
        ...
