"""CSV files: every value is read as text, so a malformed value costs its row and not the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

import pyarrow as pa
import pyarrow.csv as pv

from mainspring.data.arrow_coercion import DETAIL, FAULT
from mainspring.data.model import Source
from mainspring.data.refusals import check_columns, unreadable

_BLOCK = 2 << 20  # bytes; also the longest possible row
_SUFFIXES = {".csv": ",", ".tsv": "\t"}


def is_csv(path: Path) -> bool:
    """Return whether the name has a CSV suffix; a compressed file has a second suffix, as in `flights.csv.gz`."""
    return any(suffix in _SUFFIXES for suffix in path.suffixes[-2:])


def pieces(path: Path, source: Source, nulls: Sequence[str] = ()) -> tuple[Iterator[pa.Table], tuple[str, ...]]:
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
        raise unreadable(path, ValueError("it has no line with the names of its columns"))
    return names


def _stream(path: Path) -> IO[Any]:
    return cast(IO[Any], pa.input_stream(str(path)))  # decompresses according to the last suffix


def _broken(lines: list[str], source: Source) -> pa.Table:
    nothing = {name: pa.nulls(len(lines), pa.string()) for name in source.columns}
    return pa.table({**nothing, FAULT: pa.array(lines, pa.string())})
