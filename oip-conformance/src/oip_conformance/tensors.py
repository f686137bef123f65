"""Valid tensors of any shape and datatype, in plain Python: as JSON, and as the binary extension's bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

# Datatype -> the letter that `struct` packs an element by. BYTES has none: each element has a length of its own.
FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
# BF16 is Triton's, beyond the specification; it stands nowhere but in metadata here.
DATATYPES = frozenset({*FORMATS, "BYTES", "BF16"})
ROWS = 2
_VARIABLE = 4  # the size of every later dimension that may vary: sequences that belong together stay as long


def shape_of(declared: Sequence[int], rows: int) -> list[int]:
    """Return a shape that metadata's allows: the first dimension is `rows` where it may vary."""
    return [size if size >= 0 else (rows if position == 0 else _VARIABLE) for position, size in enumerate(declared)]


def values(datatype: str, count: int) -> list[Any]:
    """Return `count` elements: small, and 0 or 1 where they are whole, so that they are good as indices as well."""
    if datatype == "BOOL":
        return [bool(number % 2) for number in range(count)]
    if datatype == "BYTES":
        return ["ab"[number % 2] for number in range(count)]
    if datatype.startswith(("FP", "BF")):
        return [0.5 if number % 2 else 0.25 for number in range(count)]
    return [number % 2 for number in range(count)]


def nested(data: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """Return flat data as nested lists, in row-major order."""
    made = list(data)
    for size in reversed(shape[1:]):
        made = [made[start : start + size] for start in range(0, len(made), size)]
    return made


def flat(data: Any) -> list[Any]:
    """Return the innermost values, in row-major order."""
    if not isinstance(data, list):
        return [data]
    return [value for each in data for value in flat(each)]


def pack(datatype: str, data: Sequence[Any]) -> bytes:
    """Return flat data as little-endian bytes without padding; before each element of BYTES stands its length."""
    if datatype == "BYTES":
        texts = [str(value).encode() for value in data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack(f"<{len(data)}{FORMATS[datatype]}", *data)


def unpack(datatype: str, content: bytes) -> list[Any]:
    """Return the elements in bytes as `pack` makes them.

    Raises:
        ValueError: They are not whole elements.
    """
    if datatype != "BYTES":
        letter = FORMATS[datatype]
        if len(content) % struct.calcsize(f"<{letter}"):
            raise ValueError(f"{len(content)} bytes are not whole elements of {datatype}")
        return list(struct.unpack(f"<{len(content) // struct.calcsize(f'<{letter}')}{letter}", content))
    found, at = [], 0
    while at < len(content):
        (size,) = struct.unpack_from("<I", content, at) if at + 4 <= len(content) else (len(content),)
        if at + 4 + size > len(content):
            raise ValueError("an element of BYTES is cut off")
        found.append(content[at + 4 : at + 4 + size].decode(errors="replace"))
        at += 4 + size
    return found


def close(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether two answers are the same but for rounding."""
    return len(one) == len(other) and all(
        (isinstance(a, float) and isinstance(b, (int, float)) and math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-5))
        or a == b
        or (a is None and isinstance(b, float) and math.isnan(b))
        for a, b in zip(one, other, strict=True)
    )
