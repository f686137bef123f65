"""Fairness of decisions and errors: rates of groups of held-out rows, judged on the bounds of their differences.

Demographic parity compares the shares of rows that are flagged, equal opportunity those among the rows that are truly
positive, equalised odds those among the positive and among the negative ones (Hardt, Price and Srebro, NeurIPS 2016).
With several classes, each class in turn is the positive one, and a row is flagged if that class is the most likely.
Equal error compares the shares of wrong decisions, or the mean absolute errors of a regression. The pair of groups that
is furthest apart decides. All pairs have to be within the limit, so no correction for their number is needed, as for
slices in `delivery.evidence`. Several columns make a group of each combination of their values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.delivery.evidence import block_of
from mainspring.delivery.held_out import HeldOut
from mainspring.delivery.model import ROUNDING, GateResult, nothing
from mainspring.delivery.slices import Slice, intersections_of, listed
from mainspring.stats.fairness.comparing import compare
from mainspring.stats.fairness.counting import (
    ABSOLUTE,
    ERROR,
    FPR,
    SELECTION,
    TPR,
    GroupCounts,
    Measured,
    count,
)
from mainspring.stats.jackknife import FEWEST_BLOCKS, Ints, effective_blocks
from mainspring.training.gate_kinds import EQUAL_ERROR, FairnessGate

_CONDITIONS = {
    "demographic parity": (None,), "equal opportunity": (True,), "equalised odds": (True, False), EQUAL_ERROR: (None,),
}  # fmt: skip
_MEASURE = {None: SELECTION, True: TPR, False: FPR}


@dataclass(frozen=True, slots=True)
class _Question:
    """A measure that is compared between groups.

    Attributes:
        where: Which rows and which quantity, as the end of a pair's name.
        condition: True for the rows of the class in question, False for the others, `None` for all.
    """

    where: str
    measured: Measured
    condition: bool | None = None


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two groups that are furthest apart: the difference of their means, or the ratio, with its bounds."""

    name: str
    value: float
    low: float
    high: float
    rows: int


def judge_fairness(
    gate: FairnessGate, held_out: HeldOut, threshold: float | None, hidden: Collection[str] = ()
) -> GateResult:
    """Return the result of a fairness gate.

    Args:
        threshold: The candidate's; rows whose score is at least this are flagged. The gate's own comes first.
        hidden: See `slices.slices_of`.
    """
    refused = gate.refuses(held_out.task)
    if refused:
        return nothing(gate, "groups", *refused)
    scores = held_out.candidate.scores
    unknown = ~np.isfinite(scores) if held_out.task == "regression" else np.isnan(scores)
    if undefined := int((unknown.any(axis=1) if unknown.ndim == 2 else unknown).sum()):
        return nothing(
            gate, "groups", f"insufficient data: the model has no score for {undefined:,} rows (NaN or infinite)."
        )
    try:
        groups = intersections_of(held_out.table, gate.by_slice, hidden)
    except Invalid as error:
        return nothing(gate, "groups", error.what, error.fix)
    cut = gate.threshold if gate.threshold is not None else threshold
    block = block_of(gate, held_out.at)
    pairs: list[_Pair] = []
    few: list[str] = []
    unanswered = set(_CONDITIONS[gate.metric])
    for question in _questions(gate, held_out, groups, block, 0.5 if cut is None else cut):
        found, small = _furthest(gate, groups, question)
        few += small
        if found is not None:
            pairs.append(found)
            unanswered.discard(question.condition)
    need = f"a group needs {gate.least_rows:,} rows{'' if gate.sure is None else f' in {FEWEST_BLOCKS} blocks of time'}"
    if not pairs:
        shown = listed(few) if few else "there are fewer than two groups"
        return nothing(gate, "groups", f"insufficient data: {shown}; {need}.")
    worst = (min if gate.ratio else max)(pairs, key=lambda pair: pair.low if gate.ratio else pair.high)
    missing = gate.value - worst.low if gate.ratio else worst.high - gate.value
    fine, enough = missing <= ROUNDING, not unanswered and (not few or gate.insufficient == "pass")
    return GateResult(
        gate=str(gate),
        against="groups",
        value=worst.value,
        needed=gate.value,
        passed=fine and enough,
        short_by=missing if not fine else 0.0 if enough else None,
        note=f"insufficient data: {listed(few)}; {need}" if few else "",
        interval=None if gate.sure is None else (worst.low, worst.high),
        sure=gate.sure,
        slice=worst.name,
        rows=worst.rows,
    )


