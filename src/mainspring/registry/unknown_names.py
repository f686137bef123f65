"""Names in a filter or an order that no run has: what was asked of them, nobody wanted to ask.

Whether a name is known is only asked where the answer looks as if it were not: that costs one look into the store, and
a search that finds something costs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mainspring.core.nearest import meant
from mainspring.registry.run_filters import Filter, Unreadable, order_at
from mainspring.registry.searching import NUMBERS, TEXTS, Column, Kind, Order, RunQuery, RunRow, RunSearch

_SINGULAR = {Kind.METRIC: "metric", Kind.PARAM: "parameter", Kind.TAG: "tag"}
_MACHINE = ("mlflow.", "mainspring.", "system/", "system.")  # names that only programs write
_COMPARED = 5000  # names of a kind among which the nearest is looked for
_SHOWN = 140  # characters of a name


class UnknownName(Unreadable):
    """A name that no run has. `at` is where it stands in the filter or in the order, from 0."""


def unknown_names(
    search: RunSearch, found: Filter, order: Order, runs: Sequence[RunRow], *, ordered_by: str = ""
) -> list[UnknownName]:
    """Return the names that explain a strange answer: one that is empty, or in no order.

    Args:
        runs: The page that was found, with the ordered value where a run has one.
        ordered_by: The order as it was written.
    """
    if runs:
        asked = [] if not ordered_by or any(_has(run, order.column) for run in runs) else ["order"]
    else:
        asked = ["filter", "order"] if ordered_by else ["filter"]
    columns = list(_asked(found, order, asked, ordered_by))
    unknown = [(where, column, at) for where, column, at in columns if not _is_known(search, column)]
    if not unknown or not (runs or search.search(RunQuery(limit=1)).runs):
        return []  # where no run is, no name is wrong
    names = _known_names(search, {column.name for _, column, _ in unknown})
    return [_unknown(search, where, column, at, names) for where, column, at in unknown]


def _asked(found: Filter, order: Order, asked: Sequence[str], ordered_by: str) -> Iterator[tuple[str, Column, int]]:
    if "filter" in asked:
        for condition, at in zip(found.conditions, found.places, strict=True):
            if condition.operator != "is null":  # which holds of every run
                yield "filter", condition.column, at
    if "order" in asked:
        yield "order", order.column, order_at(ordered_by)


def _is_known(search: RunSearch, column: Column) -> bool:
    return column.kind is Kind.ATTRIBUTE or column.kind in search.kinds(column.name)


def _has(run: RunRow, column: Column) -> bool:
    values = {Kind.METRIC: run.metrics, Kind.PARAM: run.params, Kind.TAG: run.tags}
    return column.kind is Kind.ATTRIBUTE or column.name in values[column.kind]


def _known_names(search: RunSearch, wanted: set[str]) -> set[str]:
    known = {name for kind in _SINGULAR for name in search.names(kind, limit=_COMPARED)}
    plain = {name for name in known if not name.startswith(_MACHINE)}
    return {*TEXTS, *NUMBERS, *(known if any(name.startswith(_MACHINE) for name in wanted) else plain)}


def _unknown(search: RunSearch, where: str, column: Column, at: int, names: set[str]) -> UnknownName:
    name, place = column.name[:_SHOWN], f"It is at character {at + 1} of the {where}."
    others = search.kinds(column.name)
    if others:
        what, has = _SINGULAR[column.kind], " and ".join(f"a {_SINGULAR[kind]}" for kind in others)
        return UnknownName(
            f"No run has a {what} {name!r}; there is {has} of that name. {place}",
            at,
            f"write {Column(others[0], column.name)}.",
        )
    return UnknownName(f"No run has a metric, parameter or tag {name!r}. {place}", at, meant(name, names))
