"""Conversion of a fitted estimator into a bundle's model, by its framework.

Conversion alone proves nothing: `equivalence.prove` compares the result with the estimator.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from mainspring.registry.model import Input
from mainspring.training.flavours import Artefact, flavour_of
from mainspring.training.frames import check_feature_types


def convert_estimator(
    estimator: Any, inputs: Sequence[Input], task: str, *, wide: Collection[str] = (), labels: Sequence[str] = ()
) -> Artefact:
    """Convert the estimator into its model file. See `Flavour.convert` for arguments and further errors.

    Raises:
        Invalid: A column has a type that no model accepts.
    """
    check_feature_types({each.name: each.dtype for each in inputs})
    return flavour_of(estimator).convert(estimator, inputs, task, wide, labels)
