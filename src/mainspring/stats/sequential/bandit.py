"""Thompson sampling: each arm's share is the probability that it is the best, and never below a floor.

Shares change at updates, and between these every unit is assigned with known probabilities, so the tests of
`stats.sequential` stay valid by strata of equal weights. Shares are in few steps, so that strata stay few.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid

STEPS = 50  # of the share above the floors
_DRAWS = 4_000


def weights_by_means(
    sums: npt.ArrayLike, *, floor: float, seed: int, fewer_is_better: bool = False
) -> tuple[float, ...]:
    """Return the arms' shares by their means, with a flat prior; equal shares until each arm has two values.

    Args:
        sums: Number, sum and sum of squares of each arm, shape (arms, 3).

    Raises:
        Invalid: The floors do not leave the arms a choice.
    """
    number, total, squares = np.asarray(sums, dtype=np.float64).T
    if number.min() < 2:
        return _shares(np.eye(number.size), floor)
    mean = total / number
    error = np.sqrt(np.maximum(squares / number - mean**2, 0.0) / (number - 1))
    drawn = np.random.default_rng(seed).normal(mean, error, (_DRAWS, number.size))
    return _shares(-drawn if fewer_is_better else drawn, floor)


def _shares(drawn: npt.NDArray[np.float64], floor: float) -> tuple[float, ...]:
    """Return the share of each arm, given draws of how good each is, shape (draws, arms)."""
    arms = drawn.shape[1]
    if arms < 2 or not 0 < floor <= 1 / arms:
        raise Invalid(
            f"{arms} arms cannot each have a share of at least {floor}.",
            fix=f"give a floor above 0, at most {1 / arms:g}.",
        )
    best = np.bincount(drawn.argmax(axis=1), minlength=arms) / len(drawn) * STEPS
    steps = np.floor(best)
    remainders = np.argsort(steps - best, kind="stable")  # largest first
    steps[remainders[: round(STEPS - steps.sum())]] += 1
    return tuple((floor + (1 - arms * floor) * steps / STEPS).tolist())
