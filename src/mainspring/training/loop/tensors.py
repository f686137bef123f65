"""State dicts of PyTorch as JSON and tensors: the tree as text, its tensors in one file of the safetensors format.

Nothing is pickled. The file is written here, in one pass and without a copy of the tensors
(https://huggingface.co/docs/safetensors: eight bytes of length, a header in JSON, the tensors' bytes), and read by the
library.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mainspring.core.errors import Corrupt, Invalid, MissingExtra

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip
_PIECE = 4 << 20  # bytes written and digested at a time
_TENSOR, _TUPLE, _ITEMS = "$tensor", "$tuple", "$items"


def import_torch() -> Any:
    """Return the module `torch`.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra("Training with PyTorch", "torch") from error
    return torch


def take_apart(tree: Any) -> tuple[Any, dict[str, Any]]:
    """Return `tree` as JSON knows it, and its tensors by the names that stand for them there.

    Dicts of any keys, lists, tuples, numbers (NaN and infinity too), texts and tensors are put together again as they
    were by `put_together`.

    Raises:
        Invalid: There is something else in it; the message says where.
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
    """Return what `take_apart` took apart."""
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


def write_tensors(path: Path, tensors: dict[str, Any]) -> str:
    """Write a file of the safetensors format, sync it, and return its SHA-256.

    Raises:
        Invalid: A tensor is sparse, quantised, or of a type that the format does not know.
    """
    torch = import_torch()
    header: dict[str, Any] = {}
    begin = 0
    for name, tensor in tensors.items():
        kind = _NAMES.get(str(tensor.dtype).removeprefix("torch."))
        if kind is None or tensor.layout != torch.strided:
            raise Invalid(f"Tensor {name!r} is {tensor.dtype}, {tensor.layout}, which a checkpoint cannot keep.")
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("xb", buffering=0) as file:

        def put(content: Any) -> None:
            whole = memoryview(content)
            for start in range(0, len(whole), _PIECE):
                piece = whole[start : start + _PIECE]
                digest.update(piece)
                while len(piece):  # an unbuffered file may take less
                    piece = piece[file.write(piece) or 0 :]

        put(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            if tensor.numel():
                put(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        os.fsync(file.fileno())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a file, on the CPU.

    Raises:
        Corrupt: It is no file of that format.
        MissingExtra: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ModuleNotFoundError as error:
        raise MissingExtra("Reading a checkpoint", "torch") from error
    try:
        return dict(load(path.read_bytes()))  # not mapped: the folder may be pruned while the tensors are in use
    except SafetensorError as error:
        raise Corrupt(f"{path} is no safetensors file: {error}") from error
