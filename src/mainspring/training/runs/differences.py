"""Differences between a recorded training and its reproduction."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mainspring.features.offline.observed import AT
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle, RunRecord
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.runs.system import PREFIX as SYSTEM
from mainspring.training.sets.labels import LABEL

# Parameters that always differ because they name the run, and the bounds, which older runs wrote in another form.
_OF_THE_RUN = {"digest", "since", "until"}
_SPEEDS = {"data.rows_per_s", "data.mb_per_s", "data.waiting"}  # of a loader


@dataclass(frozen=True, slots=True)
class Difference:
    """One value, recorded and reproduced; `None` if absent."""

    name: str
    recorded: Any
    again: Any


@dataclass(frozen=True, slots=True)
class Predictions:
    """Comparison of two models' predictions on the recorded held-out rows."""

    rows: int
    differing: int
    largest: float  # the largest difference of two predictions
    held_out_same: bool  # held-out rows and labels are identical
    model_same: bool  # the model's file is identical, byte for byte

    @property
    def same(self) -> bool:
        return self.differing == 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Differences in the results. `predictions` is `None` if the recorded run has no bundle."""

    params: list[Difference] = field(default_factory=list)
    metrics: list[Difference] = field(default_factory=list)
    predictions: Predictions | None = None

    @property
    def same(self) -> bool:
        return not self.params and not self.metrics and (self.predictions is None or self.predictions.same)


def outcome(recorded: RunRecord, again: RunRecord, bundle: Bundle | None, other: Bundle) -> Outcome:
    """Compare two runs, and the recorded bundle with the reproduced one, `other`.

    Metrics are compared bit for bit, except those of the system and of a loader's speed; of a metric with steps, only
    the last value counts.
    """
    params = [
        difference for difference in differences(recorded.params, again.params) if difference.name not in _OF_THE_RUN
    ]
    metrics = [
        difference
        for difference in differences(recorded.metrics, again.metrics)
        if not difference.name.startswith(SYSTEM) and difference.name not in _SPEEDS
    ]
    return Outcome(params, metrics, None if bundle is None else predictions(bundle, other))


def differences(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> list[Difference]:
    """Return the differing values, sorted by name; NaN equals NaN."""
    return [
        Difference(name, recorded.get(name), again.get(name))
        for name in sorted({*recorded, *again})
        if not _same(recorded.get(name), again.get(name))
    ]


def predictions(bundle: Bundle, other: Bundle) -> Predictions:
    """Compare the predictions of both bundles on the held-out rows of the first."""
    rows = pq.read_table(io.BytesIO(bundle.files[HOLDOUT]))
    missing = [column.name for column in other.manifest.inputs if column.name not in rows.column_names]
    again = pq.read_table(io.BytesIO(other.files[HOLDOUT]))
    kept = [*(column.name for column in bundle.manifest.inputs), AT, LABEL]  # others depend on gates and the baseline
    held_out_same = not {*kept} - {*again.column_names} and bool(rows.select(kept).equals(again.select(kept)))
    model_same = {name: content for name, content in bundle.files.items() if name.startswith("model")} == {
        name: content for name, content in other.files.items() if name.startswith("model")
    }
    if missing or other.manifest.outputs != bundle.manifest.outputs:  # inputs or outputs differ
        return Predictions(rows.num_rows, rows.num_rows, math.inf, held_out_same, model_same)
    first, second = (score_bundle(scored, rows).reshape(rows.num_rows, -1) for scored in (bundle, other))
    distance = np.where(np.isnan(first) & np.isnan(second), 0.0, np.abs(first - second))
    differing = int((~(distance == 0.0)).any(axis=1).sum())
    largest = float(np.nanmax(distance, initial=0.0))
    return Predictions(rows.num_rows, differing, largest, held_out_same, model_same)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first) and math.isnan(second):
        return True
    return bool(first == second)
