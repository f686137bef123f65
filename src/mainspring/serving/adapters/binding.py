"""Calls of a session through bound memory: inputs and outputs lie in buffers that are kept, by their number of rows.

ONNX Runtime copies between them and its device itself; memory that the driver has pinned it copies without a detour
(`OrtValue` and `IOBinding` of https://onnxruntime.ai/docs/api/python/api_summary.html).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from mainspring.serving.plane.executor import Array
from mainspring.serving.protocol.tensor import BYTES, DTYPES

_PAGE = 4096  # bytes
Pin = Callable[[Array, int, int], bool]  # of an array: address and bytes of whole pages of it


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output whose size follows from the number of rows."""

    name: str
    dtype: np.dtype[Any]
    row: tuple[int, ...]  # shape of one row


def values(graph: Sequence[Any], dtypes: Mapping[str, str]) -> list[Value] | None:
    """Return the values of a graph; `None` if the shape of one does not follow from the number of rows.

    Args:
        graph: Objects with `name`, `type` and `shape`.
        dtypes: Type as ONNX Runtime writes it -> datatype of the protocol.
    """
    found = []
    for each in graph:
        shape, datatype = list(each.shape or []), dtypes.get(each.type, BYTES)
        if not shape or datatype == BYTES or isinstance(shape[0], int) or not all(_fixed(size) for size in shape[1:]):
            return None
        found.append(Value(each.name, DTYPES[datatype], tuple(shape[1:])))
    return found


def _fixed(size: Any) -> bool:
    return isinstance(size, int) and size > 0


class Bindings:
    """Buffers of one session. Threads may share it: each call has a set of its own.

    Args:
        session: Of ONNX Runtime.
        rows: Most rows of a call.
        pin: Pins memory; `None` where nothing is gained by that.
    """

    def __init__(
        self, session: Any, inputs: Sequence[Value], outputs: Sequence[Value], rows: int, pin: Pin | None
    ) -> None:
        self._session = session
        self._inputs, self._outputs = inputs, outputs
        self._rows = rows
        self._pin = pin
        self._free: deque[_Buffers] = deque()

    def run(self, feed: Mapping[str, Array], rows: int, options: Any) -> list[Array]:
        """Return the outputs, in order, as arrays of the caller.

        Raises:
            ValueError: An input has another shape.
            The runtime's own errors.
        """
        try:
            buffers = self._free.pop()
        except IndexError:
            buffers = _Buffers(self._session, self._inputs, self._outputs, self._rows, self._pin)
        try:
            binding, given, found = buffers.of(rows)
            for name, array in given.items():
                if array.shape != feed[name].shape:
                    raise ValueError(f"{name} has the shape {feed[name].shape}")
                array[...] = feed[name]
            self._session.run_with_iobinding(binding, options)
            return [array.copy() for array in found]
        finally:
            self._free.append(buffers)


class _Buffers:
    def __init__(
        self, session: Any, inputs: Sequence[Value], outputs: Sequence[Value], rows: int, pin: Pin | None
    ) -> None:
        self._session = session
        self._inputs = {value.name: _memory(value, rows, pin) for value in inputs}
        self._outputs = {value.name: _memory(value, rows, pin) for value in outputs}
        self._bound: dict[int, tuple[Any, dict[str, Array], list[Array]]] = {}

    def of(self, rows: int) -> tuple[Any, dict[str, Array], list[Array]]:
        """Return what binds so many rows, and the memory of the inputs and outputs."""
        found = self._bound.get(rows)
        if found is None:
            binding = self._session.io_binding()
            given = {name: array[:rows] for name, array in self._inputs.items()}
            for name, array in given.items():
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
            answers = {name: array[:rows] for name, array in self._outputs.items()}
            for name, array in answers.items():
                binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
            found = self._bound[rows] = (binding, given, [*answers.values()])
        return found


def _memory(value: Value, rows: int, pin: Pin | None) -> Array:
    """Return an array of `rows` rows on pages of its own."""
    shape = (rows, *value.row)
    nbytes = math.prod(shape) * value.dtype.itemsize
    pages = -(-max(nbytes, 1) // _PAGE) * _PAGE
    raw = np.zeros(pages + _PAGE, np.uint8)
    begin = -raw.ctypes.data % _PAGE
    array: Array = raw[begin : begin + nbytes].view(value.dtype).reshape(shape)
    if pin is not None:
        pin(raw, raw.ctypes.data + begin, pages)
    return array
