"""Observations: their selection from a source, and their form for the engine.

The engine reads them in their declared types, each at an exact instant, in the given order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import InvalidData
from mainspring.core.expr.sql import quote_name, quote_text, to_sql
from mainspring.core.schema import DType, Schema
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT
from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES, arrow_schema
from mainspring.data.arrow_coercion import whole_microseconds
from mainspring.data.model import SEQUENCE, VISIBLE_AT, TableScan
from mainspring.features.model import Consent, FeatureGroup, Observations, views_of
from mainspring.features.offline.query import connection
from mainspring.features.offline.versions import first_versions_sql, open_versions

AT = "_at"


def observe(
    definition: Observations,
    scan: Callable[[str], TableScan],
    *,
    since: int | None = None,
    until: int | None = None,
) -> pa.Table:
    """Return the rows of the observations' source with `_at` in `[since, until)`, and that column `_at`, by time.

    A row whose time `at` is null, or which the definition's `where` or `consent` excludes, is not an observation. If
    the source's rows are versions of facts, each fact that is not retracted is one observation, by its first version:
    that version is what a request brought. With `until`, a fact that was retracted after it still counts.
    Instants are UTC epoch microseconds.

    Raises:
        Invalid: The table was not ingested with the id that the source declares.
    """
    columns = definition.source.columns
    with connection("2GB") as con, duck.duck_errors(definition.source.name):
        open_observed(con, definition, scan, since, until)
        names = ", ".join(map(quote_name, (*columns, AT)))
        rows: pa.Table = con.sql(f"SELECT {names} FROM observed ORDER BY {AT}, {SEQUENCE}").to_arrow_table()
    return rows.cast(arrow_schema({**columns, AT: DType.Timestamp}))


def open_observed(
    con: Any, definition: Observations, scan: Callable[[str], TableScan], since: int | None, until: int | None
) -> None:
    """Create the view `observed` with the rows of `observe`, in any order, with the order of arrival `_seq`.

    Raises:
        Invalid: As `observe`.
    """
    source = definition.source
    open_versions(con, "source", scan(source.name), source)
    bounds = [
        f"epoch_us({AT}) >= {since}" if since is not None else "",
        f"epoch_us({AT}) < {until}" if until is not None else "",
        f"({to_sql(definition.where, source.columns)})" if definition.where is not None else "",
    ]
    where = " AND ".join([f"{AT} IS NOT NULL", *filter(None, bounds)])
    names = ", ".join(map(quote_name, (*source.columns, SEQUENCE)))
    rows = "source" if source.versioning is None else f"({first_versions_sql(source, until)})"
    name = "observed" if definition.consent is None else "selected"
    con.execute(
        f"CREATE TEMP VIEW {name} AS SELECT {names}, {AT} "
        f"FROM (SELECT *, {to_sql(definition.at, source.columns)} AS {AT} FROM {rows}) WHERE {where}"
    )
    if definition.consent is not None:
        _open_consented(con, definition.consent, scan, until)


def without_consent(con: Any) -> int:
    """Return how many rows of a definition with a consent are not in the view `observed` for lack of it."""
    (count,) = duck.one_row(con, "SELECT (SELECT count(*) FROM selected) - (SELECT count(*) FROM consented)")
    return int(count)


def _open_consented(con: Any, consent: Consent, scan: Callable[[str], TableScan], until: int | None) -> None:
    """Create `observed` of those rows of `selected` whose subject had consented at their instant, and had at `until`.

    The newest of a subject's rows counts that had happened and was known at a time.
    """
    source = consent.source
    open_versions(con, "consents", scan(source.name), source)
    keys, event = list(map(quote_name, consent.entity.keys)), quote_name(source.event_time)
    known = f"greatest({event}, {VISIBLE_AT})"
    con.execute(
        f"CREATE TEMP TABLE decisions AS SELECT {', '.join(keys)}, {quote_name(consent.given)} AS given, "
        f"{event} AS decided, {known} AS known, {SEQUENCE} AS number FROM consents "
        f"WHERE {quote_name(consent.by)} = {quote_text(consent.purpose)}"
        + ("" if until is None else f" AND epoch_us({known}) <= {until}")
    )
    newest = "ORDER BY d.decided DESC, d.number DESC) = 1"
    same = " AND ".join(f"o.{key} = d.{key}" for key in keys)
    con.execute(
        f"CREATE TEMP TABLE consented AS SELECT {SEQUENCE} FROM ("
        f"SELECT o.{SEQUENCE}, d.given FROM selected AS o JOIN decisions AS d ON {same} AND d.known <= o.{AT} "
        f"QUALIFY row_number() OVER (PARTITION BY o.{SEQUENCE} {newest}) WHERE given INTERSECT "
        f"SELECT {SEQUENCE} FROM (SELECT o.{SEQUENCE}, d.given FROM selected AS o JOIN decisions AS d ON {same} "
        f"QUALIFY row_number() OVER (PARTITION BY o.{SEQUENCE} {newest}) WHERE given"
    )
    con.execute(f"CREATE TEMP VIEW observed AS SELECT * FROM selected SEMI JOIN consented USING ({SEQUENCE})")


def as_read(
    observations: pa.Table, groups: Sequence[FeatureGroup], schema: Schema, at: str, *, first: int = 0
) -> pa.Table:
    """Return the needed columns in their declared types, `_t` in microseconds, and `_i`, the row's number.

    Args:
        first: The number of the first row.
    """
    taken = [name for group in groups for name in group.columns if name in observations.column_names]
    if taken:
        raise InvalidData(
            f"The observations have a column {taken[0]!r}, which is a feature's name.", fix="drop it, or rename it."
        )
    needed: dict[str, DType] = {name: schema[name] for name in schema if name in observations.column_names}
    for view in views_of(groups):
        needed.update(view.entity.keys)
    arrays: dict[str, Any] = {name: _checked(observations, name, dtype) for name, dtype in needed.items() if name != at}
    arrays["_t"] = _within_time(_checked(observations, at, DType.Timestamp).cast(pa.int64()))
    arrays["_i"] = numbers(observations.num_rows, first)
    return pa.table(arrays)


def as_table(observations: Any) -> pa.Table:
    """Return a table from an Arrow C stream: a table, a data frame of pandas or Polars, a reader.

    Raises:
        InvalidData: `observations` has no such stream.
    """
    if isinstance(observations, pa.Table):
        return observations
    if hasattr(observations, "__arrow_c_stream__"):
        return pa.table(observations)
    raise InvalidData(
        f"The observations have the unsupported type {type(observations).__name__}.",
        fix="give an Arrow table or reader, or a data frame.",
    )


def numbers(rows: int, first: int = 0) -> pa.Array[Any]:
    """Return `first`, `first` + 1, ... of shape (rows,). (`pa.array` would create a Python object for each.)"""
    return pa.Array.from_buffers(
        pa.int64(), rows, [None, pa.py_buffer(np.arange(first, first + rows, dtype=np.int64).data)]
    )


def _within_time(instants: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Return the instants, clipped to the years 1 to 9999: no row has a time outside."""
    if (pc.min(instants).as_py() or 0) >= FIRST_INSTANT and (pc.max(instants).as_py() or 0) <= LAST_INSTANT:
        return instants
    at_most = pc.min_element_wise(instants, pa.scalar(LAST_INSTANT), skip_nulls=False)
    within: pa.ChunkedArray[Any] = pc.max_element_wise(at_most, pa.scalar(FIRST_INSTANT), skip_nulls=False)
    return within


