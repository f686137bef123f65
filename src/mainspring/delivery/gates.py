"""Gate evaluation: pure comparisons of metrics, each with the missing amount, and of a model card's completeness."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.errors import Invalid
from mainspring.delivery.model import ROUNDING, GateResult, nothing
from mainspring.governance.model import Card
from mainspring.registry.model import Manifest
from mainspring.stats.metrics import DECIDED, HIGHER_IS_BETTER, Metric, higher_is_better
from mainspring.training.gate_kinds import Gate

if TYPE_CHECKING:
    from mainspring.delivery.held_out import HeldOut

BASELINE = "baseline."  # prefix of the baseline's metrics in a manifest
CARD = "card"  # kind of the gate that requires a complete model card
_GAPS_NAMED = 6  # maximum number of gaps in the note


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate and the current champion, scored on the same held-out rows.

    If they cannot be compared, the metrics are empty and `note` gives the reason. `aside` tells which rows were left
    out. `rows` are the rows with both predictions.
    """

    champion: str  # its version
    candidate: Mapping[str, float]
    metrics: Mapping[str, float]
    note: str = ""
    aside: str = ""
    rows: HeldOut | None = None


def judge(
    gates: Sequence[Gate],
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    comparison: Comparison | None,
    declared: Sequence[Metric] = (),
    held_out: Callable[[], HeldOut | str] = lambda: "its bundle contains no held-out rows.",
    hidden: Collection[str] = (),
) -> tuple[GateResult, ...]:
    """Return the result of every gate on a metric; `beats` gives two if there is a champion.

    Args:
        gates: The model's gates.
        metrics: The candidate's metrics on its held-out rows.
        baseline: The baseline's metrics on the same rows.
        comparison: Comparison with the current champion, `None` if there is none.
        declared: The model's custom metrics.
        held_out: Scores the candidate's held-out rows, or returns why it cannot; called for gates with an interval or
            with slices.
        hidden: Columns whose values identify a person.

    Raises:
        Invalid: A gate names a metric that does not exist.
    """
    results: list[GateResult] = []
    for gate in gates:
        if not gate.on_metric:  # evaluated by `judge_card` and in `delivery.approving`
            continue
        higher = direction(gate.metric, declared)
        if gate.on_rows:
            results += _on_rows(gate, held_out(), higher, hidden)
        else:
            results.append(_against_fixed(gate, metrics, baseline, higher))
        if gate.kind == "beats" and comparison is not None:
            results += _against_champion(gate, comparison, higher, hidden)
    return tuple(results)


def direction(name: str, declared: Sequence[Metric]) -> bool:
    """Return whether higher values of a metric are better.

    Raises:
        Invalid: There is no such metric.
    """
    higher = higher_is_better(name, declared)
    if higher is None:
        known = sorted({*HIGHER_IS_BETTER, *DECIDED, *(each.name for each in declared)})
        raise Invalid(f"A gate names the unknown metric {name!r}.", fix=f"use one of {', '.join(known)}.")
    return higher


def _against_fixed(gate: Gate, metrics: Mapping[str, float], baseline: Mapping[str, float], higher: bool) -> GateResult:
    value = metrics.get(gate.metric)
    if gate.kind != "beats":
        return _compare(gate, "limit", value, gate.value, gate.kind == "at_least")
    margin = gate.value if higher else -gate.value
    level = baseline.get(gate.metric)
    return _compare(gate, "baseline", value, None if level is None else level + margin, higher)


def _on_rows(gate: Gate, held_out: HeldOut | str, higher: bool, hidden: Collection[str]) -> list[GateResult]:
    from mainspring.delivery.evidence import judge_rows

    against = "baseline" if gate.kind == "beats" else "limit"
    if isinstance(held_out, str):
        return [nothing(gate, against, held_out)]
    if gate.kind != "beats":
        return judge_rows(gate, replace(held_out, other=None), against, higher=gate.kind == "at_least", hidden=hidden)
    if held_out.other is None:
        return [nothing(gate, against, "the bundle does not contain the baseline's predictions.", "train it again.")]
    return judge_rows(gate, held_out, against, higher=higher, margin=gate.value, hidden=hidden)


def _against_champion(gate: Gate, comparison: Comparison, higher: bool, hidden: Collection[str]) -> list[GateResult]:
    from mainspring.delivery.evidence import judge_rows

    against = f"champion {comparison.champion}"
    if comparison.note:
        return [nothing(gate, against, comparison.note)]
    if gate.on_rows and comparison.rows is not None:
        found = judge_rows(gate, comparison.rows, against, higher=higher, margin=-gate.margin, hidden=hidden)
    else:
        value, level = comparison.candidate.get(gate.metric), comparison.metrics.get(gate.metric)
        allowed = -gate.margin if higher else gate.margin
        found = [_compare(gate, against, value, None if level is None else level + allowed, higher)]
    return [_with_note(each, comparison.aside) for each in found]


def _with_note(result: GateResult, note: str) -> GateResult:
    return msgspec.structs.replace(result, note="; ".join(filter(None, (result.note, note))))


def _compare(gate: Gate, against: str, value: float | None, needed: float | None, higher: bool) -> GateResult:
    if value is None or not isfinite(value):
        return nothing(gate, against, f"the candidate has no {gate.metric} on its held-out rows.")
    if needed is None or not isfinite(needed):
        return nothing(gate, against, f"the {against} has no {gate.metric} on the held-out rows.")
    missing = needed - value if higher else value - needed
    passed = missing <= ROUNDING
    return GateResult(
        gate=str(gate),
        against=against,
        value=value,
        needed=needed,
        passed=passed,
        short_by=0.0 if passed else missing,
    )


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
