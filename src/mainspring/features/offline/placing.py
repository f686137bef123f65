"""Results in the order of the observations: batches come in any order, and each value is put where its row belongs.

Cheaper than to sort: no second copy of the result is ever held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Kind:
    """A column's type, and what it is instead of null."""

    type: pa.DataType
    default: float | int | None = None


class Placed:
    """One column of `rows` values, the default where none was put."""

    def __init__(self, kind: Kind, rows: int) -> None:
        self.kind = kind.type
        self._default = kind.default
        self._fixed = _numpy_type(kind.type)
        self._valid = np.zeros(rows, np.bool_)
        # Left as it comes from the system: a page that holds nothing takes no memory.
        self._values = np.zeros(0 if self._fixed is None else rows, self._fixed)
        self._texts: list[Any] = []
        self._places: list[Any] = []

    def put(self, places: np.ndarray[Any, Any], values: pa.Array[Any]) -> None:
        if values.null_count == len(values):
            return
        if self._fixed is None:
            self._texts.append(values)
            self._places.append(places)
            return
        valid, data = values.buffers()
        self._valid[places] = True if values.null_count == 0 else _bits(valid, values)
        self._values[places] = _bits(data, values) if self._fixed is np.bool_ else _numbers(data, values, self._fixed)

    def finish(self) -> pa.Array[Any]:
        rows = len(self._valid)
        if self._fixed is None:
            return self._gathered(rows)
        if self._default is not None:
            self._values[~self._valid] = self._default
        valid = None if self._default is not None or self._valid.all() else _packed(self._valid)
        data = _packed(self._values) if self._fixed is np.bool_ else pa.py_buffer(self._values.data)
        return pa.Array.from_buffers(self.kind, rows, [valid, data])

    def _gathered(self, rows: int) -> pa.Array[Any]:
        if not self._texts:
            nothing: pa.Array[Any] = pa.array([], self.kind).take(pa.nulls(rows, pa.int64()))
            return nothing
        place = np.zeros(rows, np.int64)
        places = np.concatenate(self._places)
        place[places] = np.arange(len(places))
        self._valid[places] = True
        indices = pa.Array.from_buffers(pa.int64(), rows, [_packed(self._valid), pa.py_buffer(place.data)])
        gathered: pa.Array[Any] = pa.concat_arrays(self._texts).take(indices)
        return gathered


def placed(
    batches: Iterable[pa.RecordBatch], rows: int, kinds: Mapping[str, Kind], first: int = 0
) -> dict[str, pa.Array[Any]]:
    """Return columns of shape (rows,) from batches of `_i` (int64) and the columns of `kinds`.

    Args:
        first: The number `_i` of the first row.
    """
    columns = {name: Placed(kind, rows) for name, kind in kinds.items()}
    for batch in batches:
        places = _numbers(batch.column("_i").buffers()[1], batch.column("_i"), np.int64) - first
        for name, column in columns.items():
            values = batch.column(name)
            column.put(places, values if values.type == column.kind else values.cast(column.kind))
    return {name: column.finish() for name, column in columns.items()}


def _numpy_type(kind: pa.DataType) -> Any:
    """Return how a column's values lie in memory, `None` where they have no fixed width."""
    if pa.types.is_boolean(kind):
        return np.bool_
    if pa.types.is_timestamp(kind):
        return np.int64
    return kind.to_pandas_dtype() if pa.types.is_primitive(kind) else None


def _numbers(buffer: Any, values: pa.Array[Any], kind: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(buffer, kind)[values.offset : values.offset + len(values)]


def _bits(buffer: Any, values: pa.Array[Any]) -> np.ndarray[Any, Any]:
    end = values.offset + len(values)
    octets: np.ndarray[Any, np.dtype[np.uint8]] = np.frombuffer(buffer, np.uint8)
    return np.unpackbits(octets, count=end, bitorder="little")[values.offset :].view(np.bool_)


def _packed(values: np.ndarray[Any, Any]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little").data)
