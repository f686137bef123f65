"""Flavour of estimators of an unknown framework: they can be scored, but not converted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from mainspring.core.errors import NotConvertible
from mainspring.registry.model import Input
from mainspring.training.flavours.estimators import Estimators
from mainspring.training.flavours.flavour import FRAMEWORKS, Artefact


class UnknownFlavour(Estimators):
    def convert(
        self, estimator: Any, _inputs: Sequence[Input], _task: str, _wide: Collection[str], _labels: Sequence[str] = ()
    ) -> Artefact:
        kind = type(estimator)
        raise NotConvertible(
            f"{kind.__module__}.{kind.__qualname__} is not supported; supported frameworks are "
            f"{', '.join(sorted(FRAMEWORKS))}. Other objects could only be stored as a pickle, which runs code "
            "when it loads.",
            fix="return an estimator of a supported framework, or register a function: `mainspring models function`.",
        )


FLAVOUR = UnknownFlavour()
