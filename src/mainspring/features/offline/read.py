"""The offline read: what was known of each observation's entities at its time, computed by DuckDB from the lake.

The rules are those of the point-in-time semantics: docs/adr/0004-event-time.md. Observations are read in pieces; those
that fit in memory are one piece.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from mainspring.core.expr.sql import quote_text
from mainspring.core.files import disk_errors
from mainspring.core.schema import Schema
from mainspring.data import duck
from mainspring.features.model import FeatureGroup, views_of
from mainspring.features.needed import needed_for, stored_part
from mainspring.features.offline.computed import Computed, computed_of
from mainspring.features.offline.observed import as_read, as_table
from mainspring.features.offline.pieces import Observed, pieces, workplace, writing
from mainspring.features.offline.placing import in_files, in_memory
from mainspring.features.offline.query import connection
from mainspring.features.offline.stored import Scan, StoredRead, read_views


def point_in_time(
    observations: Any,
    groups: Sequence[FeatureGroup],
    scan: Scan,
    *,
    schema: Schema,
    at: str = "_at",
    memory_limit: str = "2GB",
    threads: int | None = None,
    temp: Path | None = None,
    rows_worth_a_tile: float = 16,
    stored: StoredRead | None = None,
    only: Sequence[str] | None = None,
) -> pa.Table:
    """Return the observations in their order, with every feature of `groups` by its full name beside them.

    Shape (observations, columns + features). An observation without a match stays, with nulls, counts of 0 and
    declared defaults. Two equal observations have two equal rows.

    Args:
        observations: The key columns of the views' entities, the request's fields, and the instant `at` of each: a
            table, or any object with Arrow's C stream interface.
        groups: The requested features.
        scan: Returns the version of a source's table to read, by the source's name.
        schema: The types of the observations' columns.
        memory_limit: Memory that DuckDB may use before it spills to disk, in addition to the observations and the
            result; if those are too large, use `point_in_time_pieces`.
        threads: Number of DuckDB's threads, by default one per core.
        temp: Folder for spilled data, by default the machine's temporary folder.
        rows_worth_a_tile: Number of rows of an entity in a tile from which finer tiles are used; see
            `features.offline.levels`. It affects the duration only.
        stored: Reads the stored features instead of DuckDB, which reads them from the lake.
        only: Full names of the features to read, in this order; by default all of `groups`.

    Raises:
        InvalidData: A time is naive or finer than a microsecond, or a column is missing or of another type.
        Corrupt: A file of the lake is damaged; the message names it.
        StorageFull: There is no space to spill.
    """
    tables = point_in_time_pieces(
        as_table(observations), groups, scan, schema=schema, at=at, memory_limit=memory_limit, threads=threads,
        temp=temp, rows_worth_a_tile=rows_worth_a_tile, whole=True, stored=stored, only=only,
    )  # fmt: skip
    with closing(tables):
        return next(tables)


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
    whole: bool = False,
    stored: StoredRead | None = None,
    only: Sequence[str] | None = None,
) -> Generator[pa.Table]:
    """Yield the result of `point_in_time` in pieces of up to `pieces.PIECE_ROWS` rows; at least one piece.

    Apart from DuckDB's memory only one piece is in memory: intermediate data is in a folder under `temp`, until the
    last piece was taken or the iterator is closed.

    Args:
        observations: A table, the path of a Parquet file, or a function that returns the same pieces at each call; the
            result has the same pieces.
        whole: Whether a table is one piece and no files are used, which takes less time.

    Raises:
        NotFound: There is no such file of observations.
        StorageFull: There is no space for intermediate data.
        Others: As `point_in_time`.
    """
    with ExitStack() as stack:
        con = stack.enter_context(connection(memory_limit, threads, temp))
        whole_table: pa.Table | None = None
        if whole:
            (every,) = pieces(observations, whole=True)
            whole_table = as_read(every, groups, schema, at)
            con.register("observed", whole_table)
            collect = in_memory(con, whole_table.num_rows)
        else:
            folder = stack.enter_context(workplace(temp))
            path = folder / "observed.parquet"
            with disk_errors(folder):
                _write_keys(path, observations, groups, at)
            con.execute(f"CREATE TEMP VIEW observed AS FROM read_parquet({quote_text(str(path))})")
            collect = in_files(con, folder, stack)
        bounds = duck.one_row(con, "SELECT min(_t), max(_t) FROM observed")
        names = [name for group in groups for name in group.columns] if only is None else only
        needed = None if only is None else needed_for(groups, only)
        views = views_of(groups) if needed is None else stored_part(views_of(groups), needed)
        if stored is None:
            readers = list(read_views(con, views, scan, bounds, rows_worth_a_tile, collect))
        else:
            readers = list(stored(con, views, collect))
        computed, first = computed_of(groups, schema, needed), 0
        for piece in pieces(observations, whole=whole):
            typed = as_read(piece, groups, schema, at) if whole_table is None else whole_table
            found: dict[str, Any] = {}
            for reader in readers:
                found.update(reader(first, piece.num_rows))
            yield _with_features(con, piece, typed, names, found, computed, schema)
            first += piece.num_rows


def _with_features(
    con: Any,
    observations: pa.Table,
    typed: pa.Table,
    names: Sequence[str],
    stored: Mapping[str, Any],
    computed: Sequence[Computed],
    schema: Schema,
) -> pa.Table:
    """Return the observations with the features `names`, given the stored ones by full name."""
    by_name = {name: typed.column(name) for name in schema if name in typed.column_names}
    by_name.update((name, pa.chunked_array([column])) for name, column in stored.items())
    for computation in computed:
        by_name.update(computation.read(con, by_name, typed.num_rows))
    fields = [*observations.schema, *(pa.field(name, by_name[name].type) for name in names)]
    columns = [*observations.columns, *(by_name[name] for name in names)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields)).replace_schema_metadata(observations.schema.metadata)


def _write_keys(path: Path, observations: Observed, groups: Sequence[FeatureGroup], at: str) -> None:
    """Write the columns of the observations that the queries read: `_i`, `_t` and the keys."""
    first = 0
    with ExitStack() as open_file:
        writer = None
        for piece in pieces(observations):
            typed = as_read(piece, groups, {}, at, first=first)
            writer = writer or open_file.enter_context(writing(path, typed.schema))
            writer.write_table(typed)
            first += piece.num_rows