def _checked(table: pa.Table, name: str, dtype: DType) -> pa.ChunkedArray[Any]:
    if name not in table.column_names:
        raise InvalidData(f"The observations have no column {name!r}; they have {table.column_names}.")
    column = table.column(name)
    arrow_type = column.type
    if pa.types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    if dtype == DType.Timestamp and pa.types.is_timestamp(arrow_type) and arrow_type.tz is None:
        raise InvalidData(
            f"Column {name!r} of the observations is {arrow_type}: it has no time zone, so it is not an instant.",
            fix="localise it first: df[name].dt.tz_localize('America/New_York').",
        )
    if not (pa.types.is_null(arrow_type) or _same_kind(arrow_type, dtype)):
        raise InvalidData(f"Column {name!r} of the observations is {arrow_type}, not {dtype!r}.", fix="cast it.")
    try:
        if dtype == DType.Timestamp:
            column = whole_microseconds(column)
        return column.cast(ARROW_TYPES[dtype])
    except pa.ArrowInvalid as error:
        raise InvalidData(f"Column {name!r} of the observations cannot be converted to {dtype!r}: {error}.") from None


def _same_kind(arrow_type: pa.DataType, dtype: DType) -> bool:
    if dtype == DType.String:
        return bool(
            pa.types.is_string(arrow_type)
            or pa.types.is_large_string(arrow_type)
            or pa.types.is_string_view(arrow_type)
        )
    if dtype == DType.Boolean:
        return bool(pa.types.is_boolean(arrow_type))
    if dtype == DType.Timestamp:
        return bool(pa.types.is_timestamp(arrow_type))
    if dtype in (DType.Int32, DType.Int64):
        return bool(pa.types.is_integer(arrow_type))
    return bool(pa.types.is_floating(arrow_type) or pa.types.is_integer(arrow_type))
