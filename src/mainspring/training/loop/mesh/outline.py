"""A module whose layers are not run: only what its forward pass does around them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.blocks import blocks
from mainspring.training.loop.tensors import import_torch


def sharing(module: Any) -> Any:
    """Return a copy of a module that shares its weights and buffers.

    Raises:
        Invalid: The module cannot be copied.
    """
    memo = {id(each): each for each in (*module.parameters(), *module.buffers())}
    try:
        return deepcopy(module, memo)
    except Exception as error:
        raise Invalid(
            f"The module cannot be spread over processes, as it cannot be copied: {type(error).__name__}: {error}.",
            fix="keep open files, locks and the like out of the module.",
        ) from error


def bare(module: Any) -> Any:
    """Return a copy of a module that has shapes and no data, in evaluation mode."""
    torch = import_torch()
    memo: dict[int, Any] = {}
    for each in module.parameters():
        memo[id(each)] = torch.nn.Parameter(torch.empty_like(each, device="meta"), each.requires_grad)
    for each in module.buffers():
        memo[id(each)] = torch.empty_like(each, device="meta")
    return deepcopy(module, memo).eval()


def leave_out(module: Any, twin: Any, kept: Callable[[str], bool]) -> None:
    """Remove weights and buffers of layers that `kept` refuses by name; their outputs are NaN of the right shape.

    Args:
        twin: The module, `bare`.
    """
    layers, twins = dict(module.named_modules()), dict(twin.named_modules())
    for name, layer in layers.items():
        if kept(name):
            continue
        layer.forward = partial(_unknown, twins[name])
        for inner in layer.modules():
            for held in (inner._parameters, inner._buffers):
                held.update(dict.fromkeys(held))


def _unknown(twin: Any, *args: Any, **named: Any) -> Any:
    torch = import_torch()
    from torch.utils._pytree import tree_leaves, tree_map_only

    device = next(each.device for each in tree_leaves((args, named)) if isinstance(each, torch.Tensor))
    args, named = tree_map_only(torch.Tensor, lambda each: each.to("meta"), (args, named))

    def made(each: Any) -> Any:
        value = float("nan") if each.is_floating_point() else 0
        return torch.full(each.shape, value, dtype=each.dtype, device=device)

    with torch.no_grad():
        return tree_map_only(torch.Tensor, made, twin(*args, **named))


def _filled(module: Any, device: Any) -> None:
    """Replace weights that are left by zeros: those of the module may be freed while it is trained."""
    torch = import_torch()
    for layer in module.modules():
        for name, each in layer._parameters.items():
            if each is not None:
                layer._parameters[name] = torch.nn.Parameter(torch.zeros_like(each, device=device))
        for name, each in layer._buffers.items():
            if each is not None and each.is_meta:
                layer._buffers[name] = torch.zeros_like(each, device=device)


class Outline:
    """A module of which no layer has data, that runs on real arguments to learn about its layers.

    Layers are its consecutive parts, the `chain`, and `others` with weights that are called before or after these.
    """

    def __init__(self, module: Any, device: Any = "cpu") -> None:
        self.twin = bare(module)
        self.chain = blocks(self.twin)
        containing = {name[:end] for name in self.chain for end, letter in enumerate(name) if letter == "."} | {""}
        self.others = {
            name: each
            for name, each in self.twin.named_modules()
            if name not in self.chain and name not in containing and name.rpartition(".")[0] in containing
            and any(True for _ in each.parameters())
        }  # fmt: skip
        self._module = sharing(module).eval()
        leave_out(self._module, self.twin, lambda name: name not in self.chain and name not in self.others)
        _filled(self._module, device)
        self.layers = dict(self._module.named_modules())

    def run(self, inputs: tuple[Any, ...], seen: Callable[[str, Any, Any], None]) -> Any:
        """Return the output, of the right shape; `seen` gets name, arguments and output of each layer called."""

        def hook(name: str) -> Callable[..., None]:
            return lambda _, given, made: seen(name, given, made)

        hooks = [self.layers[name].register_forward_hook(hook(name)) for name in (*self.chain, *self.others)]
        try:
            with import_torch().no_grad():
                return self._module(*inputs)
        finally:
            for each in hooks:
                each.remove()
