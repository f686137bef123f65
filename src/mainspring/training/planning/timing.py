"""Expected time of a step: computing at a share of the device's rate, and communication that it does not hide.

A collective of `n` processes takes latency and bytes over bandwidth, as on a ring (Thakur et al., IJHPCA 19(1), 2005;
Patarasuk and Yuan, JPDC 69(2), 2009): a sum 2(n - 1) hops and 2(n - 1)/n of the bytes, a gather or a scattered sum half
of it. A pipeline of `p` stages and `m` micro-batches waits for (p - 1)/m of its computing (arXiv:2104.04473, section
2.2). The shares of the rates are those that trainings were measured to reach, from a poor to a good day.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from mainspring.training.planning.layouts import Layout
from mainspring.training.planning.model import Model, Part
from mainspring.training.planning.topology import Topology

_RATE_OF = {"fp32": "fp32", "fp64": "fp64"}  # by precision; else bf16
_ATTENTION = 0.6  # of the rate of matrix products: FlashAttention-2 on an H100 (arXiv:2307.08691, section 4.1)
_UPDATE_GB_S = 8.0  # of weights and states that the processor reads and writes in an optimiser's step, for each device


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the datasheet's rates."""

    compute: float
    memory: float
    link: float


POOR = Efficiency(0.35, 0.5, 0.5)
USUAL = Efficiency(0.50, 0.7, 0.7)
GOOD = Efficiency(0.60, 0.9, 0.9)
MEASURED = Efficiency(1.0, 1.0, 1.0)  # of rates that were measured here
WITHIN = 1.5  # times the expected time, and that part of it: the interval of a time planned from measured ones


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds of a step, of the slowest device.

    Attributes:
        compute: Forward and backward. `recompute`: of activations that were not kept.
        tensor, shard, copies, pipeline: Communication of an axis that computing does not hide.
        bubble: A stage waits for others. `waits`: all processes exchange a few numbers, such as those of batch
            normalisation.
        update: Of the optimiser. `transfer`: between main memory and the device.
    """

    compute: float = 0.0
    recompute: float = 0.0
    tensor: float = 0.0
    shard: float = 0.0
    copies: float = 0.0
    pipeline: float = 0.0
    bubble: float = 0.0
    waits: float = 0.0
    update: float = 0.0
    transfer: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of a step."""
        return math.fsum(getattr(self, each.name) for each in fields(self))


def summed(topology: Topology, size: int, stride: int, count: float, at: Efficiency) -> float:
    """Seconds of a sum of `count` bytes over `size` processes, which each get it."""
    return 2 * gathered(topology, size, stride, count, at)


def gathered(topology: Topology, size: int, stride: int, count: float, at: Efficiency) -> float:
    """Seconds in which `size` processes gather `count` bytes of which each has a part, or scatter their sum."""
    if size == 1:
        return 0.0
    link, rate = topology.between(size, stride)
    return (size - 1) * (link.latency_s + count / size / (rate * at.link))


def time(model: Model, layout: Layout, topology: Topology, at: Efficiency = USUAL) -> Time:
    """Return the expected time of a step."""
    told = layout.distributed
    return max(
        (_Stage(model, layout, topology, at, stage).time() for stage in model.stages(told.pipeline)),
        key=lambda each: each.total,
    )


def expected(model: Model, layout: Layout, topology: Topology) -> tuple[Time, float, float]:
    """Return the expected time of a step, and between which seconds it lies."""
    if not topology.measured:
        low, high = (time(model, layout, topology, at).total for at in (GOOD, POOR))
        return time(model, layout, topology), low, high
    found = time(model, layout, topology, MEASURED)
    slow = 1.0 if model.pace is None else model.pace.spread(layout.distributed.processes)
    return found, found.total / WITHIN, found.total * max(WITHIN, slow)


