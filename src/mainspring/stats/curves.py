"""Calibration curve: a map from a probability's log-odds to a calibrated probability."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt


class Curve(msgspec.Struct, frozen=True):
    """Calibrated probability at log-odds x: `sigmoid(slope * x + intercept)`, or the polyline through the knots, if
    any.

    The polyline is flat beyond its ends. Probabilities are clipped to [`least`, 1 - `least`] first.
    """

    least: float
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[float, ...] = ()
    heights: tuple[float, ...] = ()

    def __call__(self, probabilities: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return calibrated probabilities, float64 of the same shape."""
        within = np.clip(np.asarray(probabilities, np.float64), self.least, 1 - self.least)
        x = np.log(within) - np.log(1 - within)
        if self.knots:
            return np.asarray(np.interp(x, self.knots, self.heights))
        return np.asarray(1 / (1 + np.exp(-(self.slope * x + self.intercept))))
