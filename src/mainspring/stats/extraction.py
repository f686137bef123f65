"""Callers whose queries are unlike those of an endpoint's other callers, as those of a copier without natural rows are.

A caller's rows are judged by their distances to the nearest row of another caller, and those by the same distances of
the other callers' rows. So a population that drifts as a whole, or callers that each have a part of it of their own,
look like one another. Rows that vary an earlier one of the same caller in few features count once: retries, bursts and
sweeps of a feature have no weight of their own. Who asks with natural rows is like honest callers, and is not found.

The comparison of distances with usual ones is after PRADA (Juuti, Szyller, Marchal and Asokan, EuroS&P 2019), which
compares those within a caller with a normal distribution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_ROWS = 50  # distinct ones of a caller who is judged or compared with
LEAST_OTHERS = 3  # callers to compare with: of two that differ nobody can say which is unusual
MOST_ROWS, MOST_CALLERS = 300, 40  # compared
UNLIKE = 0.8  # share of others' rows that are nearer to their nearest, from which a caller is unlike them
_VARIED = 2  # features by which a row may differ from an earlier one to count as a variation of it
_NEAR = 0.005  # difference of two numbers, in spans, up to which they are alike
_NAMES = 50  # most frequent values of a text that are told apart
_FARTHEST = 10.0  # distance in one feature, in spans of the middle nine tenths of the median caller's
_CLASS_ROWS = 30  # of others, to be compared with alone
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Queries:
    """Rows that a caller asked for.

    Attributes:
        features: Feature -> values (numbers, truth values, texts or `None`), one a row.
        classes: What the model answered, as classes; all the same where it has none.
    """

    features: Mapping[str, Sequence[bool | int | float | str | None]]
    classes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How a caller's rows compare with other callers'.

    Attributes:
        distinct: Rows that do not merely vary an earlier one, at most `MOST_ROWS`.
        distance: Mean share of other callers' rows that are nearer to their nearest neighbour than this caller's rows
            to theirs: 0.5 if they are alike, up to 1. `None` if there are too few rows or other callers.
    """

    distinct: int
    distance: float | None = None

    @property
    def unlike(self) -> bool:
        return self.distance is not None and self.distance >= UNLIKE


def likeness(callers: Mapping[str, Queries]) -> dict[str, Likeness]:
    """Return the likeness of each caller's rows to the others'.

    The caller who is most unlike the others is taken out of what the rest are compared with, as long as one is.

    Args:
        callers: Queries by caller, of the same features; of more than `MOST_CALLERS` the first are judged.
    """
    found: dict[str, Likeness] = {}
    groups: list[tuple[str, Array, Array]] = []
    for name, (rows, codes) in zip(callers, _points(list(callers.values())), strict=True):
        kept = distinct(codes)
        found[name] = Likeness(len(kept))
        if len(kept) >= LEAST_ROWS and len(groups) < MOST_CALLERS:
            groups.append((name, rows[kept], np.array(callers[name].classes, dtype=object)[kept]))
    if not groups:
        return found
    nearest = _nearest([rows for _, rows, _ in groups])
    among = list(range(len(groups)))
    while len(among) > LEAST_OTHERS:
        judged = {each: _distance(each, among, nearest, groups) for each in among}
        for each, distance in judged.items():
            found[groups[each][0]] = Likeness(found[groups[each][0]].distinct, round(distance, 3))
        worst = max(among, key=lambda each: judged[each])
        if judged[worst] < UNLIKE:
            break
        among.remove(worst)
    return found


