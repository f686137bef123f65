"""Flavours: the port of a framework, the model file that it produces, and the choice of one for an estimator.

A framework is told by the modules of an estimator's class and base classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from mainspring.registry.model import Input
from mainspring.stats.curves import Curve
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


@dataclass(frozen=True, slots=True)
class Artefact:
    """The model file of a bundle.

    Args:
        flavour: The runtime: a name of `registry.flavours`.
        name: The file's name in the bundle.
        curve: Calibration of the probability, for a framework without calibration of its own.
        categories: Text column -> its categories. The model takes a text's position among them, and NaN for any other
            text or null. Only for frameworks whose files hold numbers alone.
        provider: Execution provider of ONNX Runtime for which it was made, if not the processor's.
    """

    flavour: str
    name: str
    content: bytes
    curve: Curve | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    provider: str = ""

    @property
    def native(self) -> bool:
        """True if the framework itself runs the file, so that nothing was converted."""
        return self.flavour != "onnx"


class Flavour(Protocol):
    """One framework. A framework is imported only when an estimator of it is present.

    Estimators are fitted on frames from `training.frames.to_frame`: null numbers are NaN, null texts `None`.
    """

    def outputs(self, estimator: Any, task: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the output names: `probability` (of label 1), `value`, the class names, or `labels`.

        Args:
            labels: Column names of several labels; empty for one.

        Raises:
            NotConvertible: The estimator does not fit the task.
        """
        ...

    def scores(self, estimator: Any, frame: pd.DataFrame, task: str) -> Array:
        """Return the estimator's own predictions, float64 of shape (rows, outputs)."""
        ...

    def convert(
        self, estimator: Any, inputs: Sequence[Input], task: str, wide: Collection[str], labels: Sequence[str] = ()
    ) -> Artefact:
        """Return the model file, not yet proved equivalent (`equivalence.check.prove`).

        Args:
            inputs: The columns that the estimator was fitted on, in this order.
            wide: Names of columns with values that are not exact in float32.
            labels: Column names of several labels, one output each; empty for one.

        Raises:
            NotConvertible: The estimator, or a part of it, has no exact counterpart; the message names the part.
            MissingExtra: The converting library is not installed.
        """
        ...

    def thresholds(self, estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        """Return numeric column -> known decision thresholds; the proof probes them."""
        ...


def framework_of(estimator: Any) -> str | None:
    """Return the name of the estimator's framework, without importing anything or calling the estimator."""
    if type(estimator).__module__ == "mainspring.training.flavours.calibration":
        return "calibration"
    roots = {kind.__module__.partition(".")[0] for kind in type(estimator).__mro__}
    return next((name for root, name in FRAMEWORKS.items() if root in roots), None)


def flavour_of(estimator: Any) -> Flavour:
    """Return the flavour of the estimator's framework; for an unknown framework, one that only scores and refuses."""
    name = framework_of(estimator) or "estimators"
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
    """Convert the estimator into its model file, not yet proved equivalent (`equivalence.check.prove`).

    See `Flavour.convert` for arguments and further errors.

    Raises:
        Invalid: A column has a type that no model accepts.
    """
    check_feature_types({each.name: each.dtype for each in inputs})
    return flavour_of(estimator).convert(estimator, inputs, task, wide, labels)
