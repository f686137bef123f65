"""The offline read: what was known of each observation's entities at its time, computed by DuckDB from the lake.

Views run one after another (two in one statement keep both in memory). The rules are those of the point-in-time
semantics: docs/adr/0004-event-time.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from mainspring.core.errors import InvalidData
from mainspring.core.expr.sql import to_sql
from mainspring.core.schema import DType, Schema
from mainspring.data import duck
from mainspring.data.model import RECORD_PREFIX, SEQUENCE, VISIBLE_AT, TableScan
from mainspring.features import parts as state
from mainspring.features.layout import Layout
from mainspring.features.model import Entity, FeatureGroup, FeatureView, Observations, RequestFeatures, hop
from mainspring.features.types import feature_dtype
from mainspring.features.windows import read_windows

ARROW_TYPES = {
    DType.String: pa.string(),
    DType.Boolean: pa.bool_(),
    DType.Int32: pa.int32(),
    DType.Int64: pa.int64(),
    DType.Float32: pa.float32(),
    DType.Float64: pa.float64(),
    DType.Timestamp: pa.timestamp("us", tz="UTC"),
}
Scan = Callable[[str], TableScan]


def point_in_time(
    observations: pa.Table,
    groups: Sequence[FeatureGroup],
    scan: Scan,
    *,
    schema: Schema,
    at: str = "_at",
    memory_limit: str = "2GB",
) -> pa.Table:
    """Return the observations, in the order given, with every feature of `groups` by its full name beside them.

    Shape (observations, columns + features). An observation without a match stays, with nulls, counts of 0 and
    declared defaults.

    Args:
        observations: The key columns of the views' entities, the request's fields, and the instant `at` of each.
        scan: Gives the version of a source's table to read, by the source's name.
        schema: The types of the observations' columns.
        memory_limit: What DuckDB may use before it spills to disk.

    Raises:
        InvalidData: A time is naive or finer than a microsecond, or a column is missing or of another type.
    """
    typed = _typed(observations, groups, schema, at)
    found: dict[str, Any] = {}
    with _connection(memory_limit) as con:
        con.register("observed", typed)
        for group in groups:
            if isinstance(group, RequestFeatures):
                found.update(_request(con, group, schema))
            else:
                found.update(_stored(con, group, scan(group.source.name)))
    result = observations
    for name, values in found.items():
        result = result.append_column(name, values)
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
    names = ", ".join(_quoted(name) for name in columns)
    bounds = [
        f"epoch_us(_at) >= {since}" if since is not None else "",
        f"epoch_us(_at) < {until}" if until is not None else "",
    ]
    where = " AND ".join(["_at IS NOT NULL", *filter(None, bounds)])
    with _connection(memory_limit) as con:
        duck.register(con, "source", scan(definition.source.name))
        rows = con.sql(
            f"SELECT {names}, _at FROM (SELECT *, {to_sql(definition.at, columns)} AS _at FROM source) "
            f"WHERE {where} ORDER BY _at, {SEQUENCE}"
        ).to_arrow_table()
    return rows.cast(
        pa.schema([(name, ARROW_TYPES[dtype]) for name, dtype in {**columns, "_at": DType.Timestamp}.items()])
    )


@contextmanager
def _connection(memory_limit: str) -> Iterator[Any]:
    con = duck.connect(memory_limit=memory_limit)
    try:
        yield con
    finally:
        con.close()


def _stored(con: Any, view: FeatureView, scan: TableScan) -> dict[str, pa.ChunkedArray]:
    """Compute one view's features for every row of `observed`."""
    layout = Layout(view)
    duck.register(con, "source", scan)
    found: dict[str, pa.ChunkedArray] = {}
    if layout.lasts:
        found.update(_arrow(con, _last_sql(layout)))
    if layout.windows:
        _prepare_windows(con, layout)
        read_windows(con, layout)
        found.update(_arrow(con, _windowed_sql(layout)))
        for table in ("labels", "events", "entities", "windowed"):
            con.execute(f"DROP TABLE {table}")
    con.execute("DROP VIEW IF EXISTS source")
    return {f"{view.name}.{name}": _column(found[name], feature_dtype(view, name)) for name in view.features}


def _last_sql(layout: Layout) -> str:
    """One native ASOF join over the rows that count for last values, then the TTL on the event time."""
    view = layout.view
    columns = view.source.columns
    keys = list(view.entity.keys)
    values = ", ".join(f"{to_sql(expr, columns)} AS _x{n}" for n, expr in enumerate(layout.last_exprs))
    picked = ", ".join(
        f'CASE WHEN o._t - r._e <= {last.ttl} THEN r._x{last.column} END AS "{last.name}"'
        if last.ttl is not None
        else f'r._x{last.column} AS "{last.name}"'
        for last in layout.lasts
    )
    return (
        f"SELECT {picked} FROM observed AS o ASOF LEFT JOIN (SELECT {_list(keys)}, epoch_us({VISIBLE_AT}) AS _v, "
        f"epoch_us({_quoted(view.source.event_time)}) AS _e, {values} FROM source "
        f"WHERE {_quoted(RECORD_PREFIX + view.entity.name)}) AS r ON {_equal(keys, 'o', 'r')} AND o._t >= r._v ORDER BY o._i"
    )


