"""Declaration of a training in several processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from mainspring.core.errors import Invalid
from mainspring.training.preemption.names import check_name

_MOST_PROCESSES = 1_024  # of a machine: its devices or cores; thousands would take its memory before the first step
_COUNTS = ("processes", "machines", "shard", "tensor", "pipeline")


@dataclass(frozen=True, slots=True)
class Distributed:
    """Training of a network in several processes, each with one device.

    All processes train one module: `processes * machines` of them, as a mesh of copies, shards, tensor and pipeline
    parts. What is left of their number beside `shard`, `tensor` and `pipeline` is copies, each with other rows.

    Args:
        processes: Processes of each machine, up to 1,024.
        machines: Machines.
        shard: Processes over which weights, gradients and optimiser states are spread (FSDP), each with other rows.
        tensor: Processes over which each layer's matrices are spread, with the same rows.
        pipeline: Groups of processes that each have consecutive layers.
        checkpoint_activations: Compute activations again in the backward pass, instead of keeping them.
        offload: Keep shards in the main memory while they are not used.
        at_least: Processes with which training goes on when others are lost; 0: all are needed.
            Their weights are equal within rounding.
        restarts: Times that lost processes are replaced.
        tensor_plan: How `tensor` cuts layers, by patterns of names: `{"*.up": "columns", "*.down": "rows"}`, or "heads"
            of a MultiheadAttention. By default it is derived from the module.
        preemption: Cloud whose announcements that it takes a machine back are heeded: "aws", "gcp" or "azure", or
            "detect" for the one that the machine's firmware names; by default none.
        silence_s: Seconds without a step of a rank after which it counts as hanging; more than a step takes.

    Raises:
        Invalid: A number is impossible, or the parts do not divide the processes.
    """

    processes: int = 1
    machines: int = 1
    shard: int = 1
    tensor: int = 1
    pipeline: int = 1
    checkpoint_activations: bool = False
    offload: bool = False
    at_least: int = 0
    restarts: int = 3
    silence_s: float = 60.0
    tensor_plan: Mapping[str, str] | None = None
    preemption: str = ""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise Invalid(f"Distributed has {name}={value!r}.", fix="give a whole number, at least 1.")
        if self.processes > _MOST_PROCESSES:
            raise Invalid(
                f"Distributed has processes={self.processes:,} of a machine.",
                fix=f"give one for each of its GPUs or cores, up to {_MOST_PROCESSES:,}.",
            )
        if type(self.restarts) is not int or self.restarts < 0 or not self.silence_s > 0:
            raise Invalid(
                f"Distributed has restarts={self.restarts!r} and silence_s={self.silence_s!r}.",
                fix="give a whole number of restarts, from 0 on, and seconds above 0.",
            )
        check_name(self.preemption)
        if self.size > 1:
            self.check(self.size)
        if type(self.at_least) is not int or not 0 <= self.at_least <= self.size:
            raise Invalid(
                f"Distributed has at_least={self.at_least!r} of {self.size} processes.",
                fix=f"give a whole number from 0 to {self.size}.",
            )

    @property
    def size(self) -> int:
        """Processes on all machines."""
        return self.processes * self.machines

    @property
    def copies(self) -> int:
        """Copies of the module, each with other rows."""
        return max(1, self.size // self.parts)

    @property
    def parts(self) -> int:
        """Processes that have one copy together."""
        return self.shard * self.tensor * self.pipeline

    def check(self, size: int) -> None:
        """Raise unless `size` processes can train so.

        Raises:
            Invalid: The parts do not divide them.
        """
        parts = self.parts
        if size % parts:
            said = f"shard={self.shard} x tensor={self.tensor} x pipeline={self.pipeline}"
            raise Invalid(f"{size} processes cannot be {said}.", fix=f"use a multiple of {parts} processes.")

    def fewer(self, size: int) -> int:
        """Return the most processes, fewer than `size`, with which the training may go on; 0 if there are none."""
        found = (size - 1) // self.parts * self.parts
        return found if found >= (self.at_least or self.size) else 0

    def shown(self) -> str:
        """Return what differs from the usual, as `processes=4, shard=2`."""
        given = {
            each.name: getattr(self, each.name) for each in fields(self) if each.default != getattr(self, each.name)
        }
        return ", ".join(f"{name}={value}" for name, value in given.items())
