"""The offline read: what was known of each observation's entities at its time, computed by DuckDB from the lake.

Views run one after another (two in one statement keep both in memory). The rules are those of the point-in-time
semantics: docs/adr/0004-event-time.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.core.schema import DType, Schema
from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES, arrow_schema
from mainspring.data.model import SEQUENCE, TableScan
from mainspring.features.asof import check_flag, last_sql
from mainspring.features.computed import compute
from mainspring.features.layout import Layout
from mainspring.features.model import FeatureGroup, FeatureView, Observations, RequestFeatures, views_of
from mainspring.features.observed import as_read
from mainspring.features.types import feature_dtype, request_schema, stored_schema
from mainspring.features.windows import read_windows

Scan = Callable[[str], TableScan]


def point_in_time(
    observations: pa.Table,
    groups: Sequence[FeatureGroup],
    scan: Scan,
    *,
    schema: Schema,
    at: str = "_at",
    memory_limit: str = "2GB",
    rows_worth_a_tile: float = 16,
) -> pa.Table:
    """Return the observations, in the order given, with every feature of `groups` by its full name beside them.

    Shape (observations, columns + features). An observation without a match stays, with nulls, counts of 0 and
    declared defaults.

    Args:
        observations: The key columns of the views' entities, the request's fields, and the instant `at` of each.
        scan: Gives the version of a source's table to read, by the source's name.
        schema: The types of the observations' columns.
        memory_limit: What DuckDB may use before it spills to disk.
        rows_worth_a_tile: How many rows of an entity in the hop of an observation make it worth to sum them up in
            finer tiles. It changes the time a read takes, and nothing else.

    Raises:
        InvalidData: A time is naive or finer than a microsecond, or a column is missing or of another type.
    """
    typed = as_read(observations, groups, schema, at)
    found: dict[str, Any] = {}
    with _connection(memory_limit) as con:
        con.register("observed", typed)
        for view in views_of(groups):
            with duck.duck_errors(view.source.name):
                found.update(_stored(con, view, scan(view.source.name), rows_worth_a_tile))
            found.update(_derived(con, view, found, typed.num_rows))
        for group in groups:
            if isinstance(group, RequestFeatures):
                found.update(_request(con, group, typed, found, schema))
    result = observations
    for name in (name for group in groups for name in group.columns):
        result = result.append_column(name, found[name])
    return result


def observe(
    definition: Observations,
    scan: Scan,
    *,
    since: int | None = None,
    until: int | None = None,
    memory_limit: str = "2GB",
) -> pa.Table:
    """Return the rows of the observations' source with `_at` in `[since, until)`, and that column `_at`, by time.

    A row without a time (its `at` is null) is no observation. Instants are UTC epoch microseconds.
    """
    columns = definition.source.columns
    names = ", ".join(quote_name(name) for name in columns)
    bounds = [
        f"epoch_us(_at) >= {since}" if since is not None else "",
        f"epoch_us(_at) < {until}" if until is not None else "",
    ]
    where = " AND ".join(["_at IS NOT NULL", *filter(None, bounds)])
    with _connection(memory_limit) as con, duck.duck_errors(definition.source.name):
        duck.register(con, "source", scan(definition.source.name))
        rows: pa.Table = con.sql(
            f"SELECT {names}, _at FROM (SELECT *, {to_sql(definition.at, columns)} AS _at FROM source) "
            f"WHERE {where} ORDER BY _at, {SEQUENCE}"
        ).to_arrow_table()
    return rows.cast(arrow_schema({**columns, "_at": DType.Timestamp}))


@contextmanager
def _connection(memory_limit: str) -> Iterator[Any]:
    con = duck.connect(memory_limit=memory_limit)
    try:
        yield con
    finally:
        con.close()


def _stored(con: Any, view: FeatureView, scan: TableScan, rows_worth_a_tile: float) -> dict[str, pa.ChunkedArray[Any]]:
    """Compute one view's features for every row of `observed`."""
    layout = Layout(view)
    duck.register(con, "source", scan)
    found: dict[str, pa.ChunkedArray[Any]] = {}
    if layout.lasts:
        check_flag(scan, view)
        found.update(_arrow(con, last_sql(layout)))
    if layout.windows:
        read_windows(con, layout, rows_worth_a_tile)
        found.update(_arrow(con, "SELECT * EXCLUDE (_i) FROM windowed ORDER BY _i"))
        con.execute("DROP TABLE windowed")
    con.execute("DROP VIEW IF EXISTS source")
    return {f"{view.name}.{name}": _column(found[name], feature_dtype(view, name)) for name in view.features}


def _derived(con: Any, view: FeatureView, found: Mapping[str, Any], rows: int) -> dict[str, pa.ChunkedArray[Any]]:
    if not view.derived:
        return {}
    stored = {name: found[f"{view.name}.{name}"] for name in view.features}
    values = compute(con, view.derived, stored, stored_schema(view), rows)
    return {f"{view.name}.{name}": column for name, column in values.items()}


def _request(
    con: Any, group: RequestFeatures, observed: pa.Table, found: Mapping[str, Any], fields: Schema
) -> dict[str, pa.ChunkedArray[Any]]:
    known = {name: observed.column(name) for name in fields if name in observed.column_names}
    values = compute(con, group.features, {**known, **found}, request_schema(group, fields), observed.num_rows)
    return {f"{group.name}.{name}": column for name, column in values.items()}


def _arrow(con: Any, query: str) -> Mapping[str, pa.ChunkedArray[Any]]:
    table = con.sql(query).to_arrow_table()
    return {name: table.column(name) for name in table.column_names}


def _column(values: pa.ChunkedArray[Any], dtype: DType) -> pa.ChunkedArray[Any]:
    return values if values.type == ARROW_TYPES[dtype] else values.cast(ARROW_TYPES[dtype])
