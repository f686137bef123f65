"""Readers of user data: pieces of rows with exactly a source's columns, in bounded memory.

Faults of the data as a whole (missing file, column missing or of another type, times without a UTC offset) are refused
here, before anything is stored. Faults of single values are left to `data.staging`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import InvalidData, NotFound
from mainspring.core.schema import DType
from mainspring.data import csvfile, pydicts
from mainspring.data.arrow import parquet_batches
from mainspring.data.arrow_coercion import BELOW, FAULT, below_microsecond, fits, plain
from mainspring.data.content import digest_file
from mainspring.data.model import Source
from mainspring.data.refusals import check_columns, naive, unreadable

_ROWS = 65_536  # rows per piece


@dataclass(frozen=True)
class Input:
    """Rows to ingest; can be read once."""

    name: str  # name in messages: the file's path, or "the rows"
    pieces: Iterator[pa.Table]  # the source's columns, as of `data.arrow_coercion.plain`, `BELOW` ones, `FAULT`
    total: int | None  # number of rows, if known in advance
    digest: str | None  # digest of a file's content; None for other inputs
    extra: tuple[str, ...] = ()  # undeclared columns, which are ignored


def open_input(data: Any, source: Source, batch_rows: int = _ROWS, nulls: Sequence[str] = ()) -> Input:
    """Open a file's path, an object with Arrow's C stream interface, or an iterable of mappings.

    Files may be Parquet, Arrow IPC (file or stream) or CSV, recognised by their first bytes. Text is cast row by row,
    see `data.casting`. In mappings a time is an aware datetime, ISO 8601 text or UTC epoch microseconds.

    Args:
        nulls: Unquoted CSV texts that mean null, in addition to the empty field.

    Raises:
        NotFound: The file does not exist.
        InvalidData: The data cannot be read, or its columns do not match the source.
    """
    rows = min(batch_rows, _ROWS)
    if isinstance(data, (str, Path)):
        return _open_file(Path(data), source, rows, nulls)
    if hasattr(data, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(data)
        total = data.num_rows if isinstance(data, pa.Table) else None
        return _typed("the rows", reader.schema, reader, source, rows, total=total, digest=None)
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise InvalidData(
            f"Source {source.name!r} was given a {type(data).__name__}.",
            fix="give a file's path, an Arrow table or reader, a data frame, or an iterable of mappings.",
        )
    total = len(data) if isinstance(data, Sized) else None
    return Input("the rows", pydicts.pieces(data, source, rows), total, None)


def _open_file(path: Path, source: Source, rows: int, nulls: Sequence[str]) -> Input:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise NotFound(
            f"There is no file {path}.", fix="check the path; it is relative to the present folder."
        ) from None
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}.", fix="name a file that you may read.") from None
    try:
        if start.startswith(b"PAR1"):
            return _parquet(path, source, rows)
        if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
            return _ipc(path, source, rows, stream=not start.startswith(b"ARROW1"))
        if csvfile.is_csv(path):
            pieces, extra = csvfile.pieces(path, source, nulls)
            return Input(str(path), pieces, None, digest_file(path), extra)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    raise InvalidData(f"{path} is neither Parquet, nor Arrow, nor CSV.", fix="convert it to .parquet, .arrow or .csv.")


def _parquet(path: Path, source: Source, rows: int) -> Input:
    file = pq.ParquetFile(path)
    wanted = [name for name in source.columns if name in file.schema_arrow.names]
    batches = parquet_batches(file, rows, wanted)
    return _typed(str(path), file.schema_arrow, batches, source, rows, total=file.metadata.num_rows, path=path)


def _ipc(path: Path, source: Source, rows: int, *, stream: bool) -> Input:
    mapped = pa.memory_map(str(path))
    if stream:
        reader = pa.ipc.open_stream(mapped)
        return _typed(str(path), reader.schema, reader, source, rows, total=None, path=path)
    file = pa.ipc.open_file(mapped)
    batches = (file.get_batch(index) for index in range(file.num_record_batches))
    return _typed(str(path), file.schema, batches, source, rows, total=None, path=path)


def _typed(
    name: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    source: Source,
    rows: int,
    *,
    total: int | None,
    path: Path | None = None,
    digest: str | None = None,
) -> Input:
    extra = check_columns(name, schema.names, source)
    for column, dtype in source.columns.items():
        _check_kind(name, column, schema.field(column).type, dtype)

    def pieces() -> Iterator[pa.Table]:
        try:
            for batch in batches:
                table = pa.Table.from_batches([batch]).select(list(source.columns))
                for start in range(0, len(table), rows):
                    piece = table.slice(start, rows)
                    columns: dict[str, Any] = {column: plain(piece[column], column) for column in source.columns}
                    dropped = {BELOW + column: below_microsecond(piece[column]) for column in source.columns}
                    columns |= {
                        column: nanoseconds for column, nanoseconds in dropped.items() if nanoseconds is not None
                    }
                    yield pa.table(columns)
        except (pa.ArrowException, OSError) as error:
            if path is None:
                raise
            raise unreadable(path, error) from error

    return Input(name, _padded(pieces()), total, digest_file(path) if path else digest, extra)


def _check_kind(name: str, column: str, kind: pa.DataType, dtype: DType) -> None:
    if not fits(kind, dtype):
        raise InvalidData(
            f"Column {column!r} of {name} is {kind}, and the source declares {dtype.value}.",
            fix="convert the column, or declare the type that it has.",
        )
    if pa.types.is_timestamp(kind) and kind.tz is None:
        raise naive(name, column)


def _padded(pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
    for piece in pieces:
        yield piece.append_column(FAULT, pa.nulls(len(piece), pa.string()))


def loads(pieces: Iterator[pa.Table], rows: int) -> Iterator[list[pa.Table]]:
    """Regroup pieces into groups of exactly `rows` rows; the last may be smaller."""
    group: list[pa.Table] = []
    room = rows
    for piece in pieces:
        start = 0
        while len(piece) - start >= room:
            yield [*group, piece.slice(start, room)]
            start, group, room = start + room, [], rows
        if start < len(piece):
            group.append(piece.slice(start))
            room -= len(piece) - start
    if group:
        yield group
