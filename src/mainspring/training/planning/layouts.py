"""Layouts of a training over devices: which axis of parallelism has how many processes, over which link.

The processes of tensor parallelism are neighbours, as they sum activations in each layer (Megatron-LM,
arXiv:1909.08053). Then come the processes of a shard, then copies. The stages of a pipeline are farthest apart, as they
pass on one activation of a batch alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

from mainspring.training.distribution import Distributed
from mainspring.training.planning.model import Model
from mainspring.training.planning.topology import Topology

AXES = ("tensor", "shard", "copies", "pipeline")  # from neighbours to the farthest apart


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to train a model in several processes.

    Attributes:
        accumulate: Parts in which a process computes its rows; with a pipeline, its micro-batches.
        rows: Rows of a part.
    """

    distributed: Distributed
    accumulate: int
    rows: int

    @property
    def copies(self) -> int:
        return self.distributed.copies

    @property
    def shares(self) -> int:
        """Processes that have different rows, tensor parallelism and stages aside."""
        return self.distributed.copies * self.distributed.shard

    @property
    def switched(self) -> bool:
        """Whether activations are computed again, or shards kept in main memory."""
        return self.distributed.checkpoint_activations or self.distributed.offload

    def size(self, axis: str) -> int:
        """Processes of an axis."""
        return int(getattr(self.distributed, axis))

    def stride(self, axis: str) -> int:
        """Distance of two neighbours of an axis, in devices."""
        stride = 1
        for each in AXES[: AXES.index(axis)]:
            stride *= self.size(each)
        return stride

    def said(self) -> str:
        """Return the layout in short."""
        used = [f"{axis} {self.size(axis)}" for axis in AXES if self.size(axis) > 1]
        switches = [name for name in ("checkpoint_activations", "offload") if getattr(self.distributed, name)]
        return " x ".join(used or ["1 process"]) + "".join(f", {each.split('_')[0]}" for each in switches)


def layouts(model: Model, topology: Topology, batch: int, accumulate: int | None = None) -> Iterator[Layout]:
    """Yield the layouts that the model, the topology and the rows of a batch allow, whether or not they fit.

    Args:
        accumulate: Parts in which a process computes its rows; by default every number that divides them.
    """
    for processes, machines in topology.counts():
        for tensor, pipeline, shard in _axes(model, topology, processes * machines):
            copies = processes * machines // (tensor * pipeline * shard)
            if copies * shard > batch:
                continue
            share = -(-batch // (copies * shard))  # of the process that has most rows
            for checkpoint in (False, True) if model.blocks else (False,):
                for offload in (False, True) if shard > 1 and pipeline == 1 and topology.offloads else (False,):
                    made = Distributed(
                        processes=processes, machines=machines, shard=shard, tensor=tensor, pipeline=pipeline,
                        checkpoint_activations=checkpoint, offload=offload,
                    )  # fmt: skip
                    for parts in _divisors(share) if accumulate is None else (accumulate,):
                        if parts >= pipeline:
                            yield Layout(made, parts, -(-share // parts))


def _axes(model: Model, topology: Topology, size: int) -> Iterator[tuple[int, int, int]]:
    for tensor in _divisors(size):
        if tensor > 1 and (not model.heads or model.heads % tensor or tensor > topology.fastest):
            continue
        for pipeline in _divisors(size // tensor):
            if pipeline > 1 and (pipeline > len(model.blocks) or not model.chained):
                continue
            for shard in _divisors(size // tensor // pipeline):
                yield tensor, pipeline, shard


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, isqrt(number) + 1) if number % each == 0]
    return [*small, *(number // each for each in reversed(small) if each * each != number)]
