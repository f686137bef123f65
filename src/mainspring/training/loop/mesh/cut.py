"""A module cut into stages of consecutive layers, balanced by the operations that each layer was measured to take.

The module's own forward pass is kept. It is run once without data to learn in which order its layers are called and
that each gets the output of the one before.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.blocks import blocks, size
from mainspring.training.loop.tensors import import_torch

_FIX = "use shard or tensor instead of pipeline, or put the layers into a torch.nn.Sequential."


@dataclass(frozen=True, slots=True)
class Cut:
    """Layers of each stage by name, with those called before the first and after the last."""

    stages: tuple[tuple[str, ...], ...]
    chain: tuple[str, ...]  # consecutive layers, in their order
    stage_of: dict[str, int]  # by layer with weights, also of those outside the chain

    def first(self, stage: int) -> str:
        return self.stages[stage][0]

    def last(self, stage: int) -> str:
        return self.stages[stage][-1]


def bare(module: Any) -> Any:
    """Return a copy of a module that has shapes and no data, in evaluation mode."""
    torch = import_torch()
    memo: dict[int, Any] = {}
    for each in module.parameters():
        memo[id(each)] = torch.nn.Parameter(torch.empty_like(each, device="meta"), each.requires_grad)
    for each in module.buffers():
        memo[id(each)] = torch.empty_like(each, device="meta")
    return deepcopy(module, memo).eval()


def cut(twin: Any, inputs: tuple[Any, ...], stages: int) -> Cut:
    """Cut a module without data into stages.

    Args:
        inputs: Arguments of the module, without data.

    Raises:
        Invalid: The module has fewer layers than stages, or they do not follow on each other.
    """
    chain = blocks(twin)
    if len(chain) < stages:
        raise Invalid(f"The module has {len(chain)} consecutive layers for {stages} stages of a pipeline.", fix=_FIX)
    others = _others(twin, chain)
    before, after, costs = _observed(twin, inputs, chain, others)
    names = list(chain)
    weights = [costs[name] for name in names]
    weights[0] += sum(costs[name] for name in before)
    weights[-1] += sum(costs[name] for name in after)
    at = _balanced(weights, stages)
    cuts = tuple(tuple(names[begin:end]) for begin, end in zip((0, *at), (*at, len(names)), strict=True))
    stage_of = {name: stage for stage, part in enumerate(cuts) for name in part if size(chain[name])}
    stage_of.update({name: stages - 1 if name in after else 0 for name in others})
    return Cut(cuts, tuple(names), stage_of)


def _others(twin: Any, chain: dict[str, Any]) -> dict[str, Any]:
    """Return the outermost modules with weights that neither are in the chain nor contain it."""
    containing = {name[:end] for name in chain for end, letter in enumerate(name) if letter == "."} | {""}
    layers = dict(twin.named_modules(remove_duplicate=False))
    return {
        name: each
        for name, each in layers.items()
        if name not in chain and name not in containing and name.rpartition(".")[0] in containing and _has_state(each)
    }


def _has_state(module: Any) -> bool:
    return any(True for _ in module.parameters())


def first_tensor(made: Any) -> Any:
    """Return a layer's output without what it returns beside it."""
    return made[0] if isinstance(made, tuple | list) and made else made


def _observed(
    twin: Any, inputs: tuple[Any, ...], chain: dict[str, Any], others: dict[str, Any]
) -> tuple[set[str], set[str], dict[str, float]]:
    """Return the other layers called before and after the chain, and the cost of each layer."""
    torch = import_torch()
    from torch.utils.flop_counter import FlopCounterMode

    calls: list[tuple[str, Any, Any]] = []
    hooks = [
        each.register_forward_hook(lambda _, given, made, name=name: calls.append((name, given, made)))
        for name, each in {**chain, **others}.items()
    ]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            twin(*inputs)
    except Exception as error:
        raise Invalid(
            f"The module cannot be cut into stages: without data its forward pass fails with "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}.",
            fix=_FIX,
        ) from error
    finally:
        for each in hooks:
            each.remove()
    order = [name for name, *_ in calls]
    places = [place for place, name in enumerate(order) if name in chain]
    if [order[place] for place in places] != list(chain):
        raise Invalid("The layers are not called once each in their order.", fix=_FIX)
    between = [name for name in order[places[0] : places[-1]] if name not in chain]
    if between:
        raise Invalid(f"Layer {between[0]!r} is called between those of the pipeline.", fix=_FIX)
    for (name, _, made), (later, given, _) in zip(
        [calls[place] for place in places], [calls[place] for place in places[1:]], strict=False
    ):
        if not given or given[0] is not first_tensor(made):
            raise Invalid(f"The first argument of layer {later!r} is not the output of {name!r}.", fix=_FIX)
    flops = counter.get_flop_counts()
    root = type(twin).__name__
    costs = {
        name: float(sum(flops.get(f"{root}.{name}", {}).values())) or float(size(each))
        for name, each in {**chain, **others}.items()
    }
    return set(order[: places[0]]), set(order[places[-1] + 1 :]), costs


def _balanced(costs: list[float], stages: int) -> tuple[int, ...]:
    """Return where to cut so that the most expensive stage is as cheap as possible."""
    sums = [0.0, *accumulate(costs)]
    count = len(costs)
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {
        (end, 1): (sums[end], ()) for end in range(1, count + 1)
    }
    for parts in range(2, stages + 1):
        for end in range(parts, count + 1):
            best[end, parts] = min(
                (max(best[at, parts - 1][0], sums[end] - sums[at]), (*best[at, parts - 1][1], at))
                for at in range(parts - 1, end)
            )
    return best[count, stages][1]
