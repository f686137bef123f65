"""Memory of a training on the fullest of its devices.

Weights, gradients and states of the optimiser are counted as in ZeRO (arXiv:1910.02054, section 3), and are divided
among the processes of a shard. The activations of a pipeline's stage are those of the micro-batches that are under way
in it with one forward and one backward pass in turn (1F1B, arXiv:2104.04473, section 2.2). With checkpointing, a block
keeps its input alone, and one block at a time its activations (arXiv:1604.06174).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from mainspring.training.planning.layouts import Layout
from mainspring.training.planning.model import Model, Part


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on a device, at the moment at which they are most.

    Attributes:
        activations: Those that the backward pass still needs, copies of weights in 16 bits among them.
        communication: Gathered weights, gradients before they are divided, buffers of sums.
        working: Of the operations under way: gradients of activations, or of an optimiser's step.
        runtime: Of the driver, and of the libraries' own buffers.
        host: Bytes in main memory, of which nothing is on the device.
    """

    weights: float = 0.0
    gradients: float = 0.0
    optimiser: float = 0.0
    activations: float = 0.0
    communication: float = 0.0
    working: float = 0.0
    runtime: float = 0.0
    host: float = 0.0

    @property
    def total(self) -> float:
        """Bytes on the device."""
        return math.fsum(getattr(self, each.name) for each in fields(self) if each.name != "host")


def memory(model: Model, layout: Layout, runtime: float = 0.0, *, gpu: bool = True) -> Memory:
    """Return the memory of the fullest device.

    Args:
        runtime: Bytes that the driver takes.
        gpu: Whether the devices are GPUs: there weights of the next block are gathered ahead, and PyTorch's optimisers
            change all weights at once (`foreach`).
    """
    stages = model.stages(layout.distributed.pipeline)
    return max(
        (_on(model, layout, place, stage, runtime, gpu) for place, stage in enumerate(stages)),
        key=lambda found: found.total,
    )


def _on(model: Model, layout: Layout, place: int, stage: tuple[Part, ...], runtime: float, gpu: bool) -> Memory:
    """Return the memory of a device of the stage with the number `place`."""
    told, kinds = layout.distributed, model.precision
    local = sum(part.local(told.tensor) for part in stage) / told.shard
    trained = sum(_trained(part, told.tensor) for part in stage) / told.shard
    weights = local * kinds.weight + trained * kinds.master
    states, gradients = trained * model.optimiser.bytes_of(kinds), trained * kinds.gradient
    host = weights + gradients + states if told.offload else 0.0
    if told.offload:
        weights = gradients = states = 0.0
    under_way = min(told.pipeline - place, layout.accumulate)
    communication = _communication(model, layout, stage, gpu)
    step = 0.0 if told.offload else _step(model, trained, told.shard * told.tensor, gpu)
    moments = [
        Memory(weights, gradients if held is None else held, states, kept, communication, working, runtime, host)
        for held, kept, working in _backward(model, layout, stage, gradients, under_way)
    ]
    return max(
        (*moments, Memory(weights, gradients, states, 0.0, 0.0, step, runtime, host)), key=lambda each: each.total
    )


def _step(model: Model, trained: float, cut: int, gpu: bool) -> float:
    """Bytes for a time in the optimiser's step: of all weights at once, or twice of the largest tensor."""
    numbers = trained if gpu else 2 * min(trained, model.largest / cut)
    return model.optimiser.step * model.precision.state * numbers


def _backward(
    model: Model, layout: Layout, stage: tuple[Part, ...], gradients: float, under_way: int
) -> Iterator[tuple[float | None, float, float]]:
    """Yield gradients, activations and working bytes as the backward pass reaches each part.

    Gradients are there before it where they are summed over parts of a batch, or lie in the buckets of copies (DDP);
    else they appear as activations go.
    """
    told, width = layout.distributed, model.precision.gradient
    grows = layout.accumulate == 1 and told.pipeline == 1 and not told.offload and (told.copies == 1 or told.shard > 1)
    kept = [_kept(layout, part) for part in stage]
    later = (under_way - 1) * sum(kept)
    for place in reversed(range(len(stage))):
        part = stage[place]
        working = (part.working * layout.rows + part.working_fixed) * _share(part, told.tensor)
        if not grows and told.shard == 1:  # a gradient before it is added to that of the parts before
            working += min(part.trained, model.largest) * width / told.tensor
        if told.checkpoint_activations and part.block:
            working += part.kept(told.tensor) * layout.rows + _fixed(layout, part)
        held = sum(_trained(each, told.tensor) for each in stage[place:])
        now = held / told.shard * width if grows else None
        yield min(now, gradients) if now is not None else None, later + sum(kept[: place + 1]), working


def _trained(part: Part, tensor: int) -> float:
    """Parameters with gradients on one of `tensor` processes."""
    return part.trained * part.local(tensor) / max(1, part.parameters)


def _share(part: Part, tensor: int) -> float:
    return part.saved_cut / tensor + 1 - part.saved_cut


def _kept(layout: Layout, part: Part) -> float:
    """Bytes that a part keeps of one micro-batch, from its forward to its backward pass."""
    if layout.distributed.checkpoint_activations and part.block:
        return part.entrance * layout.rows
    return part.kept(layout.distributed.tensor) * layout.rows + _fixed(layout, part)


def _fixed(layout: Layout, part: Part) -> float:
    """Bytes of a part that do not depend on rows: copies of weights in 16 bits, which shards are when gathered."""
    if layout.distributed.shard > 1:
        return 0.0
    return part.fixed * part.local(layout.distributed.tensor) / max(1, part.parameters)


def _communication(model: Model, layout: Layout, stage: tuple[Part, ...], gpu: bool) -> float:
    told, kinds = layout.distributed, model.precision
    found = 0.0
    if told.shard == 1 and told.copies > 1 and layout.accumulate > 1:
        # sums over parts of a batch lie beside the buckets (DDP's no_sync) until these are filled
        found += sum(_trained(part, told.tensor) for part in stage) * kinds.gradient
    if told.shard > 1:
        block = max((part.local(told.tensor) for part in stage if part.block), default=0.0)
        outer = sum(part.local(told.tensor) for part in stage if not part.block)
        # whole weights, those in the buffer of the gathering, and gradients of a block before and in the reduction
        found += (outer + (1 + gpu) * block + block / told.shard) * kinds.gathered
        found += max(block, outer if not block else 0.0) * (kinds.gathered + kinds.gradient)
    if told.tensor > 1:
        found += max(part.entrance for part in stage) * layout.rows
    if told.pipeline > 1:
        found += 2 * max(part.entrance for part in stage if part.block) * layout.rows
    return found
