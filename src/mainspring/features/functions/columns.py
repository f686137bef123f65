"""Arrow columns in messages, and calls of a function with them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mainspring.data.arrow import INSTANT
from mainspring.features.functions.messages import Answer, Call
from mainspring.features.functions.process import FunctionProcess


def compute(process: FunctionProcess, rows: pa.Table) -> pa.Table:
    """Return the outputs of a function for its inputs, in one call; shape (rows, outputs).

    Raises:
        FunctionFailed: As `FunctionProcess.call`.
    """
    return answered(process, rows)[0]


def answered(process: FunctionProcess, rows: pa.Table) -> tuple[pa.Table, Answer]:
    """Return the outputs as `compute` does, and the answer that brought them."""
    answer = process.call(Call(rows.num_rows, stream=as_stream(rows)))
    return from_stream(answer.stream or b""), answer


def as_lists(table: pa.Table) -> dict[str, list[Any]]:
    """Return the columns as lists; instants as UTC epoch microseconds."""
    plain = {
        name: column.cast(pa.int64()) if column.type == INSTANT else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return {name: column.to_pylist() for name, column in plain.items()}


def as_stream(table: pa.Table) -> bytes:
    """Return the rows as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_stream(content: bytes) -> pa.Table:
    """Return the rows of an Arrow stream."""
    return pa.ipc.open_stream(content).read_all()
