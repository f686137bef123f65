"""Conversion by framework: one module per framework, each with a `Flavour`.

A new framework needs a module here with a `FLAVOUR`, and a line in `flavour.FRAMEWORKS`.
"""

from mainspring.training.flavours.flavour import (
    FRAMEWORKS,
    Artefact,
    Flavour,
    convert_estimator,
    estimator_scores,
    fitted_columns,
    flavour_of,
    output_names,
    predicts,
)

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
