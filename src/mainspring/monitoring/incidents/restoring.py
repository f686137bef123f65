"""Values of a column as they would be without an incident: mapped back to the training by quantiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.stats.reference import NUMERIC, ColumnReference

_MANY = 60  # different edges of a column that is no count of few values
Floats = npt.NDArray[np.float64]


def restored(values: Sequence[Any], reference: ColumnReference) -> list[Any]:
    """Return values in the same order whose distribution is the training's, nulls included.

    A number keeps its rank: the k-th largest becomes the k-th largest of the training. A category stays while it is not
    commoner than in training; the rest takes the places of those that are too rare. As many values are null as in
    training; of those that are null now the others get values spread over the distribution. The same values give the
    same result.

    Args:
        values: Of one column, `None` or NaN for null.
    """
    total = len(values)
    if not total or not reference.count:
        return list(values)
    missing = [_is_null(value) for value in values]
    wanted = round(total * (reference.nulls + reference.nans) / reference.count)
    kept = _present(missing, total - wanted)
    known = [place for place in kept if not missing[place]]
    filled = [place for place in kept if missing[place]]
    made: list[Any] = [None] * total
    if reference.kind == NUMERIC:
        numbers = _numbers([values[place] for place in known], len(filled), reference)
        made_of = [*known, *filled]
        for place, number in zip(made_of, numbers, strict=True):
            made[place] = number
        return made
    texts = _texts([str(values[place]) for place in known], len(filled), reference)
    for place, text in zip([*known, *filled], texts, strict=True):
        made[place] = text
    return made


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _present(missing: Sequence[bool], wanted: int) -> list[int]:
    """Return the places of so many values that are not null: those that are there first, others spread evenly."""
    there = [place for place, null in enumerate(missing) if not null]
    if len(there) >= wanted:
        return [there[each] for each in _spread(len(there), wanted)]
    absent = [place for place, null in enumerate(missing) if null]
    return sorted([*there, *(absent[each] for each in _spread(len(absent), wanted - len(there)))])


def _spread(total: int, wanted: int) -> list[int]:
    """Return `wanted` of the numbers below `total`, evenly spread."""
    return [each * total // wanted for each in range(wanted)] if wanted else []


def _numbers(known: Sequence[Any], filled: int, reference: ColumnReference) -> list[float]:
    given = np.array([float(value) for value in known], np.float64)
    ranks = np.empty(len(given))
    ranks[np.argsort(given, kind="stable")] = (np.arange(len(given)) + 0.5) / max(len(given), 1)
    golden = (np.arange(1, filled + 1) * 0.6180339887498949) % 1.0
    is_whole = bool(np.isfinite(given).all() and (given == np.round(given)).all() and len({*reference.edges}) < _MANY)
    found: list[float] = _quantiles(np.concatenate([ranks, golden]), reference, between=not is_whole).tolist()
    return found


def _quantiles(ranks: Floats, reference: ColumnReference, *, between: bool) -> Floats:
    """Return the training's values at ranks in (0, 1); the ends of the outer bins are the training's range."""
    shares = np.asarray(reference.bins, np.float64)
    edges = np.asarray(reference.edges, np.float64)
    if not len(edges) or not shares.sum():
        return np.full(len(ranks), reference.mean)
    low = reference.low if reference.low is not None else edges[0]
    high = reference.high if reference.high is not None else edges[-1]
    ends = np.maximum.accumulate(np.concatenate([[min(low, edges[0])], edges, [max(high, edges[-1])]]))
    cumulated = np.concatenate([[0.0], np.cumsum(shares) / shares.sum()])
    bins = np.clip(np.searchsorted(cumulated, ranks, side="left") - 1, 0, len(shares) - 1)
    if not between:
        return ends[bins + 1]
    widths = cumulated[bins + 1] - cumulated[bins]
    within = np.divide(ranks - cumulated[bins], widths, out=np.ones_like(ranks), where=widths > 0)
    found: Floats = ends[bins] + within * (ends[bins + 1] - ends[bins])
    return found


def _texts(known: Sequence[str], filled: int, reference: ColumnReference) -> list[str]:
    total = len(known) + filled
    shares = np.asarray(reference.bins[: len(reference.categories)], np.float64)
    if not shares.sum():
        return [*known, *[known[0] if known else ""] * filled]
    others = sum(text not in reference.categories for text in known)
    room = min(others, round(total * reference.others / max(reference.binned, 1)))
    left = Counter(dict(zip(reference.categories, _shared(total - room, shares), strict=True)))
    made: list[str | None] = []
    for text in known:
        if text in left:
            fits = left[text] > 0
            left[text] -= fits
        else:
            fits = room > 0
            room -= fits
        made.append(text if fits else None)
    spare = [category for category in reference.categories for _ in range(left[category])]
    needed = filled + made.count(None)
    spare = [*spare, *[reference.categories[0]] * needed][:needed]
    order = iter(spare[each] for each in _mixed(len(spare)))
    return [next(order) if text is None else text for text in [*made, *[None] * filled]]


def _shared(total: int, shares: Floats) -> list[int]:
    """Return whole parts of a total in proportion to shares, which add up to it."""
    cumulated = np.round(np.cumsum(shares) / shares.sum() * total).astype(int)
    found: list[int] = np.diff(cumulated, prepend=0).tolist()
    return found


def _mixed(total: int) -> list[int]:
    """Return the numbers below `total` in an order that is spread over all of them, the same each time."""
    return sorted(range(total), key=lambda each: (each * 0.6180339887498949) % 1.0)
