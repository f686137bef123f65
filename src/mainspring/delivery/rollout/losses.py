"""Losses of single predictions, and the values of guards on labels and outputs. Larger is worse."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.delivery.rollout.guards import OUTPUT, QUALITY, Guard
from mainspring.monitoring.joins import OUTPUTS, json_rows

LEAST = 1e-4  # probability, so that a logarithm is finite
RANGES = {"error": (0.0, 1.0), "brier": (0.0, 1.0), "log_loss": (0.0, -float(np.log(LEAST)))}
USUAL = {"error": 0.25, "brier": 0.2, "log_loss": 0.5}  # means of losses, where there is no history

Floats = npt.NDArray[np.float64]


def values_of(guard: Guard, joined: pa.Table) -> Floats:
    """Return the value of each row; NaN where the prediction or the label is no number.

    Args:
        joined: `score`, `label`, and `outputs` (JSON objects), as `monitoring.joins.join_labels` returns them; of an
            output its `outputs` alone.
    """
    if guard.kind == OUTPUT:
        given = [row.get(guard.metric) for row in json_rows(joined[OUTPUTS])]
        numbers = np.array([float(each) if isinstance(each, int | float) else np.nan for each in given])
        return -numbers if guard.higher_is_better else numbers
    labels = joined["label"].combine_chunks()
    several = isinstance(labels.type, pa.StructType)
    if guard.kind != QUALITY:
        known = _columns(labels)
        chosen = known.get(guard.metric, next(iter(known.values())))
        return np.asarray(-chosen) if guard.higher_is_better else chosen
    if not several:
        outputs = json_rows(joined[OUTPUTS])
        if any(len(each) > 1 for each in outputs):
            return _of_classes(guard.metric, outputs, labels.to_pylist())
    scores, known = (_columns(joined[name].combine_chunks()) for name in ("score", "label"))
    return np.asarray(np.mean([_loss(guard.metric, scores[name], known[name]) for name in known], axis=0))


def _loss(metric: str, score: Floats, label: Floats) -> Floats:
    if metric == "error":
        found = np.asarray((score >= 0.5) != (label >= 0.5), dtype=np.float64)
        return np.where(np.isfinite(score), found, np.nan)
    if metric == "brier":
        return np.asarray((score - label) ** 2)
    if metric == "log_loss":
        likely = np.clip(np.where(label >= 0.5, score, 1 - score), LEAST, 1.0)
        return np.asarray(-np.log(likely))
    return np.asarray(np.abs(score - label) if metric == "absolute_error" else (score - label) ** 2)


def _of_classes(metric: str, outputs: list[dict[str, Any]], labels: list[Any]) -> Floats:
    """Return the loss of each row of probabilities by class; a label that is no class had the probability 0."""
    found = []
    for each, label in zip(outputs, labels, strict=True):
        likely = {name: float(value) for name, value in each.items() if isinstance(value, int | float)}
        name = str(int(label)) if isinstance(label, float) and label == int(label) else str(label)
        if not likely:
            found.append(np.nan)
        elif metric == "error":
            found.append(float(max(likely, key=likely.__getitem__) != name))
        else:
            found.append(-float(np.log(np.clip(likely.get(name, 0.0), LEAST, 1.0))))
    return np.asarray(found)


def _columns(whole: Any) -> dict[str, Floats]:
    """Return name -> numbers: one column has the name "", several are a struct of them."""
    parts = (
        {each.name: whole.field(each.name) for each in whole.type} if pa.types.is_struct(whole.type) else {"": whole}
    )
    return {name: np.asarray(each.cast(pa.float64()).to_numpy(zero_copy_only=False)) for name, each in parts.items()}
