"""The stored features of views, read by DuckDB source by source, each opened once.

Views of one entity and one source share a pass over its rows: last values share a join, windows of one width share
their rows and tiles. A value is the same separately and together, except for the last bit of a sum of fractions, which
depends on the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.model import TableScan
from mainspring.features.layout import SKETCHES, Layout, layout_of
from mainspring.features.model import FeatureView
from mainspring.features.offline.asof import check_flag, last_query
from mainspring.features.offline.placing import Keep, Kept, Kind
from mainspring.features.offline.query import Query, bind, made
from mainspring.features.offline.versions import has_versions
from mainspring.features.offline.windows import events_query, labels_query, levels_of, window_query

T = TypeVar("T")
# Makes what is wanted of a query's result, given its SQL, its columns besides `_i`, an observation's number, and what
# the features' full names have before them. It has a row for each observation that has any value, in any order.
Collect = Callable[[str, Mapping[str, Kind], str], T]
Scan = Callable[[str], TableScan]
Bounds = tuple[int | None, int | None]  # the first and the last observed instant, UTC epoch microseconds
_FEATURES = 64  # maximum number read together, to limit memory


class StoredRead(Protocol):
    """Read of stored features by another engine than DuckDB on the lake."""

    @property
    def tags(self) -> Mapping[str, str]:
        """The engine, and what it read last: tags of a run."""
        ...

    @property
    def statement(self) -> str:
        """The statement that read last."""
        ...

    def __call__(self, con: Any, views: Sequence[FeatureView], keep: Keep) -> Iterable[Kept]:
        """Yield what `keep` makes of each result; together they contain each stored feature of the views once.

        Args:
            con: A DuckDB connection that has `observed`, see `read_views`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Together:
    """Several views combined into one with all their features.

    Attributes:
        view: A single view unchanged; else a combined one whose features have their full names.
        prefix: Prefix of a feature's full name before its name in `view`.
    """

    view: FeatureView
    prefix: str


def by_source(views: Iterable[FeatureView]) -> dict[str, list[Together]]:
    """Return by source name the groups of views that are read one after another."""
    found: dict[str, dict[tuple[int, ...], list[FeatureView]]] = {}
    for view in views:
        # Another declaration of the same source may have other columns. Sketches are large, so each such view is read
        # alone.
        alone = (id(view),) if _sketches(view) else ()
        key = id(view.source), id(view.entity), *alone
        found.setdefault(view.source.name, {}).setdefault(key, []).append(view)
    return {
        source: [_together(tuple(some)) for group in groups.values() for some in _portions(group)]
        for source, groups in found.items()
    }


def _sketches(view: FeatureView) -> bool:
    return any(part in SKETCHES for feature in layout_of(view).windows for part in feature.parts)


def _portions(views: Sequence[FeatureView]) -> Iterator[list[FeatureView]]:
    portion: list[FeatureView] = []
    features = 0
    for view in views:
        if portion and features + len(view.features) > _FEATURES:
            yield portion
            portion, features = [], 0
        portion.append(view)
        features += len(view.features)
    yield portion


@lru_cache(1024)
def _together(views: tuple[FeatureView, ...]) -> Together:
    if len(views) == 1:
        return Together(views[0], f"{views[0].name}.")
    features = {f"{view.name}.{name}": feature for view in views for name, feature in view.features.items()}
    names = ", ".join(view.name for view in views)
    return Together(FeatureView(names, views[0].entity, views[0].source, features), "")


def read_views(
    con: Any, views: Iterable[FeatureView], scan: Scan, bounds: Bounds, rows_worth_a_tile: float, collect: Collect[T]
) -> Iterator[T]:
    """Yield the result of `collect` for each query over the views; together they contain each stored feature once.

    Args:
        con: A DuckDB connection that has `observed`: _i, the row's number; _t, its instant; the key columns.
        scan: Returns the version of a source's table to read, by the source's name; called once per source.
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
