"""A version's held-out rows with its predictions, and with those of the baseline or of the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.features.offline.observed import AT
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle, several_labels
from mainspring.stats import metrics
from mainspring.stats.jackknife import Floats, Ints
from mainspring.stats.metrics import DECIDED, Metric, class_places
from mainspring.stats.thresholds import THRESHOLD, Costs
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.sets.labels import BASELINE_SCORE, LABEL, label_numbers

_HALF = 0.5  # the threshold of a bundle without a chosen one


@dataclass(frozen=True, slots=True)
class Scored:
    """Predictions of one model, and the metrics that have a meaning of their own for it.

    Attributes:
        truth: Shape (rows,), for several classes by their places among its outputs; or (rows, labels).
        scores: Shape (rows,) or (rows, outputs).
        own: Metrics by name: the model's further ones, and those of its own threshold.
        threshold: The threshold by which it decides; `None` if unknown.
    """

    truth: np.ndarray[Any, Any]
    scores: Floats
    own: Mapping[str, Metric]
    threshold: float | None

    def metric(self, name: str) -> Metric | None:
        """Return a metric by name; `None` if it is unknown for this model."""
        return self.own.get(name) or (None if name in DECIDED else metrics.named(name))

    def rows(self, chosen: Any) -> Scored:
        """Return some of the rows."""
        return Scored(self.truth[chosen], self.scores[chosen], self.own, self.threshold)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out rows of a candidate, with its predictions and those of another model on the same rows.

    Attributes:
        at: Shape (rows,), UTC epoch microseconds.
        table: The rows' columns.
        other: `None` if there is no other model.
        labels: Column names of several labels.
        classes: Names of several classes, in the order of the scores' columns.
    """

    task: str
    at: Ints
    table: pa.Table
    candidate: Scored
    other: Scored | None = None
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.at.size)

    def metrics(self, side: Scored) -> dict[str, float]:
        """Return the metrics of the candidate's or of the other model's predictions.

        Raises:
            MetricFailed: A custom metric raised, or returned no number.
        """
        return metrics.score(self.task, side.truth, side.scores, tuple(side.own.values()), labels=self.labels)

    def rows(self, chosen: Any) -> HeldOut:
        """Return some of the rows: a Boolean mask, or numbers."""
        other = None if self.other is None else self.other.rows(chosen)
        table = self.table.filter(pa.array(chosen)) if chosen.dtype == np.bool_ else self.table.take(pa.array(chosen))
        candidate = self.candidate.rows(chosen)
        return replace(self, at=self.at[chosen], table=table, candidate=candidate, other=other)


def read_held_out(bundle: Bundle) -> pa.Table:
    """Return a bundle's held-out rows; it must have some."""
    return pq.read_table(BytesIO(bundle.files[HOLDOUT]))


def score_held_out(
    candidate: Bundle,
    *,
    table: pa.Table | None = None,
    champion: tuple[Bundle, pa.Table] | None = None,
    more: Sequence[Metric] = (),
    threshold: Costs | None = None,
) -> HeldOut:
    """Return the candidate's held-out rows, scored by it, and by the champion or else by the baseline.

    A bundle that was trained before baselines' predictions were kept has no other side without a champion.

    Args:
        table: Some of the candidate's held-out rows; by default all.
        champion: The champion's bundle, and the same rows with its inputs as columns.
        more: The model's metrics in addition to the task's.
        threshold: The model's costs; each bundle decides by its own threshold, or by 0.5.

    Raises:
        UnknownClasses: The rows have classes that the candidate or the champion does not know.
    """
    table = read_held_out(candidate) if table is None else table
    at = np.zeros(table.num_rows, np.int64)  # of bundles from before the times were kept: one block
    if AT in table.column_names:
        at = np.asarray(table[AT].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy())
    ours = _scored(candidate, table, table, more, threshold)
    theirs = None
    if champion is not None:
        theirs = _scored(*champion, table, more, threshold)
    elif BASELINE_SCORE in table.column_names:
        numbers = pc.list_flatten(table[BASELINE_SCORE]).to_numpy()
        scores = np.asarray(numbers, np.float64).reshape(table.num_rows, -1)
        scores = scores[:, 0] if scores.shape[1] == 1 else scores
        theirs = Scored(ours.truth, scores, {each.name: each for each in more}, None)
    manifest = candidate.manifest
    classes = manifest.outputs if manifest.task == "multiclass" else ()
    return HeldOut(manifest.task, at, table, ours, theirs, several_labels(manifest), classes)


def _scored(bundle: Bundle, rows: pa.Table, held_out: pa.Table, more: Sequence[Metric], costs: Costs | None) -> Scored:
    manifest = bundle.manifest
    if manifest.task == "multiclass":
        truth: np.ndarray[Any, Any] = class_places(held_out[LABEL].to_pylist(), manifest.outputs)
    else:
        truth = label_numbers(held_out[LABEL], several_labels(manifest))
    threshold = float(manifest.extra.get(THRESHOLD, {}).get("value", _HALF))
    decided = () if costs is None else costs.metrics(threshold)
    own = {each.name: each for each in (*more, *decided)}
    return Scored(metrics.truth_of(manifest.task, truth), score_bundle(bundle, rows), own, threshold)
