"""Differentially private noise on whole numbers, by OpenDP's discrete Laplace mechanism.

Source: Ghosh, Roughgarden and Sundararajan, Universally utility-maximizing privacy mechanisms, 2009; sampled exactly,
as in Canonne, Kamath and Steinke, The discrete Gaussian for differential privacy, 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mainspring.core.errors import MissingExtra

_WIDER = 1 + 2**-40


def noisy(values: Sequence[int], sensitivity: int, epsilon: float) -> tuple[list[int], float]:
    """Return values with noise, and the scale of the noise.

    The result is `epsilon`-differentially private, as OpenDP proves for each call.

    Args:
        values: Exact values, shape (values,).
        sensitivity: Most by which the values change together (sum of absolute changes) with one subject more or less.

    Raises:
        MissingExtra: OpenDP is not installed.
    """
    try:
        from opendp.domains import atom_domain, vector_domain
        from opendp.measurements import make_laplace
        from opendp.metrics import l1_distance
        from opendp.mod import enable_features
    except ImportError as error:
        raise MissingExtra("Publishing aggregates", "privacy") from error
    enable_features("contrib")
    scale = sensitivity / epsilon
    while True:
        mechanism: Any = make_laplace(vector_domain(atom_domain(T="i64")), l1_distance(T="i64"), scale=scale)
        if mechanism.map(sensitivity) <= epsilon:
            return list(mechanism(list(values))), scale
        scale *= _WIDER  # OpenDP rounds its bound up


def margin(scale: float, share: float = 0.95) -> float:
    """Return the distance within which noise stays with a probability, for a scale far above 1."""
    return scale * math.log(1 / (1 - share))
