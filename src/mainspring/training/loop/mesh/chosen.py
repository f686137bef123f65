"""How the processes of a training share its work, by its declaration."""

from __future__ import annotations

from typing import Any

from mainspring.training.distribution import Distributed
from mainspring.training.loop.mesh.meshed import Meshed
from mainspring.training.loop.mesh.pipelined import Pipelined
from mainspring.training.loop.parallel import Alone, Parallel, Replicated
from mainspring.training.loop.world import World


def without_effect(declared: Distributed | None, parallel: Parallel, device: Any) -> str | None:
    """Return why `offload` has no effect, if it was asked for and has none."""
    if declared is None or not declared.offload:
        return None
    if device.type != "cuda":
        return f"offload has no effect: the module is on the {device.type.upper()}"
    if getattr(parallel, "sharers", 1) == 1:
        return "offload has no effect: no process has a shard"
    return None


def parallel_of(world: World, distributed: Distributed | None, device: Any) -> Parallel:
    """Return how a training's processes share its work.

    Raises:
        Invalid: There are not as many processes as `distributed` says.
    """
    declared = distributed or Distributed()
    declared.check(world.size)
    if world.size == 1:
        return Alone(declared.checkpoint_activations)
    if declared.pipeline > 1:
        return Pipelined(world, declared, device)
    if declared.shard > 1 or declared.tensor > 1:
        return Meshed(world, declared, device)
    return Replicated(world, declared.checkpoint_activations)
