"""The offline read of last values: one native ASOF join over the rows that count."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.data.arrow import keyings_of
from mainspring.data.model import RECORD_PREFIX, VISIBLE_AT, TableScan
from mainspring.features.layout import Layout
from mainspring.features.model import FeatureView


def last_sql(layout: Layout) -> str:
    """Return the query of a view's last values, a row for each row of `observed` (_i, _t, keys), in its order.

    The newest row that counts is found first, then the TTL is applied to its event time: an expired value is null,
    never an older one. Of rows that become visible at once ingestion marks only one, so the join has no ties.
    """
    view = layout.view
    columns = view.source.columns
    keys = list(view.entity.keys)
    values = ", ".join(f"{to_sql(expr, columns)} AS _x{n}" for n, expr in enumerate(layout.last_exprs))
    picked = ", ".join(
        f"r._x{last.column} AS {quote_name(last.name)}"
        if last.ttl is None
        else f"CASE WHEN o._t - r._e <= {last.ttl} THEN r._x{last.column} END AS {quote_name(last.name)}"
        for last in layout.lasts
    )
    event = quote_name(view.source.event_time)
    return f"""
        SELECT {picked} FROM observed AS o ASOF LEFT JOIN (
            SELECT {listed(keys)}, epoch_us({VISIBLE_AT}) AS _v, epoch_us({event}) AS _e, {values}
            FROM source WHERE {quote_name(RECORD_PREFIX + view.entity.name)}) AS r
        ON {equal(keys, "o", "r")} AND o._t >= r._v ORDER BY o._i"""


def check_flag(scan: TableScan, view: FeatureView) -> None:
    """Check that ingestion has marked the rows that count for the view's entity.

    Raises:
        Invalid: It has not: the source was ingested before the view was declared.
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
    """The condition that two tables agree in the key columns; null agrees with nothing."""
    return " AND ".join(f"{left}.{quote_name(key)} = {right}.{quote_name(key)}" for key in keys)
