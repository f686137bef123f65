"""The offline read of last values: one native ASOF join over the rows that count.

The join finds the row for each observation, with only times and row numbers: sorting the values of every row would take
most of the time and memory. Then the values of the found rows are fetched.
"""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import quote_name
from mainspring.data.arrow import keyings_of
from mainspring.data.model import RECORD_PREFIX, SEQUENCE, VISIBLE_AT, TableScan
from mainspring.features.layout import Layout
from mainspring.features.model import FeatureView
from mainspring.features.offline.query import COUNTS_FROM, NEWEST, OLDEST, Query, Script
from mainspring.features.offline.versions import MORTAL, alive_sql, mortals_sql, rank_sql
from mainspring.features.state.sql import row_sql


def last_query(layout: Layout, *, native: bool = True, versions: bool = False) -> Query:
    """Return the read of a view's last values, from `observed` (_i, _t, keys) and `source`.

    The newest counting row is found first, then the TTL is applied to its event time: an expired value is null, never
        an older one. Ingestion marks only one of the rows that become visible at the same instant, so the join has no
        ties.

    Args:
        native: Whether to use the engine's ASOF join, else standard SQL: a union and a window function.
        versions: Whether rows are versions of facts (`features.offline.versions.has_versions`). The join then finds the
            newest of those that were not superseded, but a superseded one that was alive may be newer.
    """
    script = Script()
    matches = asof_sql(layout) if native else union_sql(layout)
    if versions:
        keys = list(layout.view.entity.keys)
        rank = rank_sql(layout.view)
        condition = " AND ".join([MORTAL, *_unexpired(layout)])
        script.table("mortals", mortals_sql(f"{listed(keys)}, {rank}", f"FROM source WHERE {condition}"))
        script.table("standing", f"SELECT f._i, f._t, r.* FROM ({matches}) AS f JOIN (SELECT {rank} FROM source) AS r "
                     f"ON r.seq = f.{SEQUENCE}")  # fmt: skip
        asks = f"(SELECT _i, _t AS t, {listed(keys)} FROM observed WHERE _t IS NOT NULL)"
        alive = alive_sql("ask._i, ask.t AS _t, e, r, seq", asks, "mortals", equal(keys, "row", "ask"))
        matches = (
            f"SELECT _i, _t, seq AS {SEQUENCE} FROM (FROM standing UNION ALL {alive}) "
            "QUALIFY row_number() OVER (PARTITION BY _i ORDER BY e DESC, r DESC, seq DESC) = 1"
        )
    script.table("found", matches)
    return script.query(fetch_sql(layout))


def asof_sql(layout: Layout) -> str:
    """SELECT _i, _t and the `_seq` of the matching row, for each row of `observed` with a match."""
    keys = list(layout.view.entity.keys)
    return (
        f"SELECT o._i, o._t, r.{SEQUENCE} FROM observed AS o ASOF JOIN ({_counting(layout)}) AS r "
        f"ON {equal(keys, 'o', 'r')} AND o._t >= r._v"
    )


def union_sql(layout: Layout) -> str:
    """Return `asof_sql` for engines without an ASOF join: a union of rows and observations, with the last row before
    each.
    """
    keys = list(layout.view.entity.keys)
    there = " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in keys)
    return (
        f"SELECT _i, _t, {SEQUENCE} FROM (SELECT _i, _v AS _t, last_value({SEQUENCE} IGNORE NULLS) OVER ("
        # A row that counts from exactly the observation's instant is known, so rows sort first.
        f"PARTITION BY {listed(keys)} ORDER BY _v, CASE WHEN _i IS NULL THEN 0 ELSE 1 END "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS {SEQUENCE} FROM ("
        f"SELECT {listed(keys)}, _v, {SEQUENCE}, NULL AS _i FROM ({_counting(layout)}) AS r WHERE {there} UNION ALL "
        f"SELECT {listed(keys)}, _t, NULL, _i FROM observed WHERE {there} AND _t IS NOT NULL) AS asked) AS ranked "
        f"WHERE _i IS NOT NULL AND {SEQUENCE} IS NOT NULL"
    )


def fetch_sql(layout: Layout) -> str:
    """SELECT _i and the last values, for each row of `found`, in any order."""
    view = layout.view
    columns = view.source.columns
    values = ", ".join(f"{row_sql(expr, columns)} AS _x{n}" for n, expr in enumerate(layout.last_exprs))
    picked = ", ".join(
        f"r._x{last.column} AS {quote_name(last.name)}"
        if last.ttl is None
        else f"CASE WHEN f._t - r._e <= {last.ttl} THEN r._x{last.column} END AS {quote_name(last.name)}"
        for last in layout.lasts
    )
    expires = any(last.ttl is not None for last in layout.lasts)
    event = f"epoch_us({quote_name(view.source.event_time)}) AS _e, " if expires else ""
    return (
        f"SELECT f._i, {picked} FROM found AS f "
        f"JOIN (SELECT {SEQUENCE}, {event}{values} FROM source) AS r ON r.{SEQUENCE} = f.{SEQUENCE}"
    )


def _counting(layout: Layout) -> str:
    """SELECT the keys, `_v` and `_seq` of the counting rows that can match an observation."""
    view = layout.view
    conditions = [
        quote_name(RECORD_PREFIX + view.entity.name),
        f"{VISIBLE_AT} < make_timestamptz({NEWEST})",
        *_unexpired(layout),
    ]
    return (
        f"SELECT {listed(list(view.entity.keys))}, {COUNTS_FROM} AS _v, {SEQUENCE} "
        f"FROM source WHERE {' AND '.join(conditions)}"
    )


def _unexpired(layout: Layout) -> list[str]:
    """Condition that a row has not expired for every observation, if all last values have a TTL."""
    ttls = [last.ttl for last in layout.lasts if last.ttl is not None]
    if len(ttls) < len(layout.lasts):
        return []
    # Event times only grow along the counting rows, so if an expired one is left out, older ones are too.
    return [f"{quote_name(layout.view.source.event_time)} >= make_timestamptz({OLDEST} - {max(ttls)})"]


def check_flag(scan: TableScan, view: FeatureView) -> None:
    """Check that ingestion has marked the rows that count for the view's entity.

    Raises:
        Invalid: The source was ingested before the view was declared.
    """
    schema = scan.schema if scan.rows is None else scan.rows.schema
    entity, source = view.entity, view.source.name
    marked = keyings_of(schema) if schema is not None else {}
    if schema is not None and marked.get(entity.name, tuple(entity.keys)) != tuple(entity.keys):
        raise Invalid(
            f"Source {source!r} was ingested when entity {entity.name!r} had the keys {list(marked[entity.name])}.",
            fix="run `mainspring apply`.",
        )
    if schema is not None and RECORD_PREFIX + entity.name not in schema.names:
        raise Invalid(
            f"Source {source!r} was ingested before entity {entity.name!r} was declared.", fix="run `mainspring apply`."
        )


def listed(names: Sequence[str]) -> str:
    return ", ".join(map(quote_name, names))


def equal(keys: Sequence[str], left: str, right: str) -> str:
    """Condition that two tables are equal in the key columns; null equals nothing."""
    return " AND ".join(f"{left}.{quote_name(key)} = {right}.{quote_name(key)}" for key in keys)
