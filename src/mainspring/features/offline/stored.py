"""The stored features of views, read by DuckDB source by source: each is opened once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.model import TableScan
from mainspring.features.layout import Layout, layout_of
from mainspring.features.model import FeatureView
from mainspring.features.offline.asof import check_flag, last_query
from mainspring.features.offline.placing import Kind
from mainspring.features.offline.query import Query, bind, made
from mainspring.features.offline.together import Together, by_source
from mainspring.features.offline.versions import has_versions
from mainspring.features.offline.windows import events_query, labels_query, levels_of, window_query

T = TypeVar("T")
# Makes what is wanted of a query's result, given its SQL, its columns besides `_i`, an observation's number, and what
# the features' full names have before them. It has a row for each observation that has any value, in any order.
Collect = Callable[[str, Mapping[str, Kind], str], T]
Scan = Callable[[str], TableScan]
Bounds = tuple[int | None, int | None]  # the first and the last instant asked about, UTC epoch microseconds


def read_views(
    con: Any, views: Iterable[FeatureView], scan: Scan, bounds: Bounds, rows_worth_a_tile: float, collect: Collect[T]
) -> Iterator[T]:
    """Yield what `collect` makes of each query over the views; together they have each stored feature once.

    Args:
        con: A DuckDB connection that has `observed`: _i, the row's number; _t, its instant; the key columns.
        scan: Gives the version of a source's table to read, by the source's name; called once for each source.
    """
    bind(con, *bounds)
    for source, portions in by_source(views).items():
        scanned = scan(source)
        with duck.duck_errors(source, scanned):
            duck.register(con, "source", scanned)
            for portion in portions:
                yield from run(con, portion, scanned, rows_worth_a_tile, collect)
            con.execute("DROP VIEW IF EXISTS source")


def run(con: Any, read: Together, scan: TableScan, rows_worth_a_tile: float, collect: Collect[T]) -> Iterator[T]:
    """Run the queries of some views over `observed` and `source`; see `read_views`."""
    view = read.view
    layout, versions = layout_of(view), has_versions(scan, view.source)

    def collected(query: Query, names: list[str]) -> T:
        with made(con, query) as result:
            return collect(result, _kinds(layout, names), read.prefix)

    if layout.lasts:
        check_flag(scan, view)
        yield collected(last_query(layout, versions=versions), [last.name for last in layout.lasts])
    if layout.windows:
        with made(con, labels_query(layout)) as density:
            observations, rows, span = con.execute(density).fetchone()
            levels = levels_of(layout, observations, rows, span, rows_worth_a_tile, versions=versions)
            with made(con, events_query(layout, levels, versions=versions)):
                for each in levels:
                    names = [feature.name for feature in layout.windows if feature.window == each.window]
                    yield collected(window_query(layout, each), names)


def _kinds(layout: Layout, names: list[str]) -> dict[str, Kind]:
    return {
        name: Kind(
            ARROW_TYPES[layout.dtype(name)],
            None if layout.view.features[name].kind == "last" else layout.default(name),
        )
        for name in names
    }
