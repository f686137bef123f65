"""Canaries: known rows whose predictions by a version have to lie within bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.data.arrow import ARROW_TYPES
from mainspring.delivery.model import GateResult, nothing
from mainspring.registry.model import Bundle
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.gate_kinds import Canary, CanaryGate

_SHOWN = 3


def judge_canaries(gate: CanaryGate, bundle: Bundle) -> GateResult:
    """Return the result of a gate on canaries: how many predictions are out of their bounds."""
    manifest = bundle.manifest
    given: list[dict[str, Any]] = [dict(each.features) for each in gate.canaries]
    names = [each.output or manifest.outputs[0] for each in gate.canaries]
    if strange := sorted({*names} - {*manifest.outputs}):
        return nothing(gate, "canaries", f"the version has no output {strange[0]}.")
    try:
        columns = {
            each.name: pa.array([row.get(each.name) for row in given]).cast(ARROW_TYPES[each.dtype])
            for each in manifest.inputs
        }
        scores = np.asarray(score_bundle(bundle, pa.table(columns)), np.float64).reshape(len(given), -1)
    except (MainspringError, pa.ArrowException) as error:
        return nothing(gate, "canaries", f"the model does not take these rows: {error}")
    predictions = [float(row[manifest.outputs.index(name)]) for row, name in zip(scores, names, strict=True)]
    out = [place for place, each in enumerate(gate.canaries) if not _keeps(each, predictions[place])]
    shown = "; ".join(f"{gate.canaries[place]} is {predictions[place]:.4g}" for place in out[:_SHOWN])
    return GateResult(
        gate=str(gate), against="canaries", value=float(len(out)), needed=0.0, passed=not out,
        short_by=float(len(out)), note=shown + ("; ..." if len(out) > _SHOWN else ""), rows=len(given),
    )  # fmt: skip


def _keeps(canary: Canary, prediction: float) -> bool:
    """Return whether a prediction is within a canary's bounds; NaN is not."""
    low = -math.inf if canary.low is None else canary.low
    return low <= prediction <= (math.inf if canary.high is None else canary.high)
