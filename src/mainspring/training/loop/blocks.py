"""The repeated parts of a module, by which it is sharded, cut into stages, and computed again in a backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from mainspring.training.loop.tensors import import_torch


def size(module: Any) -> int:
    """Return the number of a module's parameters."""
    return sum(each.numel() for each in module.parameters())


def blocks(module: Any, at: str = "") -> dict[str, Any]:
    """Return the consecutive parts of a module by name: the children of a Sequential, or its largest ModuleList.

    A child that has more than half of a Sequential's parameters is replaced by its own parts, if it has any.
    """
    lists, sequential = import_torch().nn.ModuleList, import_torch().nn.Sequential
    if isinstance(module, sequential):
        found: dict[str, Any] = {}
        for name, child in module.named_children():
            inner = blocks(child, f"{at}{name}.") if 2 * size(child) > size(module) else {}
            found.update(inner or {f"{at}{name}": child})
        return found
    kinds = [lists] if any(isinstance(each, lists) for each in module.modules()) else [sequential]
    inside = [(name, each) for name, each in module.named_modules() if isinstance(each, tuple(kinds)) and size(each)]
    if not inside:
        return {}
    largest: Any
    name, largest = max(inside, key=lambda each: size(each[1]))
    if isinstance(largest, sequential):
        return blocks(largest, f"{at}{name}.")
    return {f"{at}{name}.{number}": child for number, child in largest.named_children()}


@contextmanager
def recomputed(parts: Iterable[Any], wanted: bool) -> Iterator[None]:
    """Inside, keep the activations between a module's parts alone, and compute those within again when needed."""
    found = [each for each in parts if size(each)] if wanted else []
    again = import_torch().utils.checkpoint.checkpoint
    for each in found:
        context = partial(_contexts, each)
        each.forward = partial(_forward, each.forward, partial(again, use_reentrant=False, context_fn=context))
    try:
        yield
    finally:
        for each in found:
            before = each.__dict__.pop("forward").args[0]
            if getattr(before, "__func__", None) is not type(each).forward:
                each.forward = before


def _forward(forward: Any, again: Any, *args: Any, **named: Any) -> Any:
    if not import_torch().is_grad_enabled():
        return forward(*args, **named)
    return again(forward, *args, **named)


def _contexts(module: Any) -> tuple[Any, Any]:
    return nullcontext(), _statistics_kept(module)


@contextmanager
def _statistics_kept(module: Any) -> Iterator[None]:
    """Keep the running statistics of batch normalisation: the forward pass that is repeated has counted its rows."""
    norm = import_torch().nn.modules.batchnorm._BatchNorm
    found = [each for each in module.modules() if isinstance(each, norm) and each.track_running_stats]
    before = [(each.momentum, each.num_batches_tracked) for each in found]
    for each in found:
        each.momentum, each.num_batches_tracked = 0.0, each.num_batches_tracked.clone()
    try:
        yield
    finally:
        for each, (momentum, tracked) in zip(found, before, strict=True):
            each.momentum, each.num_batches_tracked = momentum, tracked
