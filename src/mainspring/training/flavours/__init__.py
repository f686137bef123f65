"""Frameworks: how a fitted estimator of each becomes a bundle's model. One module a framework, all behind `Flavour`.

A new framework is a module here with a `FLAVOUR`, and a line in `choosing.FRAMEWORKS`.
"""

from mainspring.training.flavours.choosing import (
    FRAMEWORKS,
    estimator_scores,
    fitted_columns,
    flavour_of,
    output_names,
    predicts,
)
from mainspring.training.flavours.model import Artefact, Flavour

__all__ = [
    "FRAMEWORKS",
    "Artefact",
    "Flavour",
    "estimator_scores",
    "fitted_columns",
    "flavour_of",
    "output_names",
    "predicts",
]
