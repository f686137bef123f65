"""Parquet files of a loader: their row groups, and the rows of one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.nearest import meant
from mainspring.data.model import SEALED_PREFIX, TableScan
from mainspring.data.sealed import open_columns
from mainspring.training.loading.columns import is_fraction, is_whole
from mainspring.training.loading.order import Span

ROWS = 16_384  # decoded at a time, at least
_BUFFER = 256 << 10  # bytes of a column that are read at once
_TAIL = 8  # bytes of a Parquet file after its footer: the footer's length and "PAR1"


@dataclass(frozen=True, slots=True)
class Group:
    """A row group of a file."""

    file: int
    number: int
    rows: int


class File:
    """A Parquet file as it was when the loader was made.

    Raises:
        NotFound: There is no such file.
        Corrupt: The file is no Parquet, or is torn.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as opened:
                self._metadata, self.schema = opened.metadata, opened.schema_arrow
        except FileNotFoundError as error:
            raise NotFound(f"There is no file {path}.", fix="give the path of a Parquet file or folder.") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(path, error) from error
        self._found = self._identity()

    def groups(self) -> list[int]:
        """Return the rows of each row group."""
        return [self._metadata.row_group(number).num_rows for number in range(self._metadata.num_row_groups)]

    def footer(self) -> bytes:
        """Return the bytes that describe the file: sizes, places and ranges of each column of each row group."""
        with self.path.open("rb") as file:
            end = file.seek(-_TAIL, 2)
            length = int.from_bytes(file.read(4), "little")
            file.seek(end - length)
            return file.read(length)

    def batches(self, group: int, columns: Iterable[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group, in pieces of so many.

        Raises:
            Conflict: The file was changed after the loader was made.
            Corrupt: It is damaged.
        """
        self._check()
        try:
            with pq.ParquetFile(self.path, metadata=self._metadata, buffer_size=_BUFFER) as opened:
                yield from opened.iter_batches(rows, [group], [*columns], use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            self._check()
            raise _damaged(self.path, error) from error
        self._check()

    def _check(self) -> None:
        try:
            found: Any = self._identity()
        except FileNotFoundError:
            found = None
        if found != self._found:
            said = "vanished" if found is None else "was changed"
            raise Conflict(
                f"The file {self.path} {said} while rows were loaded from it.",
                fix="train on files that nobody writes: those of a version of a table, or a copy.",
            )

    def _identity(self) -> tuple[int, int, int]:
        stat = self.path.stat()
        return stat.st_size, stat.st_mtime_ns, stat.st_ino


class Files:
    """Parquet files, of a table's version or of a folder, and the columns to read of them.

    Args:
        source: The path of a file or of a folder of files, several paths, or a scan of a table.

    Raises:
        NotFound: A file does not exist.
        Corrupt: A file is no Parquet, or is torn.
        Invalid: There is no file.
    """

    def __init__(self, source: Any) -> None:
        self._opens: Mapping[str, Callable[[Any], Any]] = {}
        self._schema: pa.Schema | None = None
        if isinstance(source, TableScan):
            if source.files is None:
                raise Invalid("The table is in memory, not in files.", fix="use its rows as they are: scan.rows.")
            self._opens, self._schema = source.opens, source.schema
            source = [*source.files]
        sources = source if isinstance(source, list | tuple) else [source]
        paths = [path for each in sources for path in _paths(each)]
        if not paths and self._schema is None:
            raise Invalid(f"There is no Parquet file in {source}.", fix="give a folder of .parquet files.")
        self._files = [File(path) for path in sorted(paths, key=lambda path: (path.name, str(path)))]
        self.groups = [Group(place, number, rows) for place, file in enumerate(self._files)
                       for number, rows in enumerate(file.groups()) if rows]  # fmt: skip

    def __len__(self) -> int:
        return len(self._files)

    @cached_property
    def types(self) -> dict[str, Any]:
        """The types of all columns, as Arrow has them: where files differ, that of fractions before that of whole
        numbers, and any before null."""
        found: dict[str, Any] = {} if self._schema is None else {each.name: each.type for each in self._schema}
        for file in self._files:
            for each in file.schema:
                known = found.get(each.name)
                if known is None or pa.types.is_null(known) or (is_whole(known) and is_fraction(each.type)):
                    found[each.name] = each.type
        return {name: kind for name, kind in found.items() if not name.startswith(SEALED_PREFIX)}

    def check(self, columns: Iterable[str]) -> None:
        """Raise if a column is in no file.

        Raises:
            Invalid: So it is; the message names the nearest.
        """
        for name in columns:
            if name not in self.types:
                raise Invalid(f"There is no column {name!r}.", fix=meant(name, self.types))

    def check_types(self, name: str, takes: Callable[[Any], bool]) -> None:
        """Raise if a column has a type in one file that does not go with its type in the others.

        Args:
            takes: Whether a type does.

        Raises:
            Invalid: So it is; the message names the file.
        """
        for file in self._files:
            place = file.schema.get_field_index(name)
            if place >= 0 and not takes(kind := file.schema.field(place).type):
                raise Invalid(
                    f"Column {name!r} is {kind} in {file.path}, and {self.types[name]} elsewhere.",
                    fix="write that file anew with the type of the others, or leave it out.",
                )

    def digest(self) -> str:
        """Return a digest that identifies the files' content by their footers, wherever they lie."""
        sha = hashlib.sha256()
        for file in self._files:
            footer = file.footer()
            sha.update(f"{file.path.stat().st_size} {len(footer)}\n".encode() + footer)
        return sha.hexdigest()

    def read(self, spans: Iterable[Span], columns: Iterable[str], rows: int = ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the rows of spans, one after another, in pieces of `rows`; a column that a file lacks is null."""
        for span in spans:
            at = 0
            for batch in self._batches(self.groups[span.group], tuple(columns), rows):
                begin, end = max(span.start, at), min(span.stop, at + batch.num_rows)
                if begin < end:
                    yield batch.slice(begin - at, end - begin)
                at += batch.num_rows
                if at >= span.stop:
                    break

    def _batches(self, group: Group, columns: tuple[str, ...], rows: int) -> Iterator[pa.RecordBatch]:
        file = self._files[group.file]
        there = set(file.schema.names)
        stored = [*columns, *(SEALED_PREFIX + name for name in columns if name in self._opens)]
        for batch in file.batches(group.number, [name for name in stored if name in there], rows):
            if not self._opens and len(there.intersection(columns)) == len(columns):
                yield batch
                continue
            opened = open_columns(pa.Table.from_batches([batch]), self._opens)
            values = [opened[name].combine_chunks() if name in opened.schema.names
                      else pa.nulls(batch.num_rows, self.types[name]) for name in columns]  # fmt: skip
            yield pa.RecordBatch.from_arrays(values, names=[*columns])


def _paths(source: Any) -> list[Path]:
    path = Path(source)
    return [*path.rglob("*.parquet")] if path.is_dir() else [path]


def _damaged(path: Path, error: Exception) -> Corrupt:
    said = str(error).rstrip(".")
    return Corrupt(f"The file {path} is no whole Parquet file: {said}.", fix="write it anew, or leave it out.")
