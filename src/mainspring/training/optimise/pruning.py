"""Pruning of torch modules by the size of their weights, to be trained further: single weights, or whole neurons.

Magnitude pruning with fine-tuning: Han, Pool, Tran and Dally, Learning both weights and connections (NeurIPS 2015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.tensors import import_torch

_WIDE = ("Linear", "Conv1d", "Conv2d", "Conv3d")
_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")
_ALONE = (  # layers that treat each neuron for itself
    "ReLU", "ReLU6", "LeakyReLU", "GELU", "SiLU", "ELU", "SELU", "CELU", "Tanh", "Sigmoid", "Softplus", "Mish",
    "Hardswish", "Hardtanh", "Hardsigmoid", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout",
    "Identity", "MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
)  # fmt: skip


def prune(module: Any, share: float, *, structured: bool = False) -> Any:
    """Prune a module in place and return it. Make its optimiser and train it further after that.

    Args:
        share: Share of the weights of all linear and convolutional layers that become 0, the smallest first, and stay
            0 while it is trained. Structured: share of the neurons, or channels, that are removed from each layer.
        structured: Whether to remove neurons, which makes the module smaller and faster; else weights, which does
            neither, as products of matrices compute zeros too.

    Raises:
        Invalid: The share is not in [0, 1), or the module has no layer to prune. Neurons are removed within a
            `torch.nn.Sequential`, where the layer that reads them is known.
    """
    if not 0 <= share < 1:
        raise Invalid(f"A share of {share:g} cannot be pruned.", fix="give a number of at least 0, below 1.")
    return _neurons(module, share) if structured else _weights(module, share)


def _weights(module: Any, share: float) -> Any:
    torch = import_torch()
    layers = [each for each in module.modules() if type(each).__name__ in _WIDE]
    if not layers:
        raise Invalid(
            f"{type(module).__name__} has no linear or convolutional layer to prune.",
            fix="prune a module that has such layers.",
        )
    sizes = torch.cat([layer.weight.detach().abs().reshape(-1) for layer in layers])
    count = round(share * sizes.numel())
    if not count:
        return module
    kept = torch.ones(sizes.numel(), dtype=torch.bool, device=sizes.device)
    kept[torch.argsort(sizes, stable=True)[:count]] = False
    parts = torch.split(kept, [layer.weight.numel() for layer in layers])
    for layer, part in zip(layers, parts, strict=True):
        mask = part.reshape(layer.weight.shape)
        with torch.no_grad():
            layer.weight.mul_(mask)
        if layer.weight.requires_grad:  # else it is frozen
            layer.weight.register_hook(mask.to(layer.weight.dtype).mul)  # no gradient, so no step, and no weight
    return module


def _neurons(module: Any, share: float) -> Any:
    torch = import_torch()
    pairs = list(_pairs(module))
    if not pairs:
        raise Invalid(
            f"{type(module).__name__} has no torch.nn.Sequential in which one linear or convolutional layer reads "
            "another, so that neurons could be removed.",
            fix="put such layers into a torch.nn.Sequential, or prune with structured=False.",
        )
    for writer, between, reader in pairs:
        with torch.no_grad():
            _shrink(torch, writer, between, reader, share)
    return module


def _pairs(module: Any) -> Iterator[tuple[Any, list[Any], Any]]:
    """Yield each layer whose outputs one other layer alone reads, the normalisations between the two, and that one."""
    rows = [each for each in module.modules() if type(each).__name__ == "Sequential"]
    uses = Counter(id(layer) for part in rows for layer in part)
    for part in rows:
        writer: Any = None
        between: list[Any] = []
        for layer in part:
            kind = type(layer).__name__
            if uses[id(layer)] > 1 and kind not in _ALONE:  # others read and write it too
                writer, between = None, []
            elif kind in _WIDE:
                grouped = getattr(layer, "groups", 1) != 1
                if writer is not None and type(writer).__name__ == kind and not grouped:
                    yield writer, between, layer
                writer, between = (None if grouped else layer), []
            elif kind in _NORMS:
                between.append(layer)
            elif kind not in _ALONE:
                writer, between = None, []


def _shrink(torch: Any, writer: Any, between: list[Any], reader: Any, share: float) -> None:
    """Remove the neurons that weigh least: by what they read, times what is read of them."""
    neurons = writer.weight.shape[0]
    least = writer.weight.reshape(neurons, -1).norm(dim=1) * reader.weight.transpose(0, 1).reshape(neurons, -1).norm(
        dim=1
    )
    count = max(1, neurons - round(share * neurons))
    kept = torch.sort(torch.argsort(least, descending=True, stable=True)[:count]).values
    _replace(torch, writer, "weight", writer.weight[kept])
    if writer.bias is not None:
        _replace(torch, writer, "bias", writer.bias[kept])
    _replace(torch, reader, "weight", reader.weight[:, kept])
    for norm in between:
        for name in ("weight", "bias"):
            if getattr(norm, name) is not None:
                _replace(torch, norm, name, getattr(norm, name)[kept])
        for name in ("running_mean", "running_var"):
            if getattr(norm, name) is not None:
                setattr(norm, name, getattr(norm, name)[kept].clone())
        norm.num_features = count
    sides = ("out_features", "in_features") if hasattr(writer, "out_features") else ("out_channels", "in_channels")
    setattr(writer, sides[0], count)
    setattr(reader, sides[1], count)


def _replace(torch: Any, layer: Any, name: str, values: Any) -> None:
    old = getattr(layer, name)
    setattr(layer, name, torch.nn.Parameter(values.clone(), requires_grad=old.requires_grad))
