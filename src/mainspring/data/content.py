"""What a batch is known by: the digest of its content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_CHARACTERS = 32  # of a SHA-256 in hex: 128 bits, so that a batch's id can stand in every row


def digest_file(path: Path) -> str:
    """Return the digest of a file, read once in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_CHARACTERS]


def digest_rows(rows: pa.Table) -> str:
    """Return the digest of rows: the same for equal rows, however their buffers are cut.

    Columns are strings, booleans, numbers and instants, which is what `data.readers` makes of any input.
    """
    digest = hashlib.sha256(str([(field.name, str(field.type)) for field in rows.schema]).encode())
    for column in rows.columns:
        for plain in _canonical(column):
            sink = pa.BufferOutputStream()
            batch = pa.record_batch([plain], names=["x"])
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            digest.update(sink.getvalue())
    return digest.hexdigest()[:_CHARACTERS]


def _canonical(column: pa.ChunkedArray[Any]) -> list[pa.Array[Any]]:
    """Return which values are there, as bytes, and the values, with one filling where they are not."""
    there = pa.chunked_array([pc.is_valid(chunk).cast(pa.uint8()) for chunk in column.chunks], pa.uint8())
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.uint8())
    if column.null_count:
        column = pc.fill_null(column, pa.scalar("" if pa.types.is_string(column.type) else 0, column.type))
    return [there.combine_chunks(), column.combine_chunks()]