@dataclass(frozen=True, slots=True)
class _Stage:
    model: Model
    layout: Layout
    topology: Topology
    at: Efficiency
    parts: tuple[Part, ...]

    def time(self) -> Time:
        told, times = self.layout.distributed, self.layout.accumulate
        forward = self._forward(self.parts)
        again = self._forward(tuple(part for part in self.parts if part.block)) if told.checkpoint_activations else 0.0
        tensor = self._tensor(1 + told.checkpoint_activations)
        passing = self._passing()
        busy = 3 * forward + again + tensor  # of a micro-batch
        parameters = sum(part.local(told.tensor) for part in self.parts)
        return Time(
            compute=3 * forward * times,
            recompute=again * times,
            tensor=tensor * times,
            shard=self._shard(parameters, 3 * forward + again),
            copies=self._copies(parameters / told.shard, 2 * forward + again),
            pipeline=passing * (times + told.pipeline - 1),
            bubble=busy * (told.pipeline - 1),
            waits=self._waits(),
            update=self._update(parameters / told.shard),
            transfer=self._transfer(parameters / told.shard),
        )

    def _forward(self, parts: tuple[Part, ...]) -> float:
        """Seconds of the forward pass of a micro-batch."""
        model, tensor = self.model, self.layout.distributed.tensor
        flops = sum(part.flops * (part.cut / tensor + 1 - part.cut) for part in parts) * self.layout.rows
        if model.pace is not None and self.topology.measured:
            every = sum(part.flops for part in model.parts) * self.layout.rows
            passes = model.pace.passes(self.layout.rows, self.layout.distributed.processes)
            return passes / 3 * (flops / every if every else 1.0)
        kind = _RATE_OF.get(model.precision.name, "bf16")
        flops += sum(part.attention for part in parts) * (1 / _ATTENTION - 1) * self.layout.rows / tensor
        return flops / (self.topology.device.flops(kind) * (1.0 if self.topology.measured else self.at.compute))

    def _tensor(self, forwards: int) -> float:
        """Seconds of the sums of a micro-batch: as many in the backward pass as in a forward pass."""
        size = self.layout.distributed.tensor
        if size == 1:
            return 0.0
        found = 0.0
        for part in self.parts:
            sums = part.sums * (1 + (forwards if part.block else 1))
            count = part.entrance * self.layout.rows
            found += sums * summed(self.topology, size, self.layout.stride("tensor"), count, self.at)
        return found

    def _shard(self, parameters: float, beside: float) -> float:
        """Seconds of gathering weights and scattering gradients that computing does not hide.

        Weights are gathered for the forward and for the backward pass of each part of a batch.
        """
        size, stride, kinds = self.layout.distributed.shard, self.layout.stride("shard"), self.model.precision
        weights = gathered(self.topology, size, stride, parameters * kinds.gathered, self.at)
        gradients = gathered(self.topology, size, stride, parameters * kinds.gradient, self.at)
        blocks = max(1, sum(part.block for part in self.parts))
        hops = 0.0
        if size > 1:  # each block is gathered by itself
            link, _ = self.topology.between(size, stride)
            hops = 3 * (blocks - 1) * (size - 1) * link.latency_s
        taken = 2 * weights + gradients + hops
        first = weights / blocks  # nothing is computed before it
        return self.layout.accumulate * max(first, taken - self.topology.overlaps * beside) if size > 1 else 0.0

    def _copies(self, parameters: float, beside: float) -> float:
        """Seconds of the sum of gradients, once a step, that the last backward pass does not hide."""
        size, stride = self.layout.copies, self.layout.stride("copies")
        if size == 1:
            return 0.0
        taken = summed(self.topology, size, stride, parameters * self.model.precision.gradient, self.at)
        last = taken / max(1, len(self.parts))  # the last gradients are summed after all is computed
        return max(last, taken - self.topology.overlaps * beside)

    def _passing(self) -> float:
        """Seconds in which a micro-batch's activation and its gradient pass on to the next stage."""
        told = self.layout.distributed
        if told.pipeline == 1:
            return 0.0
        link, rate = self.topology.between(2, self.layout.stride("pipeline"))
        count = max(part.entrance for part in self.parts if part.block) * self.layout.rows
        return 2 * (link.latency_s + count / (rate * self.at.link))

    def _waits(self) -> float:
        """Seconds of the messages of a few numbers: a vote of each step, and five of each batch normalisation.

        Messages of GPUs are queued, so that a vote is not waited for.
        """
        told = self.layout.distributed
        votes = summed(self.topology, told.size, 1, 16.0, self.at) if self.topology.measured else 0.0
        shares = self.layout.shares
        norms = 5 * self.model.norms * self.layout.accumulate
        return votes + norms * summed(self.topology, shares, told.tensor, 64.0, self.at)

    def _touched(self, parameters: float) -> float:
        """Bytes that an optimiser's step reads and writes."""
        kinds = self.model.precision
        states = self.model.optimiser.bytes_of(kinds)
        return parameters * (2 * (kinds.weight + kinds.master + states) + kinds.gradient)

    def _update(self, parameters: float) -> float:
        pace = self.model.pace
        if pace is not None and self.topology.measured:
            return pace.update(self.layout.distributed.processes) * parameters / max(1, self.model.parameters)
        rate = self.topology.device.bandwidth_gb_s * 1e9 * self.at.memory
        if self.layout.distributed.offload:
            rate = _UPDATE_GB_S * 1e9
        return self._touched(parameters) / rate

    def _transfer(self, parameters: float) -> float:
        """Seconds in which shards come from main memory, twice for each part of a batch, and gradients go there."""
        if not self.layout.distributed.offload:
            return 0.0
        kinds = self.model.precision
        moved = parameters * (2 * kinds.weight + kinds.gradient) * self.layout.accumulate
        return moved / (self.topology.host_gb_s * 1e9 * self.at.link)
