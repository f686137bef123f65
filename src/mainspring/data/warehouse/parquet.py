"""Rows as a Parquet file for a warehouse to load, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import Invalid
from mainspring.core.files import disk_errors
from mainspring.data.arrow import ARROW_TYPES, INSTANT
from mainspring.data.warehouse.types import converted, read_as

_KINDS = tuple(ARROW_TYPES.values())


def write_rows(
    rows: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    file: Path,
    *,
    names: Sequence[str] = (),
    instants: pa.DataType = INSTANT,
) -> int:
    """Write rows to a new file, and return their number. Numbers have 64 bits, as a warehouse has no others.

    Args:
        names: Of its columns; by default `c0`, `c1` and so on, which need no quotes anywhere.
        instants: The type as which instants are written; whole numbers are microseconds.

    Raises:
        Invalid: A column is of none of our types.
        StorageFull: There is no room.
    """
    for field in schema:
        if field.type not in _KINDS:
            raise Invalid(f"Column {field.name!r} is of type {field.type}.", fix="cast it to one of ours, as ms.Int64.")
    kinds = [instants if field.type == INSTANT else read_as(field.type) or field.type for field in schema]
    named = names or [f"c{n}" for n in range(len(kinds))]
    stored, count = pa.schema(list(zip(named, kinds, strict=True))), 0
    with disk_errors(file), pq.ParquetWriter(file, stored, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(converted(batch, stored))
            count += batch.num_rows
    return count
