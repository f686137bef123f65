"""The stored features of views, read by DuckDB one view after another (two in one statement keep both in memory)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.model import TableScan
from mainspring.features.layout import Layout
from mainspring.features.model import FeatureView
from mainspring.features.offline.asof import check_flag, last_query
from mainspring.features.offline.placing import Kind
from mainspring.features.offline.query import Query, bind, made
from mainspring.features.offline.versions import has_versions
from mainspring.features.offline.windows import events_query, labels_query, levels_of, window_query
from mainspring.features.types import default_of, feature_dtype

T = TypeVar("T")
# Makes what is wanted of a query's result, given its SQL and its columns besides `_i`, an observation's number. It has
# a row for each observation that has any value, in any order.
Collect = Callable[[str, Mapping[str, Kind]], T]
Bounds = tuple[int | None, int | None]  # the first and the last instant asked about, UTC epoch microseconds


def read_view(
    con: Any, view: FeatureView, scan: TableScan, bounds: Bounds, rows_worth_a_tile: float, collect: Collect[T]
) -> Iterator[T]:
    """Yield what `collect` makes of each of the view's queries; together they have each stored feature once.

    Args:
        con: A DuckDB connection that has `observed`: _i, the row's number; _t, its instant; the key columns.
    """
    with duck.duck_errors(view.source.name, scan):
        duck.register(con, "source", scan)
        bind(con, *bounds)
        yield from run(con, view, scan, rows_worth_a_tile, collect)
        con.execute("DROP VIEW IF EXISTS source")


def run(con: Any, view: FeatureView, scan: TableScan, rows_worth_a_tile: float, collect: Collect[T]) -> Iterator[T]:
    """Run the view's queries over `observed` and `source`; see `read_view`."""
    layout, versions = Layout(view), has_versions(scan, view.source)
    if layout.lasts:
        check_flag(scan, view)
        yield _collected(
            con, last_query(layout, versions=versions), collect, _kinds(view, [last.name for last in layout.lasts])
        )
    if layout.windows:
        with made(con, labels_query(layout)) as density:
            observations, rows, span = con.execute(density).fetchone()
            levels = levels_of(layout, observations, rows, span, rows_worth_a_tile, versions=versions)
            with made(con, events_query(layout, levels, versions=versions)):
                for each in levels:
                    names = [feature.name for feature in layout.windows if feature.window == each.window]
                    yield _collected(con, window_query(layout, each), collect, _kinds(view, names))


def _collected(con: Any, query: Query, collect: Collect[T], kinds: Mapping[str, Kind]) -> T:
    with made(con, query) as result:
        return collect(result, kinds)


def _kinds(view: FeatureView, names: list[str]) -> dict[str, Kind]:
    return {
        name: Kind(
            ARROW_TYPES[feature_dtype(view, name)],
            None if view.features[name].kind == "last" else default_of(view, name),
        )
        for name in names
    }
