"""Search of the project's files for key values: what an erasure does not reach is found, not assumed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.expr.sql import quote_name
from mainspring.data.arrow import is_text
from mainspring.ledger.model import key_text
from mainspring.operations.subjects.naming import Subject
from mainspring.operations.subjects.tables import quoted
from mainspring.project import Project

SHORTEST = 5  # characters of a value; a shorter one would be found in many files by chance
_AT_ONCE = 8 << 20


def searchable(subjects: Sequence[Subject]) -> bool:
    """Return whether all subjects have a key value that is long enough to be searched for."""
    return all(_longest(each) for each in subjects)


def remains(project: Project, subjects: Sequence[Subject]) -> list[str]:
    """Return the files of the state folder, relative to it, that have a subject's longest key value as a word.

    Parquet files are decoded. Databases of SQLite, which store columns without anything between them, are read; in
    those of LMDB a value is also found as a part of a longer one. Values that are compressed or encrypted otherwise
    are not found.
    """
    words, parts = patterns_of(subjects), patterns_of(subjects, word=False)
    folder = project.settings.state
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path.relative_to(folder)) for path in files
            if has(path, parts if path.suffix == ".mdb" else words)]  # fmt: skip


def patterns_of(subjects: Sequence[Subject], *, word: bool = True) -> list[re.Pattern[bytes]]:
    """Return patterns of the subjects' longest key values, of those that are long enough to be searched for."""
    return [quoted(value, word=word) for each in subjects if (value := _longest(each)) is not None]


def _longest(subject: Subject) -> Any:
    value = max(subject.keys.values(), key=lambda each: len(key_text(each)))
    return value if len(key_text(value)) >= SHORTEST else None


def has(path: Path, patterns: Sequence[re.Pattern[bytes]]) -> bool:
    """Return whether a file has one of the patterns; Parquet and SQLite are read."""
    try:
        parts = _decoded(path) if path.suffix == ".parquet" else chain(_raw(path), _cells(path))
        return any(pattern.search(part) for part in parts for pattern in patterns)
    except FileNotFoundError:  # deleted meanwhile
        return False


def _raw(path: Path) -> Iterator[bytes]:
    overlap = b""
    with path.open("rb") as file:
        while part := file.read(_AT_ONCE):
            yield overlap + part
            overlap = part[-1024:]


def _cells(path: Path) -> Iterator[bytes]:
    """Yield the rows of a database of SQLite, with a line for each value."""
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            return
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        connection.text_factory = bytes
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            for row in connection.execute(f"SELECT * FROM {quote_name(table.decode())}"):
                yield b"\n".join(each if isinstance(each, bytes) else str(each).encode() for each in row)


def _decoded(path: Path) -> Iterator[bytes]:
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                for column in file.read_row_group(group).columns:
                    yield b"\n".join(_texts(column))
            yield repr(file.metadata.to_dict()).encode()
    except (OSError, pa.ArrowException):
        yield from _raw(path)


def _texts(column: pa.ChunkedArray[Any]) -> Iterator[bytes]:
    kind = column.type
    if pa.types.is_list(kind):
        import pyarrow.compute as pc

        flat: Any = pc.list_flatten(column)
        yield from _texts(flat)
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _texts(child)
    elif is_text(kind) or pa.types.is_binary(kind) or pa.types.is_integer(kind):
        for value in column.unique().to_pylist():
            yield value if isinstance(value, bytes) else str(value).encode()
