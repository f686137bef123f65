"""An endpoint and machines as they are simulated, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mainspring.serving.simulation.lives import Lives
from mainspring.serving.simulation.times import Times
from mainspring.serving.simulation.waking import Waking


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint on a kind of machine.

    Attributes:
        times: Durations of batches on it, on one executor.
        overhead_us: Time of the process's loop for each request, beside the model; `batch_us`: for each batch.
        waking: What a request takes more that comes to an idle process; `None`: nothing.
        apart_us: Time of each request outside the process: connection, kernel, caller.
        deadline_us: Of a request.
        executors: Least and most of a replica.
        idle_s: Time without requests after which a replica has no executor, if the least is 0.
        load_s: Time to load the model again; `load_processor_s`: processor time of that.
        cores: Of a replica: executors that need more of them slow each other down.
        model_share: Processor time of an executor, as a share of the time in which it computes.
        idle_share: Processor time of a replica without requests, as a share of its time.
        inline: Whether the model runs on the loop itself.
    """

    times: Times
    overhead_us: float
    deadline_us: int
    batch_us: float = 0.0
    waking: Waking | None = None
    apart_us: float = 0.0
    executors: tuple[int, int] = (1, 1)
    idle_s: float = 300.0
    load_s: float = 0.1
    load_processor_s: float = 0.0
    cores: float = 1.0
    model_share: float = 1.0
    idle_share: float = 0.0
    inline: bool = False
    max_batch_rows: int = 64
    max_queue_rows: int = 4096
    rows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Machines of replicas.

    Attributes:
        boot_s: From the decision for a replica until it answers.
        lives: Of machines that are interrupted; `None`: they are not.
    """

    boot_s: float = 0.0
    lives: Lives | None = None


@dataclass(slots=True, kw_only=True)
class Simulated:
    """Outcome.

    Attributes:
        seconds: Of the load.
        asked: Requests.
        latencies_us: Of those that were answered, in the order of their answers.
        refused: Requests that were refused, or left the queue, because they would have been late.
        lost: Requests that were at a machine when it was lost, or came while there was none.
        machine_s: Seconds of machines, booting ones included.
        executor_s: Seconds of loaded executors.
        busy_s: Seconds of computing executors.
        processor_s: Processor seconds of all.
        replicas, executors: Changes: second -> number.
    """

    seconds: float
    asked: int
    latencies_us: npt.NDArray[np.float64]
    in_time: int
    refused: int
    lost: int
    machine_s: float
    executor_s: float
    busy_s: float
    processor_s: float
    replicas: list[tuple[float, int]] = field(default_factory=list)
    executors: list[tuple[float, int]] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Requests a second that were answered in time."""
        return self.in_time / self.seconds

    @property
    def share_in_time(self) -> float:
        return self.in_time / self.asked if self.asked else 1.0

    def quantile_us(self, share: float) -> float | None:
        """Return a quantile of the latencies of answers."""
        return float(np.quantile(self.latencies_us, share)) if len(self.latencies_us) else None
