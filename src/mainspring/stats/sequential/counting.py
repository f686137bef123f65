"""Observations that count, once each, and the additive state that they become.

The tests of `stats.sequential` need independent assignments, and outcomes that are complete in both arms alike.
A unit that stays in its arm is one assignment, however many requests it sends: `first_of_units`. An outcome counts
when its prediction is so old that its label had its time, with what was known then: `label_states`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid

NEVER = np.iinfo(np.int64).max  # time of a label that has not come
_DIGITS = 9  # of a weight: closer ones are one stratum
_SLOTS = 1 << 17  # by the lowest bits of a unit's hash; its arm is decided by the highest

Floats = npt.NDArray[np.float64]


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


class Stratum(msgspec.Struct, frozen=True, array_like=True):
    """Sums of what was observed while the arms had the same weights.

    Attributes:
        weights: Probability of each arm, the control first.
        sums: Of each arm, the sum of each column.
    """

    weights: tuple[float, ...]
    sums: tuple[tuple[float, ...], ...]


class Tally(msgspec.Struct, frozen=True):
    """Sums by stratum and arm. Tallies add up in any order, exactly if the sums are numbers of events."""

    strata: tuple[Stratum, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        """Return the sums of both.

        Raises:
            Invalid: They have different numbers of arms or columns.
        """
        return _merged((*self.strata, *other.strata))

    def arm(self, arm: int = 1) -> tuple[Floats, Floats, Floats]:
        """Return one candidate beside the control.

        Returns:
            weight, shape (strata,), the candidate's probability among the two; its sums and the control's, shape
            (strata, columns). Each can be given to a test of `stats.sequential`.
        """
        weights, sums = self.arms()
        both = weights[:, 0] + weights[:, arm]
        share = np.divide(weights[:, arm], both, out=np.zeros(both.size), where=both > 0)
        return share, sums[:, arm], sums[:, 0]

    def arms(self) -> tuple[Floats, Floats]:
        """Return weights, shape (strata, arms), and sums, shape (strata, arms, columns)."""
        if not self.strata:
            raise Invalid("Nothing was counted yet.")
        return np.array([each.weights for each in self.strata]), np.array([each.sums for each in self.strata])


def tally(arms: npt.ArrayLike, weights: npt.ArrayLike, columns: npt.ArrayLike | None = None) -> Tally:
    """Return the sums of rows by stratum and arm.

    Args:
        arms: Number of each row's arm, 0 for the control, shape (rows,).
        weights: Probability of each arm when the row was assigned, shape (rows, arms), or (arms,) for all rows.
        columns: Summed values, shape (rows, columns); by default the number of rows.

    Raises:
        Invalid: Shapes do not match, weights do not add up to 1, or a row's arm had the probability 0.
    """
    of = np.asarray(arms, dtype=np.int64)
    if not of.size:
        return Tally()
    given = np.asarray(weights, dtype=np.float64)
    w = np.round(np.broadcast_to(given, (of.size, given.shape[-1])), _DIGITS)
    values = np.ones((of.size, 1)) if columns is None else np.asarray(columns, dtype=np.float64)
    if of.ndim != 1 or values.ndim != 2 or len(values) != of.size:
        raise Invalid(f"Arms of shape {of.shape} do not match columns of shape {values.shape}.")
    if not (of.min() >= 0 and of.max() < w.shape[1]):
        raise Invalid(f"An arm between {of.min()} and {of.max()} is not one of the {w.shape[1]} with weights.")
    if not ((w >= 0).all() and (np.abs(w.sum(axis=1) - 1) < 1e-6).all()):
        raise Invalid("The weights of a row are not probabilities that add up to 1.")
    if not (w[np.arange(of.size), of] > 0).all():
        raise Invalid("A row's arm had the probability 0 when it was assigned.")
    strata, place = np.unique(w, axis=0, return_inverse=True)
    sums = np.zeros((len(strata), w.shape[1], values.shape[1]))
    np.add.at(sums, (place.reshape(-1), of), values)
    return _merged(
        Stratum(tuple(weight.tolist()), tuple(tuple(arm.tolist()) for arm in by_arm))
        for weight, by_arm in zip(strata, sums, strict=True)
    )


def _merged(strata: Iterable[Stratum]) -> Tally:
    found: dict[tuple[float, ...], Floats] = {}
    shapes = set()
    for each in strata:
        sums = np.array(each.sums, dtype=np.float64)
        shapes.add((len(each.weights), *sums.shape))
        if len(shapes) > 1:
            raise Invalid(f"Tallies with {sorted(shapes)} weights, arms and columns do not add up.")
        found[each.weights] = found[each.weights] + sums if each.weights in found else sums
    return Tally(
        tuple(Stratum(weights, tuple(tuple(arm) for arm in found[weights].tolist())) for weights in sorted(found))
    )
