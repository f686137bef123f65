"""Fairness of a binary model's decisions: rates of groups of held-out rows, judged on the bounds of their differences.

Demographic parity compares the shares of rows that are flagged, equal opportunity those among the rows that are truly
positive, equalised odds those among the positive and among the negative ones (Hardt, Price and Srebro, NeurIPS 2016).
The pair of groups that is furthest apart decides. All pairs have to be within the limit, so no correction for their
number is needed, as for slices in `delivery.evidence`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.delivery.evidence import block_of
from mainspring.delivery.held_out import HeldOut
from mainspring.delivery.model import ROUNDING, GateResult, nothing
from mainspring.delivery.slices import Slice, listed, slices_of
from mainspring.stats.distributions import student_quantile
from mainspring.stats.jackknife import FEWEST_BLOCKS, Floats, Ints, standard_errors
from mainspring.training.gate_kinds import FairnessGate

_CONDITIONS = {"demographic parity": (None,), "equal opportunity": (1,), "equalised odds": (1, 0)}
_AGAINST = {None: "", 1: " among positives", 0: " among negatives"}


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two groups' rates compared: the difference, or the logarithm of the ratio, with its bound."""

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
    if held_out.task != "binary":
        return nothing(gate, "groups", f"the task {held_out.task!r} has no flagged rows.", "use it for a binary task.")
    try:
        groups = slices_of(held_out.table, gate.by_slice[0], hidden)
    except Invalid as error:
        return nothing(gate, "groups", error.what, error.fix)
    cut = gate.threshold if gate.threshold is not None else threshold
    flagged = held_out.candidate.scores >= (0.5 if cut is None else cut)
    truth = held_out.candidate.truth.astype(np.int64)
    pairs: list[_Pair] = []
    few: list[str] = []
    for condition in _CONDITIONS[gate.metric]:
        kept = np.ones(truth.size, np.bool_) if condition is None else truth == condition
        found, small = _pairs(gate, groups, kept, flagged, block_of(gate, held_out.at), _AGAINST[condition])
        pairs, few = pairs + found, few + small
    need = f"a group needs {gate.least_rows:,} rows{'' if gate.sure is None else f' in {FEWEST_BLOCKS} blocks of time'}"
    if not pairs:
        shown = listed(few) if few else "there are fewer than two groups, or no row is flagged"
        return nothing(gate, "groups", f"insufficient data: {shown}; {need}.")
    worst = (min if gate.ratio else max)(pairs, key=lambda pair: pair.low if gate.ratio else pair.high)
    missing = gate.value - worst.low if gate.ratio else worst.high - gate.value
    fine, enough = missing <= ROUNDING, not few or gate.insufficient == "pass"
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


def _pairs(
    gate: FairnessGate, groups: Sequence[Slice], kept: np.ndarray, flagged: np.ndarray, block: Ints, where: str
) -> tuple[list[_Pair], list[str]]:
    """Return the comparison of each pair of groups with enough rows, and the groups with too few."""
    if not groups:
        return [], []
    blocks = int(block.max(initial=-1)) + 1
    parts = [group.rows[kept[group.rows]] for group in groups]
    rows = np.array([np.bincount(block[part], minlength=blocks) for part in parts], np.float64)
    hits = np.array([np.bincount(block[part], flagged[part], blocks) for part in parts])
    enough = rows.sum(axis=1) >= gate.least_rows
    if gate.sure is not None:
        enough &= (rows > 0).sum(axis=1) >= FEWEST_BLOCKS
    shown = [f"{group.name}{where} ({len(part):,} rows)" for group, part in zip(groups, parts, strict=True)]
    few = [text for text, fine in zip(shown, enough, strict=True) if not fine]
    names = [group.name for group, fine in zip(groups, enough, strict=True) if fine]
    if len(names) < 2:
        return [], few
    rows, hits = rows[enough], hits[enough]
    with np.errstate(invalid="ignore"):  # without its only block a group has no rate
        rate = (hits.sum(axis=1, keepdims=True) - np.c_[np.zeros(len(names)), hits]) / (
            rows.sum(axis=1, keepdims=True) - np.c_[np.zeros(len(names)), rows]
        )
    return (_ratios if gate.ratio else _differences)(gate, names, rate, rows, hits, where), few


def _differences(
    gate: FairnessGate, names: Sequence[str], rate: Floats, rows: Floats, hits: Floats, where: str
) -> list[_Pair]:
    """Return each pair's difference of rates, the higher one first."""
    size, total = rows.sum(axis=1), hits.sum(axis=1)
    smooth = (total + 1) / (size + 2)  # a group without a flagged row does not have an error of zero
    floor = smooth * (1 - smooth) / (size + 2)
    apart = rate[:, None, :] - rate[None, :, :]
    half = _half(gate, apart, rows, floor)
    return [
        _Pair(
            f"{names[a]} over {names[b]}{where}",
            float(apart[a, b, 0]),
            float(apart[a, b, 0] - half[a, b]),
            float(apart[a, b, 0] + half[a, b]),
            int(size[a] + size[b]),
        )
        for a in range(len(names))
        for b in range(len(names))
        if a != b and (apart[a, b, 0] > 0 or (apart[a, b, 0] == 0 and a < b) or gate.sure is not None)
    ]


def _ratios(
    gate: FairnessGate, names: Sequence[str], rate: Floats, rows: Floats, hits: Floats, where: str
) -> list[_Pair]:
    """Return each pair's ratio of rates; its bounds are those of the logarithm."""
    size, total = rows.sum(axis=1), hits.sum(axis=1)
    if not total.any():
        return []
    smooth = np.log((total + 0.5) / (size + 0.5))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(rate > 0, np.log(rate), nan)
        shares = rate[:, None, 0] / rate[None, :, 0]
    known = np.asarray(np.where(np.all(np.isfinite(logs), axis=1, keepdims=True), logs, smooth[:, None]))
    apart = known[:, None, :] - known[None, :, :]
    floor = 1 / (total + 0.5) - 1 / (size + 0.5)
    half = _half(gate, apart, rows, floor)
    return [
        _Pair(
            f"{names[a]} over {names[b]}{where}",
            float(shares[a, b]),
            float(shares[a, b]) if gate.sure is None else float(np.exp(apart[a, b, 0] - half[a, b])),
            float(shares[a, b]) if gate.sure is None else float(np.exp(apart[a, b, 0] + half[a, b])),
            int(size[a] + size[b]),
        )
        for a in range(len(names))
        for b in range(len(names))
        if a != b and total[b] > 0
    ]


def _half(gate: FairnessGate, apart: Floats, rows: Floats, floor: Floats) -> Floats:
    """Return half the width of each pair's interval: by blocks of time, at least as wide as for independent rows."""
    if gate.sure is None:
        return np.zeros(apart.shape[:2])
    sizes = rows.sum(axis=0)
    filled = sizes > 0
    by_block = standard_errors(apart[..., np.r_[True, filled]], sizes[filled])
    error = np.maximum(by_block, np.sqrt(floor[:, None] + floor[None, :]))
    return np.asarray(student_quantile(gate.sure, int(filled.sum()) - 1) * error)
