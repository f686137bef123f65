"""The mergeable parts of a measure's state, in Python: tiles and single rows merged, and read as a feature's value.

`features.state.sql` does the same in SQL for the offline read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mainspring.features.layout import RANKED, SKETCHES
from mainspring.features.state import sketches
from mainspring.features.state.blobs import Spread

# Merges one part over some tiles and the non-null values of some single rows; no extreme of nothing is `None`. Where
# the order of rows matters (`oldest`, `newest`) a row is a list of event, order of arrival and value.
Merge = Callable[[Sequence[Any], Sequence[Any]], Any]


def merging(part: str, *, floats: bool) -> Merge:
    """Return the merging function of a part.

    Args:
        floats: Whether the values may be NaN, which is ordered above every other.
    """
    if part in ("min", "max"):
        return _EXTREMES[part, floats]
    if part.startswith("newest_"):
        return partial(_newest, depth=int(part.partition("_")[2]))
    return _MERGES[part]


def _count(tiles: Sequence[int], rows: Sequence[Any]) -> int:
    return sum(tiles) + len(rows)


def _sum(tiles: Sequence[Any], rows: Sequence[Any]) -> Any:
    return sum(tiles) + sum(rows)


def _spreads(tiles: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
    return _known(tiles, [(1, float(value), 0.0, 0.0) for value in rows])


def _known(tiles: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
    values = [value for value in tiles if value is not None]
    values += rows
    return values


# Of rows too: they differ in their order of arrival.
def _least(tiles: Sequence[Any], rows: Sequence[Any]) -> Any:
    return min(_known(tiles, rows), default=None)


def _greatest(tiles: Sequence[Any], rows: Sequence[Any]) -> Any:
    return max(_known(tiles, rows), default=None)


# A sum is NaN where any value is, and refuses nulls. Where it is NaN for another reason (inf - inf), or where there are
# nulls, it has only taken longer.


def _least_float(tiles: Sequence[Any], rows: Sequence[Any]) -> float | None:
    values, ordered = _floats(tiles, rows)
    if not ordered:
        values = [value for value in values if not math.isnan(value)] or [math.nan]
    return min(values, default=None)


def _greatest_float(tiles: Sequence[Any], rows: Sequence[Any]) -> float | None:
    values, ordered = _floats(tiles, rows)
    if not ordered and any(map(math.isnan, values)):
        return math.nan
    return max(values, default=None)


def _floats(tiles: Sequence[Any], rows: Sequence[Any]) -> tuple[list[float], bool]:
    """Return the values without nulls, and whether none is NaN; it may be said not to be so where it is."""
    values = [*tiles, *rows]
    try:
        return values, not math.isnan(sum(values))
    except TypeError:
        values = _known(tiles, rows)
        return values, not math.isnan(sum(values))


def _newest(tiles: Sequence[Any], rows: Sequence[Any], depth: int) -> list[Any]:
    newest: list[Any] = []
    for tile in reversed(tiles):  # no event of a tile is newer than one of a later tile
        if len(newest) >= depth:
            break
        newest += tile or ()
    newest += rows
    return sorted(newest, reverse=True)[:depth]


_MERGES: dict[str, Merge] = {
    "n": _count,
    "sum": _sum,
    "spread": _spreads,
    "oldest": _least,
    "newest": _greatest,
    "bins": sketches.merge_bins,
    "hashes": sketches.merge_hashes,
    "values": sketches.merge_values,
}
_EXTREMES: dict[tuple[str, bool], Merge] = {
    ("min", False): _least,
    ("max", False): _greatest,
    ("min", True): _least_float,
    ("max", True): _greatest_float,
}


def as_stored(part: str, values: list[Any]) -> list[Any]:
    """Return a column of tiles' parts that SQL made (`features.state.sql`) as a state holds it."""
    if part in SKETCHES:
        return [sketches.packed(part, value) for value in values]
    if part in RANKED:
        return [None if value is None else list(value.values()) for value in values]
    if part.startswith(RANKED):
        return [None if value is None else [list(row.values()) for row in value] for value in values]
    return values


def variance(spreads: Sequence[Spread]) -> float | None:
    """Return the population variance of merged spreads; see `features.state.sql.spread_sql`."""
    if not spreads:
        return None
    base = spreads[0][1]
    n, total = 0, 0.0
    for count, origin, shift, _ in spreads:
        n += count
        total += shift + count * (origin - base)
    mean, m2 = total / n, 0.0
    for count, origin, shift, own in spreads:
        apart = (origin - base) + shift / count - mean
        m2 += own + count * (apart * apart)
    return m2 / n
