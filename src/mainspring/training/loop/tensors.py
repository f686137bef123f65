"""Tensors of a checkpoint: state dicts as JSON and named tensors, without pickle, in one file with a checksum.

The file has the safetensors format (https://huggingface.co/docs/safetensors): eight bytes of length, a header in JSON,
the tensors' bytes. This module writes it in one pass, with the digest computed on the way; the library reads it. The
last tensor, `sha256`, is the SHA-256 of all bytes before it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.core.errors import Corrupt, Invalid, MissingExtra

_TENSOR, _TUPLE, ITEMS = "$tensor", "$tuple", "$items"
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip
_PIECE = 4 << 20  # bytes written and digested at a time
_SAMPLED = 1024  # elements of a tensor that are compared between ranks
_DIGEST = "sha256"
_TEXT = "text"


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
                return {key: apart(element, f"{at}/{key}") for key, element in value.items()}
            return {ITEMS: [[apart(key, at), apart(element, f"{at}/{key}")] for key, element in value.items()]}
        if isinstance(value, list | tuple):
            parts = [apart(element, f"{at}/{number}") for number, element in enumerate(value)]
            return parts if isinstance(value, list) else {_TUPLE: parts}
        raise Invalid(
            f"The state at {at or '/'!r} is a {type(value).__qualname__}, which a checkpoint cannot store.",
            fix="state dicts can contain tensors, numbers, texts, lists, tuples and dicts.",
        )

    return apart(tree, ""), tensors


def put_together(tree: Any, tensors: dict[str, Any]) -> Any:
    """Restore a tree that `take_apart` split."""
    if isinstance(tree, list):
        return [put_together(element, tensors) for element in tree]
    if not isinstance(tree, dict):
        return tree
    if _TENSOR in tree:
        return tensors[tree[_TENSOR]]
    if _TUPLE in tree:
        return tuple(put_together(tree[_TUPLE], tensors))
    if ITEMS in tree:
        return {put_together(key, tensors): put_together(element, tensors) for key, element in tree[ITEMS]}
    return {key: put_together(element, tensors) for key, element in tree.items()}


def packed(tree: Any) -> bytes:
    """Return a tree as `take_apart` takes it, in bytes."""
    from safetensors.torch import save

    text, tensors = take_apart(tree)
    return bytes(save({name: each.contiguous() for name, each in tensors.items()}, {_TEXT: json.dumps(text)}))


def unpacked(content: bytes) -> Any:
    """Restore a tree that `packed` stored."""
    from safetensors.torch import load

    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return put_together(json.loads(head["__metadata__"][_TEXT]), load(content))


def weights_digest(weights: Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors: names, types, shapes and bytes, in the order of the names."""
    torch = import_torch()
    sha = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach()
        sha.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            sha.update(memoryview(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return sha.hexdigest()


def sampled_digest(weights: Mapping[str, Any]) -> str:
    """Return the SHA-256 of some elements of each tensor, evenly spread, in the order of the names."""
    some = {name: each.detach().reshape(-1) for name, each in weights.items() if not each.is_meta}
    return weights_digest({name: each[:: max(1, len(each) // _SAMPLED)] for name, each in some.items()})


@dataclass(frozen=True, slots=True)
class Place:
    """Position of a tensor's bytes in the data section: from `begin` to `end`."""

    begin: int
    end: int
    kind: str  # the format's name of the type
    shape: tuple[int, ...]


def places(tensors: Mapping[str, Any]) -> dict[str, Place]:
    """Return the layout of the tensors, widest types first, so that each begins at a multiple of its width.

    Raises:
        Invalid: A tensor is sparse, quantised, or of a type that the format lacks.
    """
    strided = import_torch().strided
    for name, tensor in tensors.items():
        if str(tensor.dtype).removeprefix("torch.") not in _NAMES or tensor.layout != strided:
            raise Invalid(f"Tensor {name!r} is {tensor.dtype}, {tensor.layout}, which a checkpoint cannot store.")
    found: dict[str, Place] = {}
    begin = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        end = begin + tensor.numel() * tensor.element_size()
        kind = _NAMES[str(tensor.dtype).removeprefix("torch.")]
        found[name] = Place(begin, end, kind, tuple(tensor.shape))
        begin = end
    return found


def pieces(tensors: Mapping[str, Any], found: Mapping[str, Place]) -> Iterable[Any]:
    """Yield the bytes of the tensors, in the order of their places, without copying those on the CPU."""
    torch = import_torch()
    for name in found:
        if tensors[name].numel():
            yield tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def write_tensors(path: Path, layout: Mapping[str, Place], content: Iterable[Any], text: str) -> str:
    """Write a new file, sync it, and return the SHA-256 that is its end.

    Args:
        content: The bytes of the tensors, in the order of their places.
        text: Text stored in the header.
    """
    end = max((place.end for place in layout.values()), default=0)
    header: dict[str, Any] = {"__metadata__": {_TEXT: text}}
    for name, place in layout.items():
        header[name] = {"dtype": place.kind, "shape": place.shape, "data_offsets": (place.begin, place.end)}
    header[_DIGEST] = {"dtype": "U8", "shape": (32,), "data_offsets": (end, end + 32)}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with path.open("xb", buffering=0) as file:
        for part in (len(head).to_bytes(8, "little") + head, *content):
            _put(file.write, part, digest)
        found = digest.digest()
        _put(file.write, found, digest)
        os.fsync(file.fileno())
    return found.hex()


def _put(write: Callable[[Any], int | None], content: Any, digest: Any) -> None:
    whole = memoryview(content)
    for start in range(0, len(whole), _PIECE):
        piece = whole[start : start + _PIECE]
        digest.update(piece)
        while len(piece):  # an unbuffered write may be partial
            piece = piece[write(piece) or 0 :]


def check_digest(path: Path, size: int, wanted: str) -> None:
    """Raise unless a file is of this size and ends with this SHA-256 of what is before.

    Raises:
        Corrupt: It is another, is damaged, or is missing.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise Corrupt(f"{path} is not as long as it was written, {size} bytes.")
            for begin in range(0, size - 32, _PIECE):
                digest.update(file.read(min(_PIECE, size - 32 - begin)))
            if not digest.hexdigest() == file.read().hex() == wanted:
                raise Corrupt(f"{path} differs from the written content.")
    except OSError as error:
        raise Corrupt(f"{path} is damaged: {type(error).__name__}: {error}.") from error


def read_text(path: Path) -> str:
    """Return the text of a file, without verifying the checksum.

    Raises:
        Corrupt: The file does not have that format.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return str(header["__metadata__"][_TEXT])
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        raise Corrupt(f"{path} has no header: {type(error).__name__}: {error}.") from error


def read_tensors(path: Path) -> tuple[dict[str, Any], str]:
    """Return the tensors of a file, on the CPU, and its text, after verifying the checksum.

    Raises:
        Corrupt: The file is damaged.
        MissingExtra: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ModuleNotFoundError as error:
        raise MissingExtra("Reading a checkpoint", "torch") from error
    try:
        content = path.read_bytes()  # not mapped: the file may be pruned while the tensors are in use
        if hashlib.sha256(memoryview(content)[:-32]).digest() != content[-32:]:
            raise Corrupt(f"{path} differs from the written content.")
        tensors = dict(load(content))
        del tensors[_DIGEST]
    except (OSError, SafetensorError, KeyError) as error:
        raise Corrupt(f"{path} is damaged: {type(error).__name__}: {error}.") from error
    return tensors, read_text(path)
