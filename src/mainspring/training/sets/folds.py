"""Cross-validation by time: every fold is validated on rows later than its training rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import format_instant
from mainspring.training.sets.splits import Instants


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
