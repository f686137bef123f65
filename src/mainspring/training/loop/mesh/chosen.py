"""How the processes of a training share its work, by its declaration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mainspring.training.distribution import Distributed
from mainspring.training.loop.mesh.meshed import Meshed
from mainspring.training.loop.mesh.pipelined import Pipelined
from mainspring.training.loop.mesh.tensor import left_whole, plan_of
from mainspring.training.loop.parallel import Alone, Parallel, Replicated
from mainspring.training.loop.world import World


def remarks(declared: Distributed | None, parallel: Parallel, device: Any, module: Any) -> Iterator[str]:
    """Yield what a declaration does not do: `offload` without an effect, layers that `tensor` leaves whole.

    Raises:
        Invalid: No layer can be spread.
    """
    if declared is None:
        return
    if declared.offload and device.type != "cuda":
        yield f"offload has no effect: the module is on the {device.type.upper()}"
    elif declared.offload and getattr(parallel, "sharers", 1) == 1:
        yield "offload has no effect: no process has a shard"
    if declared.tensor > 1:
        left = left_whole(module, plan_of(module, declared.tensor, declared.tensor_plan))
        if left:
            yield f"tensor={declared.tensor} leaves whole in each process: {left}"


def parallel_of(world: World, distributed: Distributed | None, device: Any, amp: bool = False) -> Parallel:
    """Return how a training's processes share its work.

    Args:
        amp: Whether they compute in bfloat16 where PyTorch considers it safe.

    Raises:
        Invalid: There are not as many processes as `distributed` says.
    """
    declared = distributed or Distributed()
    declared.check(world.size)
    if world.size == 1:
        return Alone(declared.checkpoint_activations)
    if declared.pipeline > 1:
        return Pipelined(world, declared, device, amp)
    if declared.shard > 1 or declared.tensor > 1:
        return Meshed(world, declared, device, amp)
    return Replicated(world, declared.checkpoint_activations)
