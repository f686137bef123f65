"""Readers of user data: pieces of rows with exactly a source's columns, in bounded memory.

Faults of the data as a whole (missing file, column missing or of another type, times without a UTC offset) are refused
here, before anything is stored. Faults of single values are left to `data.staging`.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq

from mainspring.core.errors import InvalidData, NotFound
from mainspring.core.schema import DType
from mainspring.data.arrow import ARROW_TYPES, parquet_batches
from mainspring.data.arrow_coercion import BELOW, DETAIL, FAULT, below_microsecond, fits, plain
from mainspring.data.content import digest_file
from mainspring.data.model import Source
from mainspring.data.refusals import check_columns, naive, unreadable

_ROWS = 65_536  # rows per piece
_BLOCK = 2 << 20  # bytes; also the longest possible row
_SUFFIXES = {".csv": ",", ".tsv": "\t"}


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
            f"Source {source.name!r} received a {type(data).__name__} as data.",
            fix="give a file's path, an Arrow table or reader, a data frame, or an iterable of mappings.",
        )
    total = len(data) if isinstance(data, Sized) else None
    return Input("the rows", _mapping_pieces(data, source, rows), total, None)


def _open_file(path: Path, source: Source, rows: int, nulls: Sequence[str]) -> Input:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise NotFound(
            f"There is no file {path}.", fix="check the path; it is relative to the current folder."
        ) from None
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}.", fix="name a readable file.") from None
    try:
        if start.startswith(b"PAR1"):
            return _parquet(path, source, rows)
        if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
            return _ipc(path, source, rows, stream=not start.startswith(b"ARROW1"))
        if _is_csv(path):
            pieces, extra = _csv_pieces(path, source, nulls)
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
            f"Column {column!r} of {name} is {kind}, but the source declares {dtype.value}.",
            fix="convert the column, or declare its type.",
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


def _is_csv(path: Path) -> bool:
    """Return whether the name has a CSV suffix; a compressed file has a second suffix, as in `flights.csv.gz`."""
    return any(suffix in _SUFFIXES for suffix in path.suffixes[-2:])


def _csv_pieces(path: Path, source: Source, nulls: Sequence[str] = ()) -> tuple[Iterator[pa.Table], tuple[str, ...]]:
    """Return the rows of a file, and the columns that the source does not declare.

    A field is null if it is empty, or an unquoted member of `nulls`: `NA` by itself may mean Namibia.
    """
    delimiter = next(_SUFFIXES[suffix] for suffix in path.suffixes[-2:] if suffix in _SUFFIXES)
    extra = check_columns(str(path), _header(path, delimiter), source)
    broken: list[str] = []

    def keep(row: pv.InvalidRow) -> Literal["skip", "error"]:
        text = row.text.replace("\x1f", " ").replace(DETAIL, " ")
        broken.append(f"a line has {row.actual_columns} fields, not {row.expected_columns}{DETAIL}{text}")
        return "skip"

    def batches() -> Iterator[pa.Table]:
        read = pv.ReadOptions(block_size=_BLOCK, use_threads=False)
        parse = pv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep)
        try:
            with pv.open_csv(_stream(path), read, parse, _text(source, nulls)) as reader:
                for batch in reader:
                    piece = pa.Table.from_batches([batch])
                    yield piece.append_column(FAULT, pa.nulls(len(piece), pa.string()))
                    if broken:
                        yield _broken(broken, source)
                        broken.clear()
            if broken:
                yield _broken(broken, source)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path, error) from error

    return batches(), extra


def _text(source: Source, nulls: Sequence[str]) -> pv.ConvertOptions:
    return pv.ConvertOptions(
        column_types=dict.fromkeys(source.columns, pa.string()),
        include_columns=list(source.columns),
        null_values=["", *nulls],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )


def _header(path: Path, delimiter: str) -> list[str]:
    try:
        with io.TextIOWrapper(_stream(path), encoding="utf-8-sig", newline="") as text:
            names = next(csv.reader(text, delimiter=delimiter), None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error
    if not names:
        raise unreadable(path, ValueError("it has no line with column names"))
    return names


def _stream(path: Path) -> IO[Any]:
    return cast(IO[Any], pa.input_stream(str(path)))  # decompresses according to the last suffix


def _broken(lines: list[str], source: Source) -> pa.Table:
    nothing = {name: pa.nulls(len(lines), pa.string()) for name in source.columns}
    return pa.table({**nothing, FAULT: pa.array(lines, pa.string())})


def _mapping_pieces(rows: Iterable[Any], source: Source, size: int) -> Iterator[pa.Table]:
    """Yield rows as tables with the source's columns; a key missing in a row is null.

    Raises:
        InvalidData: An item is not a mapping, or a column is missing from all of the first rows.
    """
    remaining = iter(rows)
    first = True
    while chunk := list(itertools.islice(remaining, size)):
        wrong = next((row for row in chunk if not isinstance(row, Mapping)), None)
        if wrong is not None:
            raise InvalidData(
                f"Source {source.name!r} received a {type(wrong).__name__} as a row.", fix="give mappings."
            )
        if first:
            check_columns("the rows", list(dict.fromkeys(key for row in chunk for key in row)), source)
        first = False
        yield _piece(chunk, source)


def _piece(rows: list[Mapping[str, Any]], source: Source) -> pa.Table:
    columns: dict[str, pa.Array[Any]] = {}
    faults: list[str | None] = [None] * len(rows)
    for name, dtype in source.columns.items():
        values = [row.get(name) for row in rows]
        columns[name] = _column(values, dtype)
        if dtype is DType.String:  # any value has a text form, so the text would hide the wrong type
            for index, value in enumerate(values):
                if value is not None and not isinstance(value, str):
                    faults[index] = f"{name} is not a string"
    return pa.table({**columns, FAULT: pa.array(faults, pa.string())})


def _column(values: list[Any], dtype: DType) -> pa.Array[Any]:
    if all(value is None or _is(value, dtype) for value in values):
        try:
            return pa.array(values, ARROW_TYPES[dtype])
        except (pa.ArrowException, OverflowError):
            pass
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _is(value: Any, dtype: DType) -> bool:
    """Return whether a value fits strictly: Arrow would silently accept a naive time as UTC, True as 1, and 1.5 as
    1.
    """
    if dtype is DType.String:
        return isinstance(value, str)
    if isinstance(value, (bool, np.bool_)):
        return dtype is DType.Boolean
    if dtype is DType.Timestamp:
        return isinstance(value, Integral) or (isinstance(value, datetime) and value.tzinfo is not None)
    return isinstance(value, Real if dtype in (DType.Float32, DType.Float64) else Integral)
