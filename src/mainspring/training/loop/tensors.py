"""Conversion of PyTorch state dicts to JSON and named tensors, without pickle."""

from __future__ import annotations

from typing import Any

from mainspring.core.errors import Invalid, MissingExtra

_TENSOR, _TUPLE, _ITEMS = "$tensor", "$tuple", "$items"


def import_torch() -> Any:
    """Import and return the module `torch`.

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra("Training with PyTorch", "torch") from error
    return torch


def take_apart(tree: Any) -> tuple[Any, dict[str, Any]]:
    """Split `tree` into JSON and tensors, which the JSON refers to by name.

    Dicts with any keys, lists, tuples, numbers (NaN and infinity included), texts and tensors are restored exactly by
    `put_together`.

    Raises:
        Invalid: The tree holds a value of another type; the message says where.
    """
    torch = import_torch()
    tensors: dict[str, Any] = {}

    def apart(value: Any, at: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[at] = value.detach()
            return {_TENSOR: at}
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, dict):
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: apart(each, f"{at}/{key}") for key, each in value.items()}
            return {_ITEMS: [[apart(key, at), apart(each, f"{at}/{key}")] for key, each in value.items()]}
        if isinstance(value, list | tuple):
            parts = [apart(each, f"{at}/{number}") for number, each in enumerate(value)]
            return parts if isinstance(value, list) else {_TUPLE: parts}
        raise Invalid(
            f"The state at {at or '/'!r} is a {type(value).__qualname__}, which a checkpoint cannot keep.",
            fix="state dicts may hold tensors, numbers, texts, lists, tuples and dicts.",
        )

    return apart(tree, ""), tensors


def put_together(tree: Any, tensors: dict[str, Any]) -> Any:
    """Restore a tree that `take_apart` split."""
    if isinstance(tree, list):
        return [put_together(each, tensors) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if _TENSOR in tree:
        return tensors[tree[_TENSOR]]
    if _TUPLE in tree:
        return tuple(put_together(tree[_TUPLE], tensors))
    if _ITEMS in tree:
        return {put_together(key, tensors): put_together(each, tensors) for key, each in tree[_ITEMS]}
    return {key: put_together(each, tensors) for key, each in tree.items()}
