"""Fairness of decisions and errors: rates of groups of held-out rows, judged on the bounds of their differences.

Demographic parity compares the shares of rows that are flagged, equal opportunity those among the rows that are truly
positive, equalised odds those among the positive and among the negative ones (Hardt, Price and Srebro, NeurIPS 2016).
With several classes, each class in turn is the positive one, and a row is flagged if that class is the most likely.
Equal error compares the shares of wrong decisions, or the mean absolute errors of a regression. The pair of groups that
is furthest apart decides. All pairs have to be within the limit, so no correction for their number is needed, as for
slices in `delivery.evidence`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.delivery.evidence import block_of
from mainspring.delivery.held_out import HeldOut
from mainspring.delivery.model import ROUNDING, GateResult, nothing
from mainspring.delivery.slices import Slice, listed, slices_of
from mainspring.stats.distributions import student_quantile
from mainspring.stats.jackknife import FEWEST_BLOCKS, Floats, Ints, effective_blocks, standard_errors
from mainspring.training.gate_kinds import EQUAL_ERROR, FairnessGate

_CONDITIONS = {
    "demographic parity": (None,), "equal opportunity": (True,), "equalised odds": (True, False), EQUAL_ERROR: (None,),
}  # fmt: skip
_TINY = float(np.log(np.finfo(np.float64).tiny))


@dataclass(frozen=True, slots=True)
class _Question:
    """A quantity whose mean over some rows is compared between groups.

    Attributes:
        where: Which rows and which quantity, as the end of a pair's name.
        kept: Shape (rows,): the rows that count.
        values: Shape (rows,): 0 and 1, or errors.
        counts: Whether `values` are 0 and 1.
        condition: True for the rows of the class in question, False for the others, `None` for all.
    """

    where: str
    kept: npt.NDArray[np.bool_]
    values: Floats
    counts: bool = True
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
        groups = slices_of(held_out.table, gate.by_slice[0], hidden)
    except Invalid as error:
        return nothing(gate, "groups", error.what, error.fix)
    cut = gate.threshold if gate.threshold is not None else threshold
    block = block_of(gate, held_out.at)
    pairs: list[_Pair] = []
    few: list[str] = []
    unanswered = set(_CONDITIONS[gate.metric])
    for question in _questions(gate, held_out, 0.5 if cut is None else cut):
        found, small = _furthest(gate, groups, question, block)
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


def _questions(gate: FairnessGate, held_out: HeldOut, cut: float) -> Iterator[_Question]:
    """Yield the means that the gate compares."""
    truth, scores = held_out.candidate.truth, held_out.candidate.scores
    every = np.ones(len(held_out), np.bool_)
    if held_out.task == "regression":
        errors = np.abs(scores - truth)
        errors = errors if errors.ndim == 2 else errors[:, None]
        for place, name in enumerate(held_out.labels or ("",)):
            yield _Question(f" in {name}" if name else "", every, errors[:, place], counts=False)
        return
    several = scores.ndim == 2
    decided = scores.argmax(axis=1) if several else (scores >= cut).astype(np.int64)
    if gate.metric == EQUAL_ERROR:
        yield _Question("", every, (decided != truth).astype(np.float64))
        return
    for one in range(scores.shape[1]) if several else (1,):
        for condition in _CONDITIONS[gate.metric]:
            kept = every if condition is None else (truth == one) == condition
            flagged = (decided == one).astype(np.float64)
            yield _Question(_where(held_out, one, condition), kept, flagged, condition=condition)


def _where(held_out: HeldOut, one: int, condition: bool | None) -> str:
    if held_out.candidate.scores.ndim == 1:
        return {None: "", True: " among positives", False: " among negatives"}[condition]
    name = held_out.classes[one] if held_out.classes else str(one)
    return {None: f" for {name}", True: f" among {name}", False: f" for {name} among others"}[condition]


def _furthest(
    gate: FairnessGate, groups: Sequence[Slice], question: _Question, block: Ints
) -> tuple[_Pair | None, list[str]]:
    """Return the pair of groups that is furthest apart, and as texts which groups have insufficient data."""
    if not groups:
        return None, []
    blocks, kept, values = int(block.max(initial=-1)) + 1, question.kept, question.values
    parts = [group.rows[kept[group.rows]] for group in groups]
    rows = np.array([np.bincount(block[part], minlength=blocks) for part in parts], np.float64)
    enough = rows.sum(axis=1) >= gate.least_rows
    if gate.sure is not None:
        enough &= effective_blocks(rows) >= FEWEST_BLOCKS
    shown = [f"{group.name}{question.where} ({len(part):,} rows)" for group, part in zip(groups, parts, strict=True)]
    few = [text for text, fine in zip(shown, enough, strict=True) if not fine]
    parts = [part for part, fine in zip(parts, enough, strict=True) if fine]
    names = [group.name for group, fine in zip(groups, enough, strict=True) if fine]
    if len(names) < 2:
        return None, few
    rows = rows[enough]
    sums = np.array([np.bincount(block[part], values[part], blocks) for part in parts])
    if gate.ratio and not sums.any():
        return None, [*few, f"{'no error' if gate.metric == EQUAL_ERROR else 'no row is flagged'}{question.where}"]
    spread = np.array([values[part].var() / part.size for part in parts])
    with np.errstate(invalid="ignore"):  # without its only block a group has no rate
        rate = (sums.sum(axis=1, keepdims=True) - np.c_[np.zeros(len(names)), sums]) / (
            rows.sum(axis=1, keepdims=True) - np.c_[np.zeros(len(names)), rows]
        )
    value, low, high = (_ratios if gate.ratio else _differences)(gate, question, rate, rows, sums, spread)
    bound = np.where(np.isnan(low), np.inf, low) if gate.ratio else np.where(np.isnan(high), -np.inf, high)
    a, b = np.unravel_index(int(bound.argmin() if gate.ratio else bound.argmax()), bound.shape)
    name = f"{names[a]} over {names[b]}{question.where}"
    size = int(rows[a].sum() + rows[b].sum())
    return _Pair(name, float(value[a, b]), float(low[a, b]), float(high[a, b]), size), few


def _differences(
    gate: FairnessGate, question: _Question, rate: Floats, rows: Floats, sums: Floats, spread: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the difference of each pair of rates with its bounds, shape (groups, groups); NaN with itself."""
    size, total = rows.sum(axis=1), sums.sum(axis=1)
    smooth = (total + 1) / (size + 2)  # a group without a flagged row does not have an error of zero
    apart = rate[:, None, :] - rate[None, :, :]
    half = _half(gate, apart, rows, smooth * (1 - smooth) / (size + 2) if question.counts else spread)
    value = np.where(np.eye(size.size, dtype=np.bool_), nan, apart[..., 0])
    return value, value - half, value + half


