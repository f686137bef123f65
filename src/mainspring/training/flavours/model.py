"""Port of a framework, and the model file that it produces."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mainspring.registry.model import Input
from mainspring.stats.curves import Curve
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Artefact:
    """The model file of a bundle.

    Args:
        flavour: The runtime: a name of `registry.flavours`.
        name: The file's name in the bundle.
        curve: Calibration of the probability, for a framework without calibration of its own.
        categories: Text column -> its categories. The model takes a text's position among them, and NaN for any other
            text or null. Only for frameworks whose files hold numbers alone.
    """

    flavour: str
    name: str
    content: bytes
    curve: Curve | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def native(self) -> bool:
        """True if the framework itself runs the file, so that nothing was converted."""
        return self.flavour != "onnx"


class Flavour(Protocol):
    """One framework. A framework is imported only when an estimator of it is present.

    Estimators are fitted on frames from `frames.to_frame`: null numbers are NaN, null texts `None`.
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
        """Return the model file, not yet proved equivalent (`equivalence.prove`).

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
