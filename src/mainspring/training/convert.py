"""From a fitted estimator to a bundle's model, by its framework.

Whether the result answers as the estimator does is for `equivalence.prove` to say: conversion alone proves nothing.
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
    """Return the estimator's file. See `Flavour.convert` for what it takes and raises.

    Raises:
        Invalid: A column is of a type that no model takes.
    """
    check_feature_types({each.name: each.dtype for each in inputs})
    return flavour_of(estimator).convert(estimator, inputs, task, wide, labels)
