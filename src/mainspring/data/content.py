"""Content digests that identify a batch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_CHARACTERS = 32  # hexadecimal digits of the SHA-256: 128 bits, short enough to store in every row


def digest_file(path: Path) -> str:
    """Return the digest of a file, with bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_CHARACTERS]


def digest_rows(rows: pa.Table) -> str:
    """Return the digest of rows; equal rows have equal digests, however their buffers are chunked.

    Columns are strings, booleans, numbers and times, the types that `data.readers` produces.
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
    """Return the validity of a column as bytes, and its values with nulls replaced by a constant."""
    there = pa.chunked_array([pc.is_valid(chunk).cast(pa.uint8()) for chunk in column.chunks], pa.uint8())
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.uint8())
    if column.null_count:
        column = pc.fill_null(column, pa.scalar("" if pa.types.is_string(column.type) else 0, column.type))
    return [there.combine_chunks(), column.combine_chunks()]
