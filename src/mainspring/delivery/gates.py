"""Gate evaluation: pure comparisons of metrics, each with the missing amount, and of a model card's completeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import msgspec

from mainspring.core.errors import Invalid
from mainspring.delivery.model import GateResult
from mainspring.governance.model import Card
from mainspring.registry.model import Manifest
from mainspring.stats.metrics import DECIDED, HIGHER_IS_BETTER, Metric, higher_is_better
from mainspring.training.gates import Gate

# Tolerance for the rounding of sums computed in different orders.
_ROUNDING = 1e-12
BASELINE = "baseline."  # prefix of the baseline's metrics in a manifest
CARD = "card"  # kind of the gate that requires a complete model card
_GAPS_NAMED = 6  # maximum number of gaps in the note


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate and the current champion, scored on the same held-out rows.

    If they cannot be compared, the metrics are empty and `note` gives the reason. `aside` tells which rows were left
    out.
    """

    champion: str  # its version
    candidate: Mapping[str, float]
    metrics: Mapping[str, float]
    note: str = ""
    aside: str = ""


def judge(
    gates: Sequence[Gate],
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    comparison: Comparison | None,
    declared: Sequence[Metric] = (),
) -> tuple[GateResult, ...]:
    """Return the result of every gate on a metric; `beats` gives two if there is a champion.

    Args:
        gates: The model's gates.
        metrics: The candidate's metrics on its held-out rows.
        baseline: The baseline's metrics on the same rows.
        comparison: Comparison with the current champion, `None` if there is none.
        declared: The model's custom metrics.

    Raises:
        Invalid: A gate names a metric that does not exist.
    """
    results: list[GateResult] = []
    for gate in gates:
        if not gate.on_metric:  # evaluated by `judge_card` and in `delivery.approving`
            continue
        higher = higher_is_better(gate.metric, declared)
        if higher is None:
            known = sorted({*HIGHER_IS_BETTER, *DECIDED, *(each.name for each in declared)})
            raise Invalid(f"A gate names the unknown metric {gate.metric!r}.", fix=f"use one of {', '.join(known)}.")
        value = metrics.get(gate.metric)
        if gate.kind == "beats":
            margin = gate.value if higher else -gate.value
            level = baseline.get(gate.metric)
            needed = None if level is None else level + margin
            results.append(_compare(gate, "baseline", value, needed, higher))
            if comparison is not None:
                results.append(_against_champion(gate, comparison, higher))
        else:
            results.append(_compare(gate, "limit", value, gate.value, gate.kind == "at_least"))
    return tuple(results)


def _against_champion(gate: Gate, comparison: Comparison, higher: bool) -> GateResult:
    against = f"champion {comparison.champion}"
    if comparison.note:
        return _nothing(gate, against, comparison.note)
    value, needed = comparison.candidate.get(gate.metric), comparison.metrics.get(gate.metric)
    return msgspec.structs.replace(_compare(gate, against, value, needed, higher), note=comparison.aside)


def _compare(gate: Gate, against: str, value: float | None, needed: float | None, higher: bool) -> GateResult:
    if value is None or not isfinite(value):
        return _nothing(gate, against, f"the candidate has no {gate.metric} on its held-out rows.")
    if needed is None or not isfinite(needed):
        return _nothing(gate, against, f"the {against} has no {gate.metric} on the held-out rows.")
    missing = needed - value if higher else value - needed
    passed = missing <= _ROUNDING
    return GateResult(
        gate=str(gate),
        against=against,
        value=value,
        needed=needed,
        passed=passed,
        short_by=0.0 if passed else missing,
    )


def _nothing(gate: Gate, against: str, note: str) -> GateResult:
    return GateResult(gate=str(gate), against=against, value=None, needed=None, passed=False, short_by=None, note=note)


def judge_card(card: Card) -> GateResult:
    """Return the result of the gate that requires a complete model card; the note lists the gaps."""
    missing = [gap.what for gap in card.gaps if gap.required]
    more = [f"And {len(missing) - _GAPS_NAMED} more."] if len(missing) > _GAPS_NAMED else []
    listed = " ".join([*missing[:_GAPS_NAMED], *more])
    return GateResult(
        gate="complete card",
        against="required gaps",
        value=None if missing else 0.0,
        needed=None if missing else 0.0,
        passed=card.complete,
        short_by=float(len(missing)),
        note=f"{listed} `mainspring models card {card.model}:{card.version}` shows the fixes" if missing else "",
    )


def baseline_of(manifest: Manifest) -> Mapping[str, float]:
    """Return the baseline's held-out metrics from the manifest."""
    return {name.removeprefix(BASELINE): value for name, value in manifest.metrics.items() if name.startswith(BASELINE)}
