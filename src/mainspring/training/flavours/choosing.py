"""Choice of an estimator's flavour by its framework, which the modules of its class and base classes tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from mainspring.registry.model import Input
from mainspring.training.flavours.model import Artefact, Flavour
from mainspring.training.frames import Array, check_feature_types

if TYPE_CHECKING:
    import pandas as pd

# The first match counts: boosting estimators derive from scikit-learn's classes, Keras models from torch's.
FRAMEWORKS: Mapping[str, str] = {
    "catboost": "catboost",
    "lightgbm": "lightgbm",
    "xgboost": "xgboost",
    "transformers": "transformers",
    "keras": "keras",
    "torch": "torch",
    "sklearn": "sklearn",
}


def framework_of(estimator: Any) -> str | None:
    """Return the name of the estimator's framework, without importing anything or calling the estimator."""
    if type(estimator).__module__ == "mainspring.training.flavours.calibration":
        return "calibrated"
    roots = {kind.__module__.partition(".")[0] for kind in type(estimator).__mro__}
    return next((name for root, name in FRAMEWORKS.items() if root in roots), None)


def flavour_of(estimator: Any) -> Flavour:
    """Return the flavour of the estimator's framework; for an unknown framework, one that only scores and refuses."""
    name = framework_of(estimator) or "unknown"
    return cast(Flavour, import_module(f"mainspring.training.flavours.{name}").FLAVOUR)


def predicts(estimator: Any) -> bool:
    """Return whether a training function may return this object."""
    return framework_of(estimator) in ("torch", "keras", "transformers") or hasattr(estimator, "predict")


def output_names(estimator: Any, task: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of an estimator's outputs; see `Flavour.outputs`."""
    return flavour_of(estimator).outputs(estimator, task, labels)


def fitted_columns(estimator: Any, names: Sequence[str]) -> list[str]:
    """Return the columns that an estimator was fitted on, in its order: the inputs of the bundle.

    XGBoost and LightGBM record them, calibrated or not; for every other estimator it is all of `names`.
    """
    known = getattr(flavour_of(estimator), "columns", None)
    fitted = [] if known is None else known(estimator)
    return fitted if fitted and set(fitted) <= set(names) else list(names)


def estimator_scores(estimator: Any, frame: pd.DataFrame, task: str) -> Array:
    """Return an estimator's predictions; see `Flavour.scores`."""
    return flavour_of(estimator).scores(estimator, frame, task)


def convert_estimator(
    estimator: Any, inputs: Sequence[Input], task: str, *, wide: Collection[str] = (), labels: Sequence[str] = ()
) -> Artefact:
    """Convert the estimator into its model file, not yet proved equivalent (`equivalence.prove`).

    See `Flavour.convert` for arguments and further errors.

    Raises:
        Invalid: A column has a type that no model accepts.
    """
    check_feature_types({each.name: each.dtype for each in inputs})
    return flavour_of(estimator).convert(estimator, inputs, task, wide, labels)