def _ratios(
    gate: FairnessGate, question: _Question, rate: Floats, rows: Floats, sums: Floats, spread: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the ratio of each pair of rates; its bounds are those of the logarithm.

    The shape is (groups, groups); NaN with itself, and where the second rate is 0.
    """
    size, total = rows.sum(axis=1), sums.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(rate > 0, np.log(rate), nan)
        value = rate[:, None, 0] / rate[None, :, 0]
        relative = spread / rate[:, 0] ** 2
    smooth = np.log((total + 0.5) / (size + 0.5)) if question.counts else np.full(total.size, _TINY)
    known = np.asarray(np.where(np.all(np.isfinite(logs), axis=1, keepdims=True), logs, smooth[:, None]))
    apart = known[:, None, :] - known[None, :, :]
    floor = 1 / (total + 0.5) - 1 / (size + 0.5) if question.counts else np.where(total > 0, relative, 0.0)
    undefined = np.eye(size.size, dtype=np.bool_) | (total == 0)[None, :]
    value = np.where(undefined, nan, value)
    if gate.sure is None:
        return value, value, value
    half = _half(gate, apart, rows, floor)
    low, high = (np.where(undefined, nan, np.exp(apart[..., 0] + side)) for side in (-half, half))
    return value, low, high


def _half(gate: FairnessGate, apart: Floats, rows: Floats, floor: Floats) -> Floats:
    """Return half the width of each pair's interval: by blocks of time, at least as wide as for independent rows."""
    if gate.sure is None:
        return np.zeros(apart.shape[:2])
    sizes = rows.sum(axis=0)
    filled = sizes > 0
    by_block = standard_errors(apart[..., np.r_[True, filled]], sizes[filled])
    error = np.maximum(by_block, np.sqrt(floor[:, None] + floor[None, :]))
    alone = [student_quantile(gate.sure, blocks - 1) for blocks in effective_blocks(rows).tolist()]
    return np.asarray(np.maximum.outer(alone, alone) * error)  # the group with fewer blocks is the less certain
