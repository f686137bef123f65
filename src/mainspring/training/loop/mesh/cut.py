"""A module cut into stages of consecutive layers, balanced by the operations that each layer was measured to take.

The module's own forward pass is kept. It is run once without its layers to learn in which order these are called, and
that each gets the output of the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.blocks import size
from mainspring.training.loop.mesh.outline import Outline

_FIX = "use shard or tensor instead of pipeline, or put the layers into a torch.nn.Sequential."


@dataclass(frozen=True, slots=True)
class Cut:
    """Layers of each stage by name, and the stage of each layer that has weights."""

    stages: tuple[tuple[str, ...], ...]
    stage_of: dict[str, int]

    def first(self, stage: int) -> str:
        return self.stages[stage][0]

    def last(self, stage: int) -> str:
        return self.stages[stage][-1]


def first_tensor(made: Any) -> Any:
    """Return a layer's output without what it returns beside it."""
    return made[0] if isinstance(made, tuple | list) and made else made


def cut(outline: Outline, inputs: tuple[Any, ...], stages: int) -> Cut:
    """Cut a module into stages.

    Raises:
        Invalid: The module has fewer layers than stages, or they do not follow on each other.
    """
    names = list(outline.chain)
    if len(names) < stages:
        raise Invalid(f"The module has {len(names)} consecutive layers for {stages} stages of a pipeline.", fix=_FIX)
    before, after, costs = _observed(outline, inputs)
    weights = [costs[name] for name in names]
    weights[0] += sum(costs[name] for name in before)
    weights[-1] += sum(costs[name] for name in after)
    at = balanced(weights, stages)
    cuts = tuple(tuple(names[begin:end]) for begin, end in zip((0, *at), (*at, len(names)), strict=True))
    stage_of = {name: stage for stage, part in enumerate(cuts) for name in part if size(outline.chain[name])}
    stage_of.update({name: stages - 1 if name in after else 0 for name in outline.others})
    return Cut(cuts, stage_of)


def _observed(outline: Outline, inputs: tuple[Any, ...]) -> tuple[set[str], set[str], dict[str, float]]:
    """Return the other layers called before and after the chain, and the cost of each layer."""
    from torch.utils.flop_counter import FlopCounterMode

    calls: list[tuple[str, Any, Any]] = []
    costs = {name: float(size(each)) for name, each in {**outline.chain, **outline.others}.items()}
    counter = FlopCounterMode(display=False)
    counted = 0

    def seen(name: str, given: Any, made: Any) -> None:
        nonlocal counted
        calls.append((name, given, made))
        flops = counter.get_total_flops() - counted
        counted += flops
        costs[name] = float(flops) or costs[name]

    try:
        with counter:
            outline.run(inputs, seen)
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else ""
        raise Invalid(
            f"The module cannot be cut into stages: without data a layer fails with {type(error).__name__}: {said}.",
            fix=_FIX,
        ) from error
    return *_around(calls, list(outline.chain)), costs


def _around(calls: list[tuple[str, Any, Any]], chain: list[str]) -> tuple[set[str], set[str]]:
    """Return the layers called before and after the chain."""
    order = [name for name, *_ in calls]
    places = [place for place, name in enumerate(order) if name in chain]
    if [order[place] for place in places] != chain:
        raise Invalid("The layers are not called once each in their order.", fix=_FIX)
    between = [name for name in order[places[0] : places[-1]] if name not in chain]
    if between:
        raise Invalid(f"Layer {between[0]!r} is called between those of the pipeline.", fix=_FIX)
    for (name, _, made), (later, given, _) in zip(
        calls[places[0] :], calls[places[0] + 1 : places[-1] + 1], strict=False
    ):
        if not given or given[0] is not first_tensor(made):
            raise Invalid(f"The first argument of layer {later!r} is not the output of {name!r}.", fix=_FIX)
    return set(order[: places[0]]), set(order[places[-1] + 1 :])


def balanced(costs: list[float], stages: int) -> tuple[int, ...]:
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
