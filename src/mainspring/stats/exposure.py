"""Exposure of planted rows: how much better a model knows them than rows of the same kind that it has never seen.

The exposure of a row is log2 of one more than the number of control rows, less log2 of its rank among them by loss
(Carlini, Liu, Erlingsson, Kos and Song, USENIX Security 2019). Rows that were not learned have a mean exposure of about
1.44 bits, whatever the model does well, as their rank is uniform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_DRAWS = 9_999
_PIECE = 500  # permutations at once

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Exposure:
    """Exposure of planted rows among controls.

    Attributes:
        planted, controls: Numbers of rows.
        mean: Mean exposure, bits.
        largest: Of any planted row, bits; log2(controls + 1) at most.
        chance: The probability that rows which were not learned lie as low among the controls, by permutation.
    """

    planted: int
    controls: int
    mean: float
    largest: float
    chance: float


def exposure(planted: Floats, controls: Floats, *, seed: int = 0) -> Exposure:
    """Return the exposure of planted rows.

    Args:
        planted, controls: Losses of the rows, shape (rows,); a control row may never have been learned.
    """
    ordered = np.sort(controls)
    below = (np.searchsorted(ordered, planted, "left") + np.searchsorted(ordered, planted, "right")) / 2
    bits = np.log2(len(controls) + 1) - np.log2(below + 1)
    ranks = _ranks(np.concatenate([planted, controls]))
    found, rng, lower = ranks[: len(planted)].sum(), np.random.default_rng(seed), 0
    for start in range(0, _DRAWS, _PIECE):
        drawn = rng.permuted(np.tile(ranks, (min(_PIECE, _DRAWS - start), 1)), axis=1)
        lower += int((drawn[:, : len(planted)].sum(axis=1) <= found).sum())
    chance = (1 + lower) / (1 + _DRAWS)
    return Exposure(len(planted), len(controls), float(bits.mean()), float(bits.max()), chance)


def _ranks(values: Floats) -> Floats:
    """Return the rank of each value, those that are equal having their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: Floats = (ends - (counts - 1) / 2)[place]
    return found
