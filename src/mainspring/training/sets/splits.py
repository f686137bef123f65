"""Split of a training set by time: a model is evaluated on rows later than all that it was fitted on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mainspring.core.errors import InvalidData
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
