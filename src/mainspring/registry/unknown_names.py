"""Detection of names in a filter or an order that no run has, which are usually misspelt.

Names are looked up only if the result is empty or unordered; a search with results costs no look-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mainspring.core.nearest import meant
from mainspring.registry.run_filters import Filter, Unreadable, order_at
from mainspring.registry.searching import NUMBERS, TEXTS, Column, Kind, Order, RunQuery, RunRow, RunSearch

_SINGULAR = {Kind.METRIC: "metric", Kind.PARAM: "parameter", Kind.TAG: "tag"}
_MACHINE = ("mlflow.", "mainspring.", "system/", "system.")  # prefixes of machine-written names
_COMPARED = 5000  # names per kind that are compared to find the nearest
_SHOWN = 140  # characters of a name


class UnknownName(Unreadable):
    """Error: no run has this name. `at` is its position in the filter or in the order, from 0."""


def unknown_names(
    search: RunSearch, found: Filter, order: Order, runs: Sequence[RunRow], *, ordered_by: str = ""
) -> list[UnknownName]:
    """Return the unknown names that explain an empty page, or a page without values to order by.

    Args:
        runs: The resulting page, with the value to order by where a run has it.
        ordered_by: The order as written by the user; empty for the default.
    """
    if runs:
        asked = [] if not ordered_by or any(_has(run, order.column) for run in runs) else ["order"]
    else:
        asked = ["filter", "order"] if ordered_by else ["filter"]
    columns = list(_asked(found, order, asked, ordered_by))
    unknown = [(where, column, at) for where, column, at in columns if not _is_known(search, column)]
    if not unknown or not (runs or search.search(RunQuery(limit=1)).runs):
        return []  # an empty store explains the empty result
    names = _known_names(search, {column.name for _, column, _ in unknown})
    return [_unknown(search, where, column, at, names) for where, column, at in unknown]


def _asked(found: Filter, order: Order, asked: Sequence[str], ordered_by: str) -> Iterator[tuple[str, Column, int]]:
    if "filter" in asked:
        for condition, at in zip(found.conditions, found.places, strict=True):
            if condition.operator != "is null":  # holds for every run without the name
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
