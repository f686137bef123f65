"""Gates on retrieval: what a collection's new index has to show on an evaluation set before it is swapped in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.delivery.model import ROUNDING, GateResult, nothing
from mainspring.stats.retrieval import Floats, Mean, mean, mean_difference
from mainspring.training.gate_kinds import Gate
from mainspring.vectors.evaluation.evaluating import FALSE_HITS, UNANSWERED, SearchEvaluation, checked_metrics, paired


def gate_metrics(gates: Iterable[Any], owner: str, judged: Collection[str] = ()) -> tuple[str, ...]:
    """Return the metrics that an evaluation of a search has to measure for gates.

    Args:
        judged: Names of judgements of answers, which gates may name too.

    Raises:
        Invalid: A gate is of another kind than `at_least`, `at_most` and `beats`, or its metric is none of retrieval.
    """
    names = []
    for gate in gates:
        if not isinstance(gate, Gate) or not gate.on_metric:
            raise Invalid(
                f"{owner} has the gate {gate}, which is not on a metric.",
                fix='write ms.gates.at_least("recall@10", 0.9), at_most or beats.',
            )
        names.append(gate.metric)
    measured = tuple(name for name in dict.fromkeys(names) if name not in {UNANSWERED, FALSE_HITS, *judged})
    if measured:
        checked_metrics(measured)
    return measured


def judge_retrieval(
    gates: Sequence[Gate], evaluation: SearchEvaluation, served: SearchEvaluation | None, version: str = ""
) -> tuple[GateResult, ...]:
    """Return the result of each gate.

    Args:
        served: Evaluation of the version that answers now, on the same set; `None` if there is none. A gate `beats`
            has then nothing to beat, and passes.
        version: Name of that version.

    Raises:
        Invalid: A metric was not measured.
    """
    return tuple(_judge(gate, evaluation, served, version) for gate in gates)


def _judge(gate: Gate, evaluation: SearchEvaluation, served: SearchEvaluation | None, version: str) -> GateResult:
    against = f"version {version}" if gate.kind == "beats" else "limit"
    if gate.kind == "beats" and served is None:
        return GateResult(
            gate=str(gate), against=against, value=None, needed=None, passed=True, short_by=0.0,
            note="no version answers yet.",
        )  # fmt: skip
    tags = [""]
    if gate.by_slice:
        tags = sorted(tag for tag in evaluation.by_tag if tag.partition("=")[0] in gate.by_slice)
        if not tags:
            return nothing(gate, against, f"no query has the tag {' or '.join(gate.by_slice)}.")
    found = [_of_tag(gate, evaluation, served, against, tag) for tag in tags]
    small = [each for each in found if each.slice and (each.rows or 0) < gate.least_rows]
    large = [each for each in found if each not in small]
    if small and gate.insufficient == "fail":
        names = ", ".join(each.slice for each in small[:3])
        few = f"{len(small)} groups have fewer than {gate.least_rows} queries: {names}."
        return msgspec.structs.replace(small[0], passed=False, short_by=None, note=few)
    if not large:
        return nothing(gate, against, f"no group has {gate.least_rows} queries.")
    return max(large, key=lambda each: (not each.passed, each.short_by is None, -(each.value or 0) * _sign(gate)))


def _of_tag(
    gate: Gate, evaluation: SearchEvaluation, served: SearchEvaluation | None, against: str, tag: str
) -> GateResult:
    higher, chance = _sign(gate) > 0, gate.sure or gate.harm
    values: tuple[Floats, ...] = (evaluation.values(gate.metric, tag),)
    needed = gate.value
    if gate.kind == "beats" and served is not None:
        values = paired(evaluation, served, gate.metric, tag)
        needed = (gate.value - gate.margin) * (1 if higher else -1)
    found = _mean(values, 0.95 if chance is None else 2 * chance - 1)
    if found.interval is None:
        return msgspec.structs.replace(nothing(gate, against, "no query counts for it."), slice=tag, rows=0)
    low, high = found.interval.low, found.interval.high
    decides = found.value
    if gate.bounded:  # sure: the worse end of the interval decides; harm: the better one
        decides = low if higher == (gate.sure is not None) else high
    missing = (needed - decides) * (1 if higher else -1)
    return GateResult(
        gate=str(gate),
        against=against,
        value=found.value,
        needed=needed,
        passed=missing <= ROUNDING,
        short_by=max(0.0, missing) if missing > ROUNDING else 0.0,
        interval=(low, high),
        sure=(1 + found.interval.confidence) / 2,
        slice=tag,
        rows=found.queries,
    )


def _mean(values: Sequence[Floats], confidence: float) -> Mean:
    return (
        mean(values[0], confidence=confidence) if len(values) == 1 else mean_difference(*values, confidence=confidence)
    )


def _sign(gate: Gate) -> int:
    """Return 1 if more of what a gate measures is better, else -1."""
    if gate.kind == "beats":
        return -1 if gate.metric in (UNANSWERED, FALSE_HITS) else 1
    return 1 if gate.kind == "at_least" else -1
