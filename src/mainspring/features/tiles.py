"""The mergeable parts of a measure's state, in Python: tiles and single rows merged, and read as a feature's value.

`features.parts` does the same in SQL for the offline read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mainspring.features.state import Spread


def merge(part: str, tiles: Sequence[Any], rows: Sequence[Any], *, floats: bool) -> Any:
    """Return one part over some tiles and the non-null values of some single rows; no extreme of nothing is `None`.

    Args:
        floats: Whether the values may be NaN, which is ordered above every other.
    """
    if part == "n":
        return sum(tiles) + len(rows)
    if part == "sum":
        return sum(tiles) + sum(rows)
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


def variance(spreads: Sequence[Spread]) -> float | None:
    """Return the population variance of merged spreads; see `features.parts.spread_sql`."""
    if not spreads:
        return None
    n = sum(spread[0] for spread in spreads)
    base = spreads[0][1]
    mean = sum(shift + count * (origin - base) for count, origin, shift, _ in spreads) / n
    return sum(m2 + count * ((origin - base) + shift / count - mean) ** 2 for count, origin, shift, m2 in spreads) / n
