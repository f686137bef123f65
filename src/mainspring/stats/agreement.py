"""Agreement of two raters beyond chance: Cohen's kappa (Educational and Psychological Measurement 20, 1960)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.stats.intervals import Interval

_DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two raters.

    Attributes:
        kappa: 1 if they always agree, 0 as by chance; NaN if both have one and the same class for all.
        interval: `None` where kappa is NaN.
        agreed: Share of cases in which they agree.
        cases: Number of cases.
    """

    kappa: float
    interval: Interval | None
    agreed: float
    cases: int


def agreement(first: Sequence[Hashable], second: Sequence[Hashable], *, confidence: float = 0.95) -> Agreement:
    """Return the agreement of two raters' classes of the same cases.

    The interval is of the posterior of the table's shares, with Perks' prior (one case, spread over all pairs of
    classes): so a few cases without a disagreement do not prove that there is none, as the asymptotic interval has it.

    Raises:
        Invalid: The numbers of cases differ, there is none, or `confidence` is not in (0, 1).
    """
    if len(first) != len(second) or not first:
        raise Invalid(f"{len(first)} and {len(second)} cases have no agreement.", fix="give each case of both raters.")
    if not 0 < confidence < 1:
        raise Invalid(f"{confidence} is no confidence.", fix="give a probability such as 0.95.")
    places = {each: place for place, each in enumerate(dict.fromkeys((*first, *second)))}
    counts = np.zeros((len(places), len(places)))
    for pair in zip(first, second, strict=True):
        counts[places[pair[0]], places[pair[1]]] += 1.0
    agreed = float(np.trace(counts)) / len(first)
    if len(places) == 1:
        return Agreement(math.nan, None, agreed, len(first))
    draws = np.random.default_rng(0).dirichlet((counts + 1.0 / counts.size).ravel(), _DRAWS)
    tail = (1 - confidence) / 2
    drawn = _kappa(draws.reshape(-1, *counts.shape))
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail])
    kappa = float(_kappa(counts[None] / len(first))[0])
    return Agreement(kappa, Interval(min(float(low), kappa), max(float(high), kappa), confidence), agreed, len(first))


def _kappa(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return kappa of tables of shares, shape (tables, classes, classes); NaN where chance alone always agrees."""
    chance = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    agreed = np.trace(shares, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance < 1, (agreed - chance) / (1 - chance), math.nan))
