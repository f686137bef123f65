"""Which framework an estimator is of, told by the modules of its class and of the classes that it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from mainspring.training.flavours.model import Flavour
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd

# The first that fits: estimators of the boosting libraries are scikit-learn's too, Keras's models torch's.
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
    """Return the name of the estimator's framework. Nothing is imported, and nothing of the estimator is called."""
    if type(estimator).__module__ == "mainspring.training.flavours.calibration":
        return "calibrated"
    roots = {kind.__module__.partition(".")[0] for kind in type(estimator).__mro__}
    return next((name for root, name in FRAMEWORKS.items() if root in roots), None)


def flavour_of(estimator: Any) -> Flavour:
    """Return what knows the estimator's framework; of an unknown one what can only ask and refuse it."""
    name = framework_of(estimator) or "unknown"
    return cast(Flavour, import_module(f"mainspring.training.flavours.{name}").FLAVOUR)


def predicts(estimator: Any) -> bool:
    """Return whether this can be what a training function returns."""
    return framework_of(estimator) in ("torch", "keras", "transformers") or hasattr(estimator, "predict")


def output_names(estimator: Any, task: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """See `Flavour.outputs`."""
    return flavour_of(estimator).outputs(estimator, task, labels)


def fitted_columns(estimator: Any, names: Sequence[str]) -> list[str]:
    """Return which of a model's columns an estimator was fitted on, in its order: they are the bundle's inputs.

    XGBoost's and LightGBM's know the names, calibrated or not; every other estimator chooses among all of them itself.
    """
    known = getattr(flavour_of(estimator), "columns", None)
    fitted = [] if known is None else known(estimator)
    return fitted if fitted and set(fitted) <= set(names) else list(names)


def estimator_scores(estimator: Any, frame: pd.DataFrame, task: str) -> Array:
    """See `Flavour.scores`."""
    return flavour_of(estimator).scores(estimator, frame, task)
