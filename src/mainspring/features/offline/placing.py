"""Results in the order of the observations: batches arrive in any order, and each value is placed at its row.

In memory that is cheaper than a sort, without a second copy of the result. Results larger than memory are sorted by
DuckDB into one file per query, and the files are read side by side, piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.expr.sql import quote_text
from mainspring.data.arrow import parquet_batches
from mainspring.features.offline.pieces import PIECE_ROWS, opened
from mainspring.features.offline.query import execute

BATCH_ROWS = 122_880  # DuckDB's row group


@dataclass(frozen=True, slots=True)
class Kind:
    """A column's type, and its default instead of null."""

    type: pa.DataType
    default: float | int | None = None


class Placed:
    """One column of `rows` values, with the default where none was placed."""

    def __init__(self, kind: Kind, rows: int) -> None:
        self.kind = kind.type
        self._default = kind.default
        self._fixed = _numpy_type(kind.type)
        self._valid = np.zeros(rows, np.bool_)
        # Uninitialised memory of the system: an untouched page takes no memory.
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


# Returns one query's features of the observations `first`, `first` + 1, ... by full name, each of shape
# (rows,). It is called for one piece after another.
Kept = Callable[[int, int], dict[str, Any]]
Keep = Callable[[str, Mapping[str, Kind], str], Kept]  # arguments: a query, its columns, the prefix of their full names


def in_memory(con: Any, rows: int) -> Keep:
    """Collect results of queries over all `rows` observations, which are one piece, in memory."""

    def keep(query: str, kinds: Mapping[str, Kind], prefix: str) -> Kept:
        columns = placed(con.sql(query).to_arrow_reader(BATCH_ROWS), rows, kinds)
        found = {prefix + name: column for name, column in columns.items()}
        return lambda _first, _rows: found

    return keep


def in_files(con: Any, folder: Path, stack: ExitStack) -> Keep:
    """Collect the results of each query in its own file in `folder`, open as long as `stack`."""

    def keep(query: str, kinds: Mapping[str, Kind], prefix: str) -> Kept:
        path = folder / f"features.{len(list(folder.iterdir()))}.parquet"
        execute(con, f"COPY (FROM ({query}) ORDER BY _i) TO {quote_text(str(path))} (FORMAT parquet, COMPRESSION lz4)")
        file = _File(stack.enter_context(opened(path)))

        def upto(first: int, rows: int) -> dict[str, pa.Array[Any]]:
            columns = placed(file.before(first + rows), rows, kinds, first)
            return {prefix + name: column for name, column in columns.items()}

        return upto

    return keep


class _File:
    """A query's rows in the order of the observations; observations without a match are absent."""

    def __init__(self, file: Any) -> None:
        self._batches = parquet_batches(file, PIECE_ROWS)
        self._rest: pa.RecordBatch | None = None

    def before(self, number: int) -> Iterator[pa.RecordBatch]:
        """Yield the remaining rows of the observations before `number`."""
        while (batch := self._rest or next(self._batches, None)) is not None:
            self._rest = None
            there = int(batch.column("_i").to_numpy().searchsorted(number))
            yield batch.slice(0, there)
            if there < batch.num_rows:
                self._rest = batch.slice(there)
                return


def _numpy_type(kind: pa.DataType) -> Any:
    """Return the NumPy type of a column's buffer, `None` if its values have no fixed width."""
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
