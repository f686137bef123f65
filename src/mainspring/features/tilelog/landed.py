"""The rows of a source in the form of a view: its entity's keys, their times, and the needed values."""

from __future__ import annotations

import hashlib
from typing import Any

import duckdb

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.schema import DType
from mainspring.data import duck
from mainspring.data.arrow import versioning_of
from mainspring.data.model import RECORD_PREFIX, SEQUENCE, SUPERSEDED_BY, VISIBLE_AT, TableScan, TableVersion
from mainspring.features.layout import Layout
from mainspring.features.offline.asof import check_flag
from mainspring.features.offline.query import COUNTS_FROM
from mainspring.features.offline.versions import COUNTS_UNTIL, landed_versioning
from mainspring.features.state.sql import measure_sql, row_sql


def key_columns(layout: Layout) -> list[str]:
    """Return the names of the key columns: k0, k1, ..."""
    return [f"k{n}" for n in range(len(layout.view.entity.keys))]


def value_columns(layout: Layout) -> list[str]:
    """Return the names of the value columns: x<i> for last values, m<i> for measures."""
    return [*(f"x{n}" for n in range(len(layout.last_exprs))), *(f"m{n}" for n in range(len(layout.measures)))]


def open_landing(con: Any, layout: Layout, scan: TableScan, name: str) -> None:
    """Create view `name` with one row per row of `scan` that names an entity of the view.

    Columns: k<i> (keys), e (event time), v (the first instant at which the row counts, which is a microsecond after it
    became visible), r (recorded time), seq, shown (the visible time, as it is stored), counts (the record-setting
    flag), x<i> (last values), m<i> (measures), digest (of all but the flag). Times are UTC epoch microseconds.

    If rows are versions of facts, also g (the first instant at which a row no longer counts), ender (the `seq` of the
    row that superseded it) and tiled (a digest of the content of tiles: the rows that were not superseded); else g and
    ender are null, and tiled is the digest.

    Raises:
        Invalid: The source was ingested before the view's entity was declared.
    """
    if layout.lasts:
        check_flag(scan, layout.view)
    duck.register(con, f"{name}_source", scan)
    # The table decides, not the view's declaration, so that a live bundle with an earlier declaration reads the same
    # facts.
    con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {_landing_sql(layout, landed_versioning(scan), name)}")


def content_digest(layout: Layout, known: TableVersion) -> bytes:
    """Return a digest of all inputs of `open_landing`: with equal digests its rows are equal.

    Only the version's description is read.
    """
    rows = _landing_sql(layout, versioning_of(known.schema), "landing")
    # A field's metadata has no order.
    schema = [(field.name, str(field.type), sorted((field.metadata or {}).items())) for field in known.schema]
    made_from = repr((sorted(known.files), schema, rows, duckdb.__version__))
    return hashlib.sha256(made_from.encode()).digest()[:16]


def _landing_sql(layout: Layout, versioning: tuple[tuple[str, ...], str | None] | None, name: str) -> str:
    view = layout.view
    source = view.source
    keys = [
        f"{_instant(quote_name(key), dtype == DType.Timestamp)} AS k{n}"
        for n, (key, dtype) in enumerate(view.entity.keys.items())
    ]
    times = [
        f"epoch_us({quote_name(source.event_time)}) AS e",
        f"{COUNTS_FROM} AS v",
        f"epoch_us({quote_name(source.recorded_time or source.event_time)}) AS r",
        f"{SEQUENCE} AS seq",
        f"{VISIBLE_AT} AS shown",
    ]
    values = [
        f"{_instant(row_sql(expr, source.columns), layout.dtype(last.name) == DType.Timestamp)} AS x{n}"
        for n, (last, expr) in enumerate(zip(layout.lasts, layout.last_exprs, strict=True))
    ]
    values += [
        f"{_instant(measure_sql(measure, source.columns), layout.measured[n] == DType.Timestamp)} AS m{n}"
        for n, measure in enumerate(layout.measures)
    ]
    versions = versioning is not None
    ends = (COUNTS_UNTIL, SUPERSEDED_BY) if versions else ("NULL::BIGINT", "NULL::BIGINT")
    counts = quote_name(RECORD_PREFIX + view.entity.name) if layout.lasts else "FALSE"
    there = " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in view.entity.keys)
    # With another id the same rows count at other times, so states and tiles are computed again.
    named = [quote_text(repr(versioning))] if versions else []
    hashed = ", ".join([*key_columns(layout), "e", "v", "r", "seq", *named, *value_columns(layout)])
    tiled = "CASE WHEN g IS NULL THEN digest ELSE hash(digest) END" if versions else "digest"
    return (
        f"SELECT *, {tiled} AS tiled FROM ("
        # DuckDB combines the last of several values by XOR, as loads combine rows: equal changes of two rows would
        # cancel out. The hash of a single value is mixed.
        f"SELECT *, hash(hash({hashed})) AS digest FROM ("
        f"SELECT {', '.join([*keys, *times, *values])}, {counts} AS counts, {ends[0]} AS g, {ends[1]} AS ender "
        f"FROM {name}_source WHERE {there}))"
    )


def close_landing(con: Any, name: str) -> None:
    con.execute(f"DROP VIEW IF EXISTS {name}")
    con.execute(f"DROP VIEW IF EXISTS {name}_source")


def _instant(value: str, instant: bool) -> str:
    return f"epoch_us({value})" if instant else value
