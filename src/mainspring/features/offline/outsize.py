"""The offline read of more observations, or into a larger result, than memory holds: from a file, to a file.

The features of every query go to a file of their own, in the order of the observations; then the files are read side by
side, a piece at a time. So beside what DuckDB may use, only a piece is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mainspring.core.expr.sql import quote_text
from mainspring.core.files import disk_errors
from mainspring.core.schema import Schema
from mainspring.data.arrow import parquet_batches
from mainspring.features.model import FeatureGroup, views_of
from mainspring.features.offline.observed import as_read
from mainspring.features.offline.pieces import (
    PIECE_ROWS,
    Observed,
    count,
    opened,
    pieces,
    workplace,
    write_whole,
    writing,
)
from mainspring.features.offline.placing import Kind, placed
from mainspring.features.offline.query import execute
from mainspring.features.offline.read import connection, with_features
from mainspring.features.offline.stored import Scan, read_views


def point_in_time_to(
    path: str | Path,
    observations: pa.Table | str | Path,
    groups: Sequence[FeatureGroup],
    scan: Scan,
    *,
    schema: Schema,
    at: str = "_at",
    memory_limit: str = "2GB",
    threads: int | None = None,
    temp: Path | None = None,
    rows_worth_a_tile: float = 16,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write what `features.offline.read.point_in_time` returns as a Parquet file, which is there whole or not at all.

    Args:
        path: Path to write; an existing file is replaced.
        observations: A table, or the path of a Parquet file.
        temp: The folder under which to spill and to keep what is on its way; by default the machine's temporary one.
        progress: Called with how many observations are written, and of how many.

    Returns:
        How many rows were written.

    Raises:
        NotFound: There is no such file of observations.
        StorageFull: There is no room for the file, or for what is on its way to it.
    """
    total = count(observations)
    found = point_in_time_pieces(
        observations, groups, scan, schema=schema, at=at, memory_limit=memory_limit, threads=threads, temp=temp,
        rows_worth_a_tile=rows_worth_a_tile,
    )  # fmt: skip
    with closing(found):
        return write_whole(Path(path), found, None if progress is None else lambda done: progress(done, total))


def point_in_time_pieces(
    observations: Observed,
    groups: Sequence[FeatureGroup],
    scan: Scan,
    *,
    schema: Schema,
    at: str = "_at",
    memory_limit: str = "2GB",
    threads: int | None = None,
    temp: Path | None = None,
    rows_worth_a_tile: float = 16,
) -> Generator[pa.Table]:
    """Yield what `point_in_time` returns in pieces of up to `PIECE_ROWS` rows; at least one piece.

    What is on its way lies in a folder under `temp`, until the last piece was taken or the iterator is closed.

    Args:
        observations: A table, the path of a Parquet file, or what gives the same pieces each time it is called; the
            result has the same.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(workplace(temp))
        asked = folder / "observed.parquet"
        with disk_errors(folder):
            _write_asked(asked, observations, groups, at)
        con = stack.enter_context(connection(memory_limit, threads, temp))
        con.execute(f"CREATE TEMP VIEW observed AS FROM read_parquet({_text(asked)})")
        bounds = con.execute("SELECT min(_t), max(_t) FROM observed").fetchall()[0]
        files = list(read_views(con, views_of(groups), scan, bounds, rows_worth_a_tile, _to_file(con, folder)))
        columns = [stack.enter_context(each) for each in files]
        first = 0
        for piece in pieces(observations):
            stored: dict[str, Any] = {}
            for each in columns:
                stored.update(each.upto(first, piece.num_rows))
            typed = as_read(piece, groups, schema, at)
            yield with_features(con, piece, typed, groups, stored, schema)
            first += piece.num_rows


@dataclass
class _Stored:
    """Some features in a file, in the order of the observations, without those that have none."""

    path: Path
    kinds: Mapping[str, Kind]
    prefix: str  # of the features' full names

    def __enter__(self) -> _Stored:
        self._file = opened(self.path)
        self._batches = parquet_batches(self._file, PIECE_ROWS)
        self._rest: pa.RecordBatch | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def upto(self, first: int, rows: int) -> dict[str, pa.Array[Any]]:
        """Return the features of the observations `first`, `first` + 1, ... by full name, each of shape (rows,)."""
        found = placed(self._before(first + rows), rows, self.kinds, first)
        return {self.prefix + name: column for name, column in found.items()}

    def _before(self, number: int) -> Iterator[pa.RecordBatch]:
        while (batch := self._rest or next(self._batches, None)) is not None:
            self._rest = None
            there = int(batch.column("_i").to_numpy().searchsorted(number))
            yield batch.slice(0, there)
            if there < batch.num_rows:
                self._rest = batch.slice(there)
                return


def _to_file(con: Any, folder: Path) -> Callable[[str, Mapping[str, Kind], str], _Stored]:
    def collect(query: str, kinds: Mapping[str, Kind], prefix: str) -> _Stored:
        path = folder / f"features.{len(list(folder.iterdir()))}.parquet"
        execute(con, f"COPY (FROM ({query}) ORDER BY _i) TO {_text(path)} (FORMAT parquet, COMPRESSION lz4)")
        return _Stored(path, kinds, prefix)

    return collect


def _write_asked(path: Path, observations: Observed, groups: Sequence[FeatureGroup], at: str) -> None:
    """Write what the queries read of the observations: `_i`, `_t` and the keys."""
    first = 0
    with ExitStack() as open_file:
        writer = None
        for piece in pieces(observations):
            typed = as_read(piece, groups, {}, at, first=first)
            writer = writer or open_file.enter_context(writing(path, typed.schema))
            writer.write_table(typed)
            first += piece.num_rows


def _text(path: Path) -> str:
    return quote_text(str(path))