def distinct(rows: Array) -> Array:
    """Return the places of the first rows that differ from each such row before by more than a variation does.

    Args:
        rows: Numbers in spans, texts as whole numbers, shape (rows, features).
    """
    varied, kept = min(_VARIED, (rows.shape[1] - 1) // 2), list[int]()
    for place, row in enumerate(rows):
        if not kept or int((np.abs(rows[kept] - row) > _NEAR).sum(axis=1).min()) > varied:
            kept.append(place)
            if len(kept) == MOST_ROWS:
                break
    return np.array(kept, dtype=int)


def _points(callers: Sequence[Queries]) -> list[tuple[Array, Array]]:
    """Return each caller's rows as points of a space, and as numbers in spans with texts as codes, for `distinct`."""
    lengths = [len(each.classes) for each in callers]
    ends = np.cumsum(lengths)[:-1]
    points, codes = [], []
    for feature in sorted({name for each in callers for name in each.features}):
        values = [value for each in callers for value in each.features.get(feature, [None] * len(each.classes))]
        if all(value is None or isinstance(value, (bool, int, float)) for value in values):
            numbers = np.array([np.nan if value is None else float(value) for value in values])
            there = numbers[np.isfinite(numbers)]
            if not len(there):
                continue
            middle, span = _scale(np.split(numbers, ends))
            given = np.clip(np.nan_to_num((numbers - middle) / span, nan=_FARTHEST), -_FARTHEST, _FARTHEST)
            codes.append(given)
            points.append(np.where(np.isfinite(numbers), given, 0.0)[:, None])
            if len(there) < len(numbers):
                points.append(~np.isfinite(numbers)[:, None] / 1.0)
        else:
            texts = Counter(map(str, values))
            known = {text: place for place, (text, _) in enumerate(texts.most_common(_NAMES))}
            code = np.array([known.get(str(value), len(known)) for value in values])
            codes.append(code)
            points.append(np.eye(len(known) + 1)[code] / 2**0.5)  # texts that differ are at a distance of 1
    if not points:
        return [(np.zeros((length, 1)), np.zeros((length, 1))) for length in lengths]
    return list(zip(np.split(np.hstack(points), ends), np.split(np.stack(codes, axis=-1), ends), strict=True))


def _scale(callers: Sequence[Array]) -> tuple[float, float]:
    """Return the middle and the span of a feature by the median caller, so that no caller sets them for the others."""
    there = [each[np.isfinite(each)] for each in callers]
    judged = [each for each in there if len(each) >= LEAST_ROWS] or [np.concatenate(there)]
    low, middles, high = np.stack([np.quantile(each, (0.05, 0.5, 0.95)) for each in judged], axis=-1)
    wide = np.where(high > low, high - low, [np.ptp(each) for each in judged])
    spans = wide[wide > 0] if wide.any() else np.array([np.ptp(middles) or 1.0])
    return float(np.median(middles)), float(np.median(spans))


def _distance(
    caller: int, among: Sequence[int], nearest: Sequence[Array], groups: Sequence[tuple[str, Array, Array]]
) -> float:
    others = [each for each in among if each != caller]
    usual = np.concatenate([nearest[one][:, [each for each in others if each != one]].min(axis=1) for one in others])
    usually = np.concatenate([groups[each][2] for each in others])
    own, classes = nearest[caller][:, others].min(axis=1), groups[caller][2]
    shares = np.empty(len(own))
    for name in set(classes.tolist()):
        of = usual[usually == name]
        reference, chosen = np.sort(of if len(of) >= _CLASS_ROWS else usual), classes == name
        sides = (np.searchsorted(reference, own[chosen], side=side) for side in ("left", "right"))
        shares[chosen] = sum(sides) / (2 * len(reference))
    return float(shares.mean())


def _nearest(groups: Sequence[Array]) -> list[Array]:
    """Return for each group the squared distances of its rows to the nearest of each group, shape (rows, groups)."""
    return [np.stack([_squares(rows, each).min(axis=1) for each in groups], axis=-1) for rows in groups]


def _squares(rows: Array, others: Array) -> Array:
    ones, twos = (np.einsum("ij,ij->i", each, each) for each in (rows, others))
    found: Array = np.maximum(ones[:, None] + twos[None, :] - 2 * rows @ others.T, 0.0)
    return found