def _prepare_windows(con: Any, layout: Layout) -> None:
    """Make tables `labels` and `events` with small integers for the entities: only those that are asked about."""
    view = layout.view
    keys = list(view.entity.keys)
    there = " AND ".join(f"{_quoted(key)} IS NOT NULL" for key in keys)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE entities AS SELECT row_number() OVER () AS kid, {_list(keys)} "
        f"FROM (SELECT DISTINCT {_list(keys)} FROM observed WHERE {there} AND _t IS NOT NULL)"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE labels AS SELECT o._i, k.kid, o._t AS t FROM observed AS o JOIN entities AS k "
        f"ON {_equal(keys, 'o', 'k')} WHERE o._t IS NOT NULL"
    )
    measures = ", ".join(
        f"{state.measure_sql(measure, view.source.columns)} AS _m{n}" for n, measure in enumerate(layout.measures)
    )
    reach = max(feature.window + hop(feature.window) for feature in layout.windows)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE events AS SELECT k.kid, s._e AS e, s._v AS v, {', '.join(f's._m{n} AS m{n}' for n in range(len(layout.measures)))} "
        f"FROM (SELECT {_list(keys)}, epoch_us({_quoted(view.source.event_time)}) AS _e, epoch_us({VISIBLE_AT}) AS _v, "
        f"{measures} FROM source) AS s JOIN entities AS k ON {_equal(keys, 's', 'k')} "
        f"WHERE s._v <= (SELECT max(t) FROM labels) AND s._e >= (SELECT min(t) FROM labels) - {reach}"
    )


def _windowed_sql(layout: Layout) -> str:
    picked = []
    for feature in layout.windows:
        default = 0 if feature.kind == "count" else feature.default
        value = f'w."{feature.name}"' if default is None else f'coalesce(w."{feature.name}", {default!r})'
        picked.append(f'{value} AS "{feature.name}"')
    typed = ", ".join(
        f'{state.as_type(_quoted(f.name), feature_dtype(layout.view, f.name))} AS "{f.name}"' for f in layout.windows
    )
    return (
        f"SELECT {typed} FROM (SELECT o._i, {', '.join(picked)} FROM observed AS o LEFT JOIN windowed AS w USING (_i)) "
        f"ORDER BY _i"
    )


def _request(con: Any, group: RequestFeatures, schema: Schema) -> dict[str, pa.ChunkedArray]:
    values = ", ".join(f'{to_sql(expr, schema)} AS "{name}"' for name, expr in group.features.items())
    found = _arrow(con, f"SELECT {values} FROM observed ORDER BY _i")
    return {f"{group.name}.{name}": _column(found[name], feature_dtype(group, name, schema)) for name in group.features}


def _typed(observations: pa.Table, groups: Sequence[FeatureGroup], schema: Schema, at: str) -> pa.Table:
    """The observations as the engine reads them: columns in their declared types, `_t` in microseconds, `_i` the row."""
    needed: dict[str, DType] = {name: schema[name] for name in schema if name in observations.column_names}
    for entity in _entities(groups):
        needed.update(entity.keys)
    arrays = {name: _checked(observations, name, dtype) for name, dtype in needed.items() if name != at}
    arrays["_t"] = _checked(observations, at, DType.Timestamp).cast(pa.int64())
    arrays["_i"] = pa.chunked_array([pa.array(range(observations.num_rows), pa.int64())])
    return pa.table(arrays)


def _entities(groups: Sequence[FeatureGroup]) -> list[Entity]:
    return [group.entity for group in groups if isinstance(group, FeatureView)]


def _checked(table: pa.Table, name: str, dtype: DType) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InvalidData(f"The observations have no column {name!r}; they have {table.column_names}.")
    column = table.column(name)
    given = column.type
    if pa.types.is_dictionary(given):
        given = given.value_type
    if dtype == DType.Timestamp and pa.types.is_timestamp(given) and given.tz is None:
        raise InvalidData(
            f"Column {name!r} of the observations is {given}: it has no time zone, so it names no instant.",
            fix="localise it first: df[name].dt.tz_localize('America/New_York').",
        )
    if not (pa.types.is_null(given) or _same_kind(given, dtype)):
        raise InvalidData(f"Column {name!r} of the observations is {given}, not {dtype!r}.", fix="cast it.")
    try:
        return column.cast(ARROW_TYPES[dtype])
    except pa.ArrowInvalid as error:
        raise InvalidData(f"Column {name!r} of the observations does not fit {dtype!r}: {error}.") from None


def _same_kind(given: pa.DataType, dtype: DType) -> bool:
    if dtype == DType.String:
        return bool(pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given))
    if dtype == DType.Boolean:
        return bool(pa.types.is_boolean(given))
    if dtype == DType.Timestamp:
        return bool(pa.types.is_timestamp(given))
    if dtype in (DType.Int32, DType.Int64):
        return bool(pa.types.is_integer(given))
    return bool(pa.types.is_floating(given) or pa.types.is_integer(given))


def _arrow(con: Any, query: str) -> Mapping[str, pa.ChunkedArray]:
    table = con.sql(query).to_arrow_table()
    return {name: table.column(name) for name in table.column_names}


def _column(values: pa.ChunkedArray, dtype: DType) -> pa.ChunkedArray:
    return values if values.type == ARROW_TYPES[dtype] else values.cast(ARROW_TYPES[dtype])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _list(names: Sequence[str]) -> str:
    return ", ".join(_quoted(name) for name in names)


def _equal(keys: Sequence[str], left: str, right: str) -> str:
    return " AND ".join(f"{left}.{_quoted(key)} = {right}.{_quoted(key)}" for key in keys)
