"""The mergeable parts of a measure's state, in Python: tiles and single rows merged, and read as a feature's value.

`features.state.sql` does the same in SQL for the offline read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mainspring.features.layout import RANKED
from mainspring.features.state import sketches
from mainspring.features.state.blobs import Spread


def merge(part: str, tiles: Sequence[Any], rows: Sequence[Any], *, floats: bool) -> Any:
    """Return one part over some tiles and the non-null values of some single rows; no extreme of nothing is `None`.

    Args:
        rows: Where the order of rows matters (`oldest`, `newest`), lists of event, order of arrival and value.
        floats: Whether the values may be NaN, which is ordered above every other.
    """
    if part == "n":
        return sum(tiles) + len(rows)
    if part == "sum":
        return sum(tiles) + sum(rows)
    if part in _SKETCHES:
        return _SKETCHES[part](tiles, rows)
    if part.startswith(RANKED):
        return _ranked(part, tiles, rows)
    if part == "spread":
        return [state for state in tiles if state is not None] + [(1, float(value), 0.0, 0.0) for value in rows]
    values = [value for value in tiles if value is not None]
    values += rows
    if not values:
        return None
    if floats:
        return _extreme_of_floats(part, values)
    return min(values) if part == "min" else max(values)


def _extreme_of_floats(part: str, values: list[float]) -> float:
    ordered = [value for value in values if value == value]  # noqa: PLR0124  (NaN differs from itself)
    if part == "max":
        return max(ordered) if len(ordered) == len(values) else math.nan
    return min(ordered) if ordered else math.nan


def _ranked(part: str, tiles: Sequence[Any], rows: Sequence[Any]) -> Any:
    """Return the oldest or newest row, or the list of the newest ones; rows differ in their order of arrival."""
    if "_" not in part:
        found = [row for row in tiles if row is not None]
        found += rows
        return None if not found else max(found) if part == "newest" else min(found)
    depth = int(part.partition("_")[2])
    newest: list[Any] = []
    for tile in reversed(tiles):  # no event of a tile is newer than one of a later tile
        if len(newest) >= depth:
            break
        newest += tile or ()
    newest += rows
    return sorted(newest, reverse=True)[:depth]


def as_stored(part: str, values: list[Any]) -> list[Any]:
    """Return a column of tiles' parts that SQL made (`features.state.sql`) as a state holds it."""
    if part in _SKETCHES:
        return [sketches.packed(part, value) for value in values]
    if part in RANKED:
        return [None if value is None else list(value.values()) for value in values]
    if part.startswith(RANKED):
        return [None if value is None else [list(row.values()) for row in value] for value in values]
    return values


_SKETCHES: dict[str, Callable[[Sequence[Any], Sequence[Any]], Any]] = {
    "bins": sketches.merge_bins,
    "hashes": sketches.merge_hashes,
    "values": sketches.merge_values,
}


def variance(spreads: Sequence[Spread]) -> float | None:
    """Return the population variance of merged spreads; see `features.state.sql.spread_sql`."""
    if not spreads:
        return None
    n = sum(spread[0] for spread in spreads)
    base = spreads[0][1]
    mean = sum(shift + count * (origin - base) for count, origin, shift, _ in spreads) / n
    return sum(m2 + count * ((origin - base) + shift / count - mean) ** 2 for count, origin, shift, m2 in spreads) / n
