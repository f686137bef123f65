"""Cheap sample of a table's rows, for choosing bins and candidates that are then counted over every row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import Corrupt
from mainspring.data.model import SEALED_PREFIX, TableScan
from mainspring.data.sealed import open_columns

ROWS = 100_000
_GROUPS = 32  # maximum number of row groups read
_FEW = 4  # maximum number of row groups read completely


def spread(scan: TableScan, columns: Sequence[str], rows: int = ROWS) -> pa.Table:
    """Return at most `rows` evenly spaced rows of some columns; all rows if there are no more.

    With many row groups, only the beginnings of some evenly spaced ones are read. The same version gives the same rows.
    A column that no file has is omitted.

    Raises:
        Corrupt: A file cannot be read.
    """
    if scan.rows is not None:
        return _thinned(scan.rows.select([name for name in columns if name in scan.rows.column_names]), rows)
    try:
        wanted = [*columns, *(SEALED_PREFIX + name for name in columns if name in scan.opens)]
        pieces = [
            _typed(open_columns(piece, scan.opens), scan.schema) for piece in _pieces(scan.files or (), wanted, rows)
        ]
    except (pa.ArrowException, OSError) as error:
        what = (str(error).splitlines() or [""])[0]
        raise Corrupt(
            f"A file of a table cannot be read: {what}", fix="run `mainspring doctor`, or restore it from a backup."
        ) from error
    return pa.concat_tables(pieces, promote_options="permissive") if pieces else pa.table({})


def _pieces(files: Sequence[str], columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    chosen = _evenly(files, _GROUPS)
    for name in chosen:
        with pq.ParquetFile(name) as file:
            # With few files, several groups of each.
            groups = _evenly(range(file.metadata.num_row_groups), _GROUPS // len(chosen))
            wanted = [column for column in columns if column in file.schema_arrow.names]
            for group in groups:
                share = rows // len(chosen) // len(groups)
                if len(chosen) * len(groups) <= _FEW:
                    yield _thinned(file.read_row_group(group, columns=wanted), share)
                elif share:  # the first rows of each group; the rest is not decoded
                    yield from map(_as_table, itertools.islice(file.iter_batches(share, [group], wanted), 1))


def _as_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _typed(piece: pa.Table, schema: pa.Schema | None) -> pa.Table:
    """Return a file's columns in the table's types: a file may have text views, or narrower numbers."""
    kinds = [
        (name, piece.schema.field(name).type if schema is None else schema.field(name).type)
        for name in piece.column_names
    ]
    return piece.cast(pa.schema(kinds))


def _thinned(table: pa.Table, rows: int) -> pa.Table:
    if len(table) <= rows:
        return table
    step = len(table) / rows
    return table.take(pa.array([int(place * step) for place in range(rows)], pa.int64()))


def _evenly(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` evenly spaced items, including the first and the last."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return [items[len(items) // 2]]
    return [items[place * (len(items) - 1) // (most - 1)] for place in range(most)]
