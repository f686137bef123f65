"""Verdicts of a candidate's gates that the bundles decide, from metrics to the cost of serving."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache

from mainspring.delivery.canaries import judge_canaries
from mainspring.delivery.compare import Rebuild, compare
from mainspring.delivery.compatibility import judge_compatibility
from mainspring.delivery.data_quality import judge_data
from mainspring.delivery.engine import judge_latency, judge_memory, judge_size
from mainspring.delivery.fairness import judge_fairness
from mainspring.delivery.gates import baseline_of, direction, judge
from mainspring.delivery.held_out import HeldOut, score_held_out
from mainspring.delivery.model import GateResult, nothing
from mainspring.delivery.robustness import judge_robustness
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.serving.ports import Loader
from mainspring.stats.metrics import Metric
from mainspring.stats.thresholds import Costs
from mainspring.training.gate_kinds import CanaryGate, DataGate, EngineGate, FairnessGate, Gate, RobustGate

_NO_ROWS = "its bundle contains no held-out rows."


def verdicts(
    gates: Sequence[Gate],
    candidate: Bundle,
    champion: ModelVersion | None,
    load: Callable[[str], Bundle],
    rebuild: Rebuild | None,
    metrics: Sequence[Metric],
    threshold: Costs | None,
    hidden: Callable[[Bundle], Collection[str]] = lambda _: (),
    executors: Loader | None = None,
    memory: Callable[[Bundle, int], int] | None = None,
) -> tuple[GateResult, ...]:
    """Return the results of a candidate's gates in their order, against the baseline and the champion if there is one.

    Those of approvals and of the model card are not among them. A gate against the champion has no result without one.

    Args:
        load: Returns the verified bundle of a digest.
        rebuild: See `promote`; so too `metrics`, `threshold` and `hidden`.
        executors: Makes the executors of the serving engine; without it, gates on latency have nothing to measure.
        memory: Measures how many bytes a bundle takes with a batch of some rows; needed by gates on memory.
    """

    @cache
    def live() -> Bundle | None:
        return None if champion is None else load(champion.digest)

    @cache
    def held_out() -> HeldOut | str:
        if HOLDOUT not in candidate.files:
            return _NO_ROWS
        return score_held_out(candidate, more=metrics, threshold=threshold)

    comparison, theirs = None, hidden(candidate)
    if champion is not None and any(gate.kind == "beats" for gate in gates):
        version = champion.version
        comparison = compare(candidate, load(champion.digest), version, rebuild, more=metrics, threshold=threshold)
    manifest = candidate.manifest
    results: list[GateResult] = []
    for gate in gates:
        if gate.on_metric:
            results += judge([gate], manifest.metrics, baseline_of(manifest), comparison, metrics, held_out, theirs)
        elif isinstance(gate, (FairnessGate, RobustGate)):
            rows = held_out()
            if isinstance(rows, str):
                results.append(nothing(gate, "held-out rows", rows))
            elif isinstance(gate, FairnessGate):
                results.append(judge_fairness(gate, rows, rows.candidate.threshold, theirs))
            else:
                higher = direction(gate.metric, metrics)
                results.append(judge_robustness(gate, candidate, rows, higher=higher))
        elif isinstance(gate, CanaryGate):
            results.append(judge_canaries(gate, candidate))
        elif isinstance(gate, DataGate):
            results.append(judge_data(gate, candidate))
        elif isinstance(gate, EngineGate):
            results += _on_engine(
                gate, candidate, live(), "" if champion is None else champion.version, load, executors, memory
            )
    return tuple(results)


def _on_engine(
    gate: EngineGate,
    candidate: Bundle,
    champion: Bundle | None,
    version: str,
    load: Callable[[str], Bundle],
    executors: Loader | None,
    memory: Callable[[Bundle, int], int] | None,
) -> list[GateResult]:
    if gate.kind == "size":
        return [judge_size(gate, candidate, load)]
    if champion is None and gate.kind in ("compatible", "slower"):
        return []
    if gate.kind == "compatible" and champion is not None:
        return [judge_compatibility(gate, candidate, champion, version)]
    if gate.kind == "memory" and memory is not None:
        return [judge_memory(gate, candidate, memory)]
    if executors is None or gate.kind == "memory":
        return [nothing(gate, "limit", "nothing here runs the model.", "run `mainspring promote`.")]
    relative = None if champion is None or gate.kind != "slower" else (champion, version)
    return [judge_latency(gate, candidate, relative, executors)]
