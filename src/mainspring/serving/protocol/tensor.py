"""Tensors as they come in and go out, whichever the protocol: its datatypes, and NumPy's.

https://github.com/open-inference/open-inference-protocol, "Tensor Data Types", without BF16, which NumPy does not have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Corrupt, Invalid
from mainspring.registry.model import TensorSpec

BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BYTES: np.dtype(np.object_),
}
DATATYPES = tuple(DTYPES)
_OF_DTYPE = {dtype: datatype for datatype, dtype in DTYPES.items()}
MAX_RANK = 16
_USUAL = 1 << 24  # a dimension of no more needs no second look
_MAX_ELEMENTS = 2**59  # of eight bytes


class Tensor(msgspec.Struct, gc=False):
    """One input or output by name.

    `data` is an array of `shape`, or a flat list in row-major order with exactly the elements of `shape`: numbers that
    the datatype holds, and `None` for a null; of BYTES, `str` or `bytes`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: np.ndarray[Any, Any] | list[Any]


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's word for an array's type; anything that is not a number or boolean is BYTES."""
    return _OF_DTYPE.get(dtype, BYTES)


def count_of(name: str, shape: Sequence[int]) -> int:
    """Return how many elements an input of this shape has.

    Raises:
        Invalid: A dimension is negative, or there are too many.
    """
    rank = len(shape)
    if rank == 1 and shape[0] >= 0:
        return shape[0]
    if rank == 2 and 0 <= shape[0] <= _USUAL and 0 <= shape[1] <= _USUAL:
        return shape[0] * shape[1]
    # NumPy also refuses what would be too large if it were not empty.
    if rank > MAX_RANK or min(shape, default=0) < 0 or math.prod(size or 1 for size in shape) > _MAX_ELEMENTS:
        raise Invalid(f"Input {name!r} has the shape {shown(shape)}, which is not a tensor's.")
    return math.prod(shape)


def shown(shape: Sequence[int]) -> str:
    """Return a shape for a message, cut where it is too long."""
    return f"[{', '.join(map(str, shape[:8]))}{', ...' if len(shape) > 8 else ''}]"[:120]


def check_specs(specs: Sequence[TensorSpec], owner: str) -> None:
    """Raise if these cannot be the tensors of a model.

    Raises:
        Corrupt: A name stands twice or is empty, a datatype is unknown, the first dimension is not -1 (the batch), or
            another is neither -1 nor at least 1.
    """
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names) or not all(names):
        raise Corrupt(f"The tensors of {owner} are named {names}; names must be unique.")
    for spec in specs:
        if spec.datatype not in DTYPES:
            raise Corrupt(
                f"Tensor {spec.name!r} of {owner} is of type {spec.datatype!r}, not one of {', '.join(DTYPES)}."
            )
        if not spec.shape or spec.shape[0] != -1 or any(size != -1 and size < 1 for size in spec.shape):
            raise Corrupt(
                f"Tensor {spec.name!r} of {owner} has the shape {shown(spec.shape)}; it must be [-1, ...], where -1 is "
                "the batch."
            )
