"""Conversion by framework: one module per framework, each with a `Flavour`.

A new framework needs a module here with a `FLAVOUR`, and a line in `choosing.FRAMEWORKS`.
"""

from mainspring.training.flavours.choosing import (
    FRAMEWORKS,
    convert_estimator,
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
    "convert_estimator",
    "estimator_scores",
    "fitted_columns",
    "flavour_of",
    "output_names",
    "predicts",
]
