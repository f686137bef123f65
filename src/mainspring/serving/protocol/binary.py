"""Tensors as bytes: the protocol's binary extension, little-endian and row-major.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md. An element of BYTES
is its length in four bytes, then itself. The same bytes are gRPC's `raw_input_contents` and `raw_output_contents`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.serving.protocol.tensor import BYTES, DTYPES, count_of, shown

_LENGTH = struct.Struct("<I")


def read(name: str, datatype: str, shape: tuple[int, ...], raw: memoryview) -> np.ndarray[Any, Any] | list[Any]:
    """Return the elements that `raw` holds: an array of `shape` over the same memory, or of BYTES a list of `bytes`.

    Raises:
        Invalid: There are fewer or more bytes than the shape needs, or a BOOL is neither 0 nor 1.
    """
    count = count_of(name, shape)
    if datatype == BYTES:
        return _read_bytes(name, shape, count, raw)
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise Invalid(
            f"Input {name!r} has {len(raw)} bytes of data; {datatype} of the shape {shown(shape)} needs "
            f"{count * dtype.itemsize}."
        )
    if datatype == "BOOL" and count and np.frombuffer(raw, np.uint8).max() > 1:
        raise Invalid(f"Input {name!r} contains a byte other than 0 and 1, so it is not BOOL.")
    return np.frombuffer(raw, dtype).reshape(shape)


def write(data: np.ndarray[Any, Any] | Iterable[Any], datatype: str) -> bytes:
    """Return the bytes of an array, or of a sequence of `str` and `bytes`."""
    if datatype != BYTES:
        return np.asarray(data, DTYPES[datatype]).tobytes()
    parts: list[bytes] = []
    for value in data.ravel().tolist() if isinstance(data, np.ndarray) else data:
        element = value if type(value) is bytes else str(value).encode()
        parts += (_LENGTH.pack(len(element)), element)
    return b"".join(parts)


def _read_bytes(name: str, shape: tuple[int, ...], count: int, raw: memoryview) -> list[bytes]:
    size, content = len(raw), bytes(raw)
    if count * _LENGTH.size > size:
        raise Invalid(f"Input {name!r} has {size} bytes of data, too few for BYTES of the shape {shown(shape)}.")
    elements: list[bytes] = []
    position = 0
    for _ in range(count):
        if position + _LENGTH.size > size:
            raise _cut(name, len(elements), count)
        begin = position + _LENGTH.size
        position = begin + _LENGTH.unpack_from(content, position)[0]
        if position > size:
            raise _cut(name, len(elements), count)
        elements.append(content[begin:position])
    if position != size:
        raise Invalid(f"Input {name!r} has {size - position} extra bytes after its last element.")
    return elements


def _cut(name: str, element: int, count: int) -> Invalid:
    return Invalid(f"Input {name!r} ends inside its element {element} of {count}.")
