"""Check of a LoRA adapter: a safetensors file with nothing but pairs of low-rank matrices of one rank.

The format (https://huggingface.co/docs/safetensors) is eight bytes of length, a header in JSON, and the bytes of the
tensors; nothing in it can run code. PEFT names the pair of a layer `base_model.model.LAYER.lora_A.weight`, shape
(rank, inputs), and `...lora_B.weight`, shape (outputs, rank).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.json_content import decoded

ADAPTER = "adapter.safetensors"
_NAME = re.compile(r"base_model\.model\.([\w.]+)\.lora_([AB])\.weight", re.ASCII)
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}
_LONGEST_HEADER = 32 << 20


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """Facts of an adapter: its rank, the layers that it changes, and its parameters."""

    rank: int
    layers: tuple[str, ...]
    parameters: int


def check_lora(content: bytes, name: str) -> LoraAdapter:
    """Return the facts of an adapter.

    Raises:
        Corrupt: The file is no adapter: damaged, with other tensors, or with pairs that do not fit each other.
    """
    shapes: dict[tuple[str, str], tuple[int, int]] = {}
    ranges = []
    for tensor, fields in _header(content, name).items():
        if tensor == "__metadata__":
            continue
        found = _NAME.fullmatch(tensor)
        if found is None:
            raise Corrupt(f"{name} has the tensor {tensor[:80]!r}, which is no matrix of LoRA.")
        shapes[found[1], found[2]] = _shape(fields, f"{tensor!r} of {name}")
        begin, end = fields["data_offsets"]
        if end - begin != math.prod(shapes[found[1], found[2]]) * _WIDTHS[fields["dtype"]]:
            raise Corrupt(f"{tensor[:80]!r} of {name} has another size than its shape.")
        ranges.append((begin, end))
    ranges.sort()
    ends = [0, *(end for _, end in ranges)]
    if not ranges or [begin for begin, _ in ranges] != ends[:-1] or ends[-1] != len(content) - _data(content):
        raise Corrupt(f"{name} has no tensors, or bytes that belong to none or to several.")
    layers = sorted({layer for layer, _ in shapes})
    ranks = set()
    for layer in layers:
        down, up = shapes.get((layer, "A")), shapes.get((layer, "B"))
        if down is None or up is None or down[0] != up[1]:
            raise Corrupt(f"{name} has no pair of matrices for {layer[:80]!r}: {down} and {up}.")
        ranks.add(down[0])
    if len(ranks) > 1:
        raise Corrupt(f"{name} has matrices of several ranks: {sorted(ranks)}.")
    return LoraAdapter(ranks.pop(), tuple(layers), sum(math.prod(shape) for shape in shapes.values()))


def _data(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _header(content: bytes, name: str) -> dict[str, Any]:
    if len(content) < 8 or not 2 <= _data(content) - 8 <= min(_LONGEST_HEADER, len(content) - 8):
        raise Corrupt(f"{name} is no safetensors file: its header has no possible length.")
    try:
        return decoded(content[8 : _data(content)], dict[str, Any])
    except msgspec.DecodeError as error:
        raise Corrupt(f"{name} is no safetensors file: {error}.") from error


def _shape(fields: Any, owner: str) -> tuple[int, int]:
    wanted = {"dtype": str, "shape": list, "data_offsets": list}
    if not isinstance(fields, dict) or fields.keys() != wanted.keys() or fields["dtype"] not in _WIDTHS:
        raise Corrupt(f"The tensor {owner[:120]} has no type, shape and place that the format knows.")
    shape, offsets = fields["shape"], fields["data_offsets"]
    whole = all(type(each) is int and 0 <= each < 1 << 48 for each in (*shape, *offsets))
    if not whole or len(shape) != 2 or len(offsets) != 2 or 0 in shape:
        raise Corrupt(f"The tensor {owner[:120]} has the shape {str(shape)[:60]}; a matrix is needed.")
    return shape[0], shape[1]
