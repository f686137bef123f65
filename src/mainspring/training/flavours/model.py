"""What a framework has to know about its estimators, and the file that comes of one."""

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
    """A model as the one file of its bundle.

    Args:
        flavour: What runs it: a name of `registry.flavours`.
        name: The file's name in the bundle.
        curve: What becomes of its probability, where the framework that runs it knows no calibration.
        categories: Text column -> the texts that it splits on; a text's place among them is the number that enters the
            model, and NaN for any other text and for null. Only of frameworks whose files hold numbers alone.
    """

    flavour: str
    name: str
    content: bytes
    curve: Curve | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def native(self) -> bool:
        """Whether the framework itself will run it, so that nothing was converted."""
        return self.flavour != "onnx"


class Flavour(Protocol):
    """One framework. Its modules are imported when an estimator of it is there, never before.

    Estimators were fitted on frames as `frames.to_frame` makes them: null numbers are NaN, null texts `None`.
    """

    def outputs(self, estimator: Any, task: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the names of what it answers: `probability` (of label 1), `value`, the classes' names, or `labels`.

        Args:
            labels: The names of several labels.

        Raises:
            NotConvertible: It does not do the task.
        """
        ...

    def scores(self, estimator: Any, frame: pd.DataFrame, task: str) -> Array:
        """Return its own answers, float64 of shape (rows, outputs)."""
        ...

    def convert(
        self, estimator: Any, inputs: Sequence[Input], task: str, wide: Collection[str], labels: Sequence[str] = ()
    ) -> Artefact:
        """Return its file, which is still to be proved (`equivalence.prove`).

        Args:
            inputs: The columns it was fitted on, in this order.
            wide: Names of columns with values that float32 does not hold.
            labels: The names of several labels, of which it answers one value each.

        Raises:
            NotConvertible: It, or a part of it, has no exact counterpart; the message names the part.
            MissingExtra: What converts it is not installed.
        """
        ...

    def thresholds(self, estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        """Return numeric column -> values at which it decides, as far as they are known. They are probed."""
        ...
