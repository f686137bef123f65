"""Values that one training passes through, each made from the one before: observed, fitted, converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mainspring.registry.model import Input
from mainspring.training.equivalence.check import Proof
from mainspring.training.flavours import Artefact
from mainspring.training.frames import Array
from mainspring.training.model import Model
from mainspring.training.runs.provenance import Pinned
from mainspring.training.sets.training_set import TrainingSet

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Observed:
    """Labelled observations of a model in `[since, until)`, with features read from the pinned tables.

    Args:
        since, until: UTC epoch microseconds; `None` without a bound.
        everything: The rows with the columns of the model and of its baseline.
        data: The same rows with the model's columns alone.
        held_out: The held-out rows of `everything` as a table, with `_at`, `_label`, and the columns that gates name.
        notes: Sentences on rows that were left out.
        without: Rows that were left out of the tables, as text.
    """

    model: Model
    pinned: Pinned
    since: int | None
    until: int | None
    everything: TrainingSet
    data: TrainingSet
    held_out: pa.Table
    notes: Sequence[str]
    without: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Fitted:
    """An estimator fitted on `data.train`.

    Args:
        data: The training set with the columns that the estimator takes, in its order.
        outputs: Names of the estimator's outputs.
        baseline: Held-out metrics of the baseline.
        baseline_scores: Its predictions for the held-out rows, shape (rows, outputs); `None` if its classes differ.
    """

    model: Model
    estimator: Any
    data: TrainingSet
    outputs: tuple[str, ...]
    baseline: dict[str, float] = field(default_factory=dict)
    baseline_scores: Array | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """A fitted estimator's model file, proved equivalent and evaluated on the held-out rows.

    Args:
        wide: Columns that the model takes as float64.
        scores: The model's predictions for the held-out rows, shape (rows, outputs).
        probes: Rows that each load of the bundle replays, and the model's predictions for them.
        plain: Up to 10,000 more rows, held out or recombined, and the model's predictions for them.
    """

    fitted: Fitted
    artefact: Artefact
    inputs: tuple[Input, ...]
    wide: tuple[str, ...]
    proof: Proof
    scores: Array
    metrics: dict[str, float]
    threshold: float | None
    probes: tuple[pd.DataFrame, Array]
    plain: tuple[pd.DataFrame, Array]
