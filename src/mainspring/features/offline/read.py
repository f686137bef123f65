"""The offline read: what was known of each observation's entities at its time, computed by DuckDB from the lake.

The rules are those of the point-in-time semantics: docs/adr/0004-event-time.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.core.schema import DType, Schema
from mainspring.data import duck
from mainspring.data.arrow import arrow_schema
from mainspring.data.model import SEQUENCE
from mainspring.features.layout import layout_of, request_schema
from mainspring.features.model import FeatureGroup, FeatureView, Observations, RequestFeatures, views_of
from mainspring.features.offline.computed import compute
from mainspring.features.offline.observed import as_read, as_table
from mainspring.features.offline.placing import Kind, placed
from mainspring.features.offline.stored import Scan, read_views
from mainspring.features.offline.versions import first_versions_sql, open_versions

BATCH_ROWS = 122_880  # DuckDB's row group


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
) -> pa.Table:
    """Return the observations, in the order given, with every feature of `groups` by its full name beside them.

    Shape (observations, columns + features). An observation without a match stays, with nulls, counts of 0 and
    declared defaults. Two equal observations have two equal rows.

    Args:
        observations: The key columns of the views' entities, the request's fields, and the instant `at` of each: a
            table, or whatever speaks Arrow's C stream interface.
        groups: The features wanted.
        scan: Gives the version of a source's table to read, by the source's name.
        schema: The types of the observations' columns.
        memory_limit: DuckDB's memory before it spills to disk. The observations and the result come on top of it;
            where those are too much, see `features.offline.outsize`.
        threads: Number of DuckDB's threads, by default one a core.
        temp: The folder under which to spill, by default the machine's temporary one.
        rows_worth_a_tile: From how many rows of an entity in a tile on they are summed up in finer ones; see
            `features.offline.levels`. It changes the time a read takes, and nothing else.

    Raises:
        InvalidData: A time is naive or finer than a microsecond, or a column is missing or of another type.
        Corrupt: A file of the lake is damaged; the message names it.
        StorageFull: There is no room to spill.
    """
    observations = as_table(observations)
    typed = as_read(observations, groups, schema, at)
    rows, instants = typed.num_rows, typed.column("_t")
    bounds = pc.min(instants).as_py(), pc.max(instants).as_py()

    with connection(memory_limit, threads, temp) as con:
        con.register("observed", typed)

        def collect(query: str, kinds: Mapping[str, Kind], prefix: str) -> dict[str, pa.Array[Any]]:
            columns = placed(con.sql(query).to_arrow_reader(BATCH_ROWS), rows, kinds)
            return {prefix + name: column for name, column in columns.items()}

        found: dict[str, Any] = {}
        for columns in read_views(con, views_of(groups), scan, bounds, rows_worth_a_tile, collect):
            found.update(columns)
        return with_features(con, observations, typed, groups, found, schema)


def with_features(
    con: Any,
    observations: pa.Table,
    typed: pa.Table,
    groups: Sequence[FeatureGroup],
    stored: Mapping[str, Any],
    schema: Schema,
) -> pa.Table:
    """Return the observations with every feature of `groups` beside them, given the stored ones by full name."""
    found = {name: pa.chunked_array([column]) for name, column in stored.items()}
    for view in views_of(groups):
        found.update(_derived(con, view, found, typed.num_rows))
    for group in groups:
        if isinstance(group, RequestFeatures):
            found.update(_request(con, group, typed, found, schema))
    names = [name for group in groups for name in group.columns]
    fields = [*observations.schema, *(pa.field(name, found[name].type) for name in names)]
    columns = [*observations.columns, *(found[name] for name in names)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields)).replace_schema_metadata(observations.schema.metadata)


def observe(
    definition: Observations,
    scan: Scan,
    *,
    since: int | None = None,
    until: int | None = None,
    memory_limit: str = "2GB",
) -> pa.Table:
    """Return the rows of the observations' source with `_at` in `[since, until)`, and that column `_at`, by time.

    A row without a time (its `at` is null) is no observation, nor is one that the definition's `where` leaves out. Of a
    source whose rows are versions, each fact that is not retracted is one observation, by its first version: that is
    what a request brought. With `until`, a fact that was retracted later is one still.
    Instants are UTC epoch microseconds.

    Raises:
        Invalid: The table was not landed by the id that the source declares.
    """
    with connection(memory_limit) as con, duck.duck_errors(definition.source.name):
        open_versions(con, "source", scan(definition.source.name), definition.source)
        names = ", ".join(quote_name(name) for name in definition.source.columns)
        made = observed_sql(definition, since, until)
        rows: pa.Table = con.sql(f"SELECT {names}, _at FROM ({made}) ORDER BY _at, {SEQUENCE}").to_arrow_table()
    return rows.cast(arrow_schema({**definition.source.columns, "_at": DType.Timestamp}))


def observed_sql(definition: Observations, since: int | None, until: int | None) -> str:
    """SELECT what `observe` returns from `source`, in any order, and the order of arrival."""
    columns = definition.source.columns
    bounds = [
        f"epoch_us(_at) >= {since}" if since is not None else "",
        f"epoch_us(_at) < {until}" if until is not None else "",
        f"({to_sql(definition.where, columns)})" if definition.where is not None else "",
    ]
    where = " AND ".join(["_at IS NOT NULL", *filter(None, bounds)])
    names = ", ".join(quote_name(name) for name in (*columns, SEQUENCE))
    rows = "source" if definition.source.versioning is None else f"({first_versions_sql(definition.source, until)})"
    return f"SELECT {names}, _at FROM (SELECT *, {to_sql(definition.at, columns)} AS _at FROM {rows}) WHERE {where}"


@contextmanager
def connection(memory_limit: str, threads: int | None = None, temp: Path | None = None) -> Iterator[Any]:
    """A session for reads whose results may come in any order."""
    con = duck.connect(memory_limit, temp, threads=threads)
    try:
        con.execute("SET preserve_insertion_order = false")  # it costs memory
        yield con
    finally:
        con.close()


def _derived(con: Any, view: FeatureView, found: Mapping[str, Any], rows: int) -> dict[str, pa.ChunkedArray[Any]]:
    if not view.derived:
        return {}
    stored = {name: found[f"{view.name}.{name}"] for name in view.features}
    values = compute(con, view.derived, stored, layout_of(view).stored, rows)
    return {f"{view.name}.{name}": column for name, column in values.items()}


def _request(
    con: Any, group: RequestFeatures, observed: pa.Table, found: Mapping[str, Any], fields: Schema
) -> dict[str, pa.ChunkedArray[Any]]:
    known = {name: observed.column(name) for name in fields if name in observed.column_names}
    values = compute(con, group.features, {**known, **found}, request_schema(group, fields), observed.num_rows)
    return {f"{group.name}.{name}": column for name, column in values.items()}
