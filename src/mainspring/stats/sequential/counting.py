"""Observations that count, once each.

The tests of `stats.sequential` need independent assignments, and outcomes that are complete in both arms alike.
A unit that stays in its arm is one assignment, however many requests it sends: `first_of_units`. An outcome counts
when its prediction is so old that its label had its time, with what was known then: `label_states`.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid

NEVER = np.iinfo(np.int64).max  # time of a label that has not come
_SLOTS = 1 << 17  # by the lowest bits of a unit's hash; its arm is decided by the highest


class LabelState(IntEnum):
    """State of a prediction's label at some time."""

    PENDING = 0  # it still has time: neither known nor missing counts
    KNOWN = 1  # it came in time
    MISSING = 2  # it did not, and counts as missing for ever


def label_states(made_at: npt.ArrayLike, label_at: npt.ArrayLike, now: int, within: int) -> npt.NDArray[np.int8]:
    """Return the `LabelState` of each prediction; shape (predictions,).

    A label that came early waits until the prediction is `within` old, so that an arm whose labels come sooner is not
    judged by them sooner. A label that came later than `within` is missing, also once it is there, so that a state
    never changes after the prediction has matured. Whether labels are missing is an event to compare between the arms.

    Args:
        made_at: Times of the predictions, UTC epoch microseconds.
        label_at: Times at which their labels became known; `NEVER` for none.
        now: Time of the look. What came later is unknown.
        within: Time that a label has, µs.
    """
    made, came = np.asarray(made_at, dtype=np.int64), np.asarray(label_at, dtype=np.int64)
    if made.shape != came.shape:
        raise Invalid(f"Predictions of shape {made.shape} do not match labels of shape {came.shape}.")
    if within < 0:
        raise Invalid(f"A label cannot come within {within} µs.", fix="give a duration of at least 0.")
    states = np.where(came - made <= within, LabelState.KNOWN, LabelState.MISSING)
    return np.where(made > now - within, LabelState.PENDING, states).astype(np.int8)


def first_of_units(units: npt.ArrayLike, seen: bytes = b"") -> tuple[npt.NDArray[np.bool_], bytes]:
    """Return which rows are the first of their unit, shape (rows,): those to count if units stay in their arm.

    Of exposures, the first of each unit is its assignment. Of events, such as errors, the first event of each unit
    counts: without a difference the arm of a unit that had none is still a fresh draw, also after weights have changed.

    What was counted is kept in 16 KB: a bit for each of 131,072 slots that units fall into. The first unit of a slot
    counts for all of it, and the slot has nothing to do with the arm. So collisions cost evidence, half of it once
    90,000 units came, and never make it wrong.

    Args:
        units: Hash of each row's unit, rows in their order; 0 is none, and does not count.
        seen: Slots that were counted before, in any arm.

    Returns:
        The rows, and the slots that are counted with them.
    """
    slots = np.asarray(units, dtype=np.int64) & (_SLOTS - 1)
    taken = np.unpackbits(np.frombuffer(seen or bytes(_SLOTS // 8), np.uint8))
    first = np.zeros(slots.shape, np.bool_)
    first[np.unique(np.where(np.asarray(units) == 0, -1, slots), return_index=True)[1]] = True
    first &= (np.asarray(units) != 0) & (taken[slots] == 0)
    taken[slots[first]] = 1
    return first, np.packbits(taken).tobytes()
