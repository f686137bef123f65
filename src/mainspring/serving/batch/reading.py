"""Chunks of a plan's input, read from its Parquet files in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import Conflict, InvalidData, NotFound
from mainspring.data.arrow import no_rows
from mainspring.data.readers import loads
from mainspring.serving.batch.plan import InputFile, Plan, spans

_PIECE_ROWS = 1 << 16
_BUFFER_BYTES = 1 << 20


def described(path: Path) -> tuple[InputFile, pa.Schema]:
    """Return a Parquet file's description and its columns.

    Raises:
        NotFound: There is no such file.
        InvalidData: It is not Parquet.
    """
    try:
        status = path.stat()
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except FileNotFoundError:
        raise NotFound(
            f"There is no file {path}.", fix="check the path; it is relative to the current folder."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise InvalidData(
            f"{path} cannot be read as Parquet: {error}.",
            fix="convert it to Parquet, or read it by a query: --from \"SELECT * FROM 'rows.csv'\".",
        ) from error
    return InputFile(str(path), rows, status.st_size, status.st_mtime_ns), schema


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which a column is read: dictionaries are decoded, text has one form."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def read_chunks(plan: Plan, schema: pa.Schema, chunks: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
    """Yield chunks of the input by number, in their order.

    Args:
        schema: The plan's columns; one that a file lacks is null.

    Raises:
        Conflict: A file was changed since the plan was made.
    """
    if not plan.rows:
        yield from ((chunk, no_rows(schema)) for chunk in chunks)
        return
    for first, last in spans(chunks):
        rows = _rows(plan.files, schema, plan.span(first)[0], plan.span(last)[1])
        for number, parts in enumerate(loads(rows, plan.chunk_rows), first):
            yield number, pa.concat_tables(parts)


def _rows(files: Sequence[InputFile], schema: pa.Schema, since: int, until: int) -> Iterator[pa.Table]:
    """Yield the rows with numbers in `[since, until)` in pieces."""
    start = 0
    for file in files:
        if start < until and since < start + file.rows:
            yield from _of_file(file, schema, max(0, since - start), min(file.rows, until - start))
        start += file.rows


def _of_file(described: InputFile, schema: pa.Schema, since: int, until: int) -> Iterator[pa.Table]:
    check_unchanged(described)
    with pq.ParquetFile(described.path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
        there = [name for name in schema.names if name in file.schema_arrow.names]
        for first, groups in _groups(file.metadata, since, until):
            start = first
            for batch in file.iter_batches(batch_size=_PIECE_ROWS, row_groups=groups, columns=there):
                low, high = max(0, since - start), min(batch.num_rows, until - start)
                start += batch.num_rows
                if low < high:
                    yield _typed(pa.Table.from_batches([batch]).slice(low, high - low), schema)


def check_unchanged(file: InputFile) -> None:
    """Raise if a file is not the one that was planned.

    Raises:
        Conflict: It was changed, or is gone.
    """
    path = Path(file.path)
    status = path.stat() if path.exists() else None
    if status is None or (status.st_size, status.st_mtime_ns) != (file.size_bytes, file.modified_ns):
        what = "is gone" if status is None else "was changed"
        raise Conflict(
            f"The input {file.path} {what} since this batch run was planned.",
            fix="put the file back as it was, or write into another output.",
        )


def _groups(metadata: pq.FileMetaData, since: int, until: int) -> Iterator[tuple[int, list[int]]]:
    """Yield row groups that are read in one go, with the number of their first row.

    Parquet's reader keeps the bytes of every row group until the end of an iteration.
    """
    groups: list[int] = []
    start = begun = count = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        if start < until and since < start + rows:
            begun = begun if groups else start
            groups.append(number)
            count += rows
        start += rows
        if groups and (count >= _PIECE_ROWS or start >= until or number == metadata.num_row_groups - 1):
            yield begun, groups
            groups, count = [], 0


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
