"""Running means that exceed a limit: evidence that the average over some span of time until now is too large.

A confidence sequence holds for the mean over all observations; one that began long ago dilutes what changed yesterday.
Here the evidence is a mixture over the times at which a change may have begun. Under the null hypothesis no average of
conditional means, over any span that ends at any time, exceeds the limit; single observations may.

For one beginning, the wealth is the empirical Bernstein process of Howard, Ramdas, McAuliffe and Sekhon (Annals of
Statistics 49, 2021, theorem 4), mixed over its tuning parameter: values are centred at the mean of the blocks before,
which is known before the block. Observations may depend on each other, since only their conditional means matter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.events import Floats, mixed, prior

_TUNING = np.geomspace(1e-3, 0.9, 28)
_PRIOR = prior(0.05, _TUNING)
_COST = -np.log1p(-_TUNING) - _TUNING


class Running(NamedTuple):
    """Evidence that the running mean exceeds a limit.

    Attributes:
        log_e: Log e-value; the null hypothesis is rejected at level a from log(1 / a) on, at any time.
        first: Place of the block with which the most telling span begins.
        mean: Mean over that span; NaN without observations.
    """

    log_e: float
    first: int
    mean: float


def log_weights(blocks: int) -> Floats:
    """Return the log prior weights of beginnings, shape (blocks,); the sum over infinitely many is at most 1."""
    place = np.arange(blocks) + 2.0
    return np.asarray(math.log(0.473) - np.log(place) - 2 * np.log(np.log(place)))


def running_mean_above(low: float, high: float, sums: npt.ArrayLike, limit: float, least: int = 1) -> Running:
    """Return the evidence, after the last block, that the mean over some span until then was above the limit.

    Args:
        low, high: Bounds of the values.
        sums: Number, sum and sum of squares of the values of each block of time, oldest first; shape (blocks, 3).
        limit: Between the bounds.
        least: Smallest number of blocks of a span. Fewer blocks only lose evidence, and keep the level.

    Raises:
        Invalid: The limit is not between the bounds.
    """
    if not low < high or not low <= limit <= high:
        raise Invalid(f"A limit of {limit} is not between the bounds {low} and {high}.")
    each = np.asarray(sums, np.float64).reshape(-1, 3)
    blocks, reach = len(each), high - low
    if blocks < least or not each[:, 0].sum():
        return Running(-math.inf, 0, math.nan)
    number, total, squares = each.T
    before_number, before_total = np.cumsum(number) - number, np.cumsum(total) - total
    centre = np.where(before_number > 0, before_total / np.maximum(before_number, 1.0), limit)
    spread = np.maximum(squares - 2 * centre * total + number * centre**2, 0.0) / reach**2
    gained = (total - number * limit) / reach
    # Sums from each beginning until the last block.
    gained, spread, counted, added = (np.cumsum(part[::-1])[::-1] for part in (gained, spread, number, total))
    wealth = mixed(gained[:, None] * _TUNING - spread[:, None] * _COST, _PRIOR) + log_weights(blocks)
    wealth = wealth[: blocks - least + 1]
    first = int(np.argmax(wealth))
    largest = float(wealth[first])
    log_e = largest + math.log(float(np.exp(wealth - largest).sum()))
    return Running(log_e, first, float(added[first] / counted[first]) if counted[first] else math.nan)