def _questions(
    gate: FairnessGate, held_out: HeldOut, groups: Sequence[Slice], block: Ints, cut: float
) -> Iterator[_Question]:
    """Yield the measures that the gate compares."""
    truth, scores = held_out.candidate.truth, held_out.candidate.scores
    place = np.empty(len(held_out), np.int64)
    for number, group in enumerate(groups):
        place[group.rows] = number
    names = [(group.name,) for group in groups]

    def counted(truth: npt.NDArray[Any], **rows: Any) -> GroupCounts:
        return count(("",), names, place, block, truth=truth, **rows)

    if held_out.task == "regression":
        truths, predicted = (each if each.ndim == 2 else each[:, None] for each in (truth, scores))
        for column, name in enumerate(held_out.labels or ("",)):
            measured = counted(truths[:, column], score=predicted[:, column]).measured(ABSOLUTE)
            yield _Question(f" in {name}" if name else "", measured)
        return
    several = scores.ndim == 2
    decided = scores.argmax(axis=1) if several else (scores >= cut).astype(np.int64)
    if gate.metric == EQUAL_ERROR:
        right = np.zeros(len(held_out), np.bool_)
        yield _Question("", counted(right, decided=decided != truth).measured(ERROR))
        return
    for one in range(scores.shape[1]) if several else (1,):
        counts = counted(truth == one, decided=decided == one)
        for condition in _CONDITIONS[gate.metric]:
            measured = counts.measured(_MEASURE[condition])
            yield _Question(_where(held_out, one, condition), measured, condition)


def _where(held_out: HeldOut, one: int, condition: bool | None) -> str:
    if held_out.candidate.scores.ndim == 1:
        return {None: "", True: " among positives", False: " among negatives"}[condition]
    name = held_out.classes[one] if held_out.classes else str(one)
    return {None: f" for {name}", True: f" among {name}", False: f" for {name} among others"}[condition]


def _furthest(gate: FairnessGate, groups: Sequence[Slice], question: _Question) -> tuple[_Pair | None, list[str]]:
    """Return the pair of groups that is furthest apart, and as texts which groups have insufficient data."""
    if not groups:
        return None, []
    measured = question.measured
    rows = measured.rows.sum(axis=1)
    enough = rows >= gate.least_rows
    if gate.sure is not None:
        enough &= effective_blocks(measured.rows) >= FEWEST_BLOCKS
    shown = [f"{group.name}{question.where} ({size:,.0f} rows)" for group, size in zip(groups, rows, strict=True)]
    few = [text for text, fine in zip(shown, enough, strict=True) if not fine]
    names = [group.name for group, fine in zip(groups, enough, strict=True) if fine]
    if len(names) < 2:
        return None, few
    measured, rows = measured.of(enough), rows[enough]
    if gate.ratio and not measured.sums.any():
        return None, [*few, f"{'no error' if gate.metric == EQUAL_ERROR else 'no row is flagged'}{question.where}"]
    value, low, high = compare(measured, ratio=gate.ratio, sure=gate.sure)
    bound = np.where(np.isnan(low), np.inf, low) if gate.ratio else np.where(np.isnan(high), -np.inf, high)
    a, b = np.unravel_index(int(bound.argmin() if gate.ratio else bound.argmax()), bound.shape)
    name = f"{names[a]} over {names[b]}{question.where}"
    return _Pair(name, float(value[a, b]), float(low[a, b]), float(high[a, b]), int(rows[a] + rows[b])), few
