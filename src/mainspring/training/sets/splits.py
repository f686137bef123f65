"""Splits by time: of a training set into its parts, and of rows into the folds of a cross-validation.

A model is evaluated on rows later than all that it was fitted on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import format_instant, parse_duration

Instants = np.ndarray[Any, np.dtype[np.int64]]


class Cut(NamedTuple):
    """Row slices of a set ordered by time."""

    train: slice
    validation: slice
    holdout: slice


def cut_by_time(at: Instants, holdout: float | str, *, embargo: int = 0) -> Cut:
    """Return the split of rows at the ascending times `at`; rows of equal time are never separated.

    The holdout is the last part: a share of the rows, or a duration up to the last row. The validation part lies just
    before it and is half as large.

    Args:
        at: Shape (rows,), UTC epoch microseconds.
        embargo: Time before each later part in which rows are left out, µs, so that a label that takes at most this
            long to become known does not reach into the next part.

    Raises:
        InvalidData: A part is empty.
    """
    if len(at) == 0:
        raise InvalidData(
            "There are no labelled observations to train on.", fix="ingest more, or widen the time range."
        )
    if isinstance(holdout, str):
        length = parse_duration(holdout)
        end = int(at[-1]) + 1
        judged, checked = end - length, end - length - length // 2
    else:
        judged, checked = _instant_at(at, 1 - holdout), _instant_at(at, 1 - 1.5 * holdout)
    edges = np.searchsorted(at, [checked - embargo, checked, judged - embargo, judged])
    cut = Cut(slice(0, int(edges[0])), slice(int(edges[1]), int(edges[2])), slice(int(edges[3]), len(at)))
    for name, part in cut._asdict().items():
        if part.stop <= part.start:
            first, last = format_instant(int(at[0])), format_instant(int(at[-1]))
            raise InvalidData(
                f"The {name} part is empty: {len(at)} labelled observations from {first} to {last}, "
                f"holdout {holdout!r}.",
                fix="choose another holdout or embargo, or a longer time range.",
            )
    return cut


def _instant_at(at: Instants, share: float) -> int:
    return int(at[min(len(at) - 1, max(0, int(len(at) * share)))])


class FoldRows(NamedTuple):
    """Row slices of a set ordered by time."""

    train: slice
    validation: slice


def folds_by_time(at: Instants, count: int, *, embargo: int = 0, window: int | None = None) -> list[FoldRows]:
    """Return `count` folds of rows at the ascending times `at`; rows of equal time are never separated.

    The rows are cut into `count + 1` parts of nearly equal size. Fold k is validated on part k + 1 and trained on
    everything before it (an expanding window), or on the last `window` of it (a sliding one).

    Args:
        at: Shape (rows,), UTC epoch microseconds.
        embargo: Time before the validation in which rows are left out of the training, µs.
        window: Time that the training covers, µs, counted back from the start of the embargo.

    Raises:
        Invalid: `count` is less than 1.
        InvalidData: A fold would have no rows to train or to validate on.
    """
    if count < 1:
        raise Invalid(f"{count} folds are none.", fix="ask for at least 1.")
    if len(at) == 0:
        raise InvalidData("There are no labelled observations to make folds of.")
    cuts = [int(np.searchsorted(at, at[len(at) * part // (count + 1)])) for part in range(1, count + 1)]
    made = []
    for number, (begin, end) in enumerate(zip(cuts, [*cuts[1:], len(at)], strict=True), start=1):
        seen = int(at[begin]) - embargo
        first = 0 if window is None else int(np.searchsorted(at, seen - window))
        rows = FoldRows(slice(first, int(np.searchsorted(at, seen))), slice(begin, end))
        for name, part in rows._asdict().items():
            if part.stop <= part.start:
                raise _empty(at, name, number, count)
        made.append(rows)
    return made


def _empty(at: Instants, name: str, number: int, count: int) -> InvalidData:
    span = f"{format_instant(int(at[0]))} to {format_instant(int(at[-1]))}"
    return InvalidData(
        f"The {name} part of fold {number} of {count} is empty: {len(at)} labelled observations from {span}.",
        fix="ask for fewer folds, a shorter embargo or a longer window.",
    )
