"""The stored features of views, read by DuckDB one view after another (two in one statement keep both in memory)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import pyarrow as pa

from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT
from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.model import TableScan
from mainspring.features.asof import check_flag, last_query
from mainspring.features.layout import Layout
from mainspring.features.model import FeatureView
from mainspring.features.query import Query, drop_tables, make_tables
from mainspring.features.types import feature_dtype
from mainspring.features.windows import read_windows

T = TypeVar("T")
# Makes what is wanted of a query's result: given the query and the types of its columns besides `_i`.
Collect = Callable[[str, Mapping[str, pa.DataType]], T]
Bounds = Mapping[str, int | None]


def as_bounds(oldest: int | None, newest: int | None) -> Bounds:
    """Return the parameters of queries: the first and the last instant asked about, `None` where there is none."""
    # No row has a time outside these, and DuckDB refuses what is too far away.
    return {
        name: None if instant is None else min(max(instant, FIRST_INSTANT), LAST_INSTANT)
        for name, instant in (("oldest", oldest), ("newest", newest))
    }


def read_view(
    con: Any, view: FeatureView, scan: TableScan, bounds: Bounds, rows_worth_a_tile: float, collect: Collect[T]
) -> Iterator[T]:
    """Yield what `collect` makes of each of the view's queries; together they have each stored feature once.

    Args:
        con: A DuckDB connection that has `observed`: _i, the row's number; _t, its instant; the key columns.
    """
    layout = Layout(view)
    with duck.duck_errors(view.source.name, scan):
        duck.register(con, "source", scan)
        if layout.lasts:
            check_flag(scan, view)
            query = last_query(layout)
            make_tables(con, query, bounds)
            yield collect(query.result, _kinds(view, [last.name for last in layout.lasts]))
            drop_tables(con, query)
        if layout.windows:
            read_windows(con, layout, rows_worth_a_tile)
            query = Query((("windowed", ""),), "SELECT * FROM windowed")
            yield collect(query.result, _kinds(view, [feature.name for feature in layout.windows]))
            drop_tables(con, query)
        con.execute("DROP VIEW IF EXISTS source")


def _kinds(view: FeatureView, names: list[str]) -> dict[str, pa.DataType]:
    return {name: ARROW_TYPES[feature_dtype(view, name)] for name in names}
