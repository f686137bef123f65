"""Gates judged on the held-out rows themselves: with an interval, by slice, or both.

A gate with `sure` passes if the bound of every slice does. That needs no correction for the number of slices: a version
with one bad slice passes only if that slice's own bound is wrong (intersection-union test; Berger, Technometrics 24,
1982). A gate with `harm` fails if any slice is shown to fall short, so Holm's procedure corrects for their number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, format_duration
from mainspring.delivery.held_out import HeldOut, Scored
from mainspring.delivery.model import ROUNDING, GateResult, nothing
from mainspring.delivery.slices import Slice, listed, slices_of
from mainspring.stats.jackknife import FEWEST_BLOCKS, Estimate, Floats, Ints, estimate, holm, leave_out, time_blocks
from mainspring.stats.metrics import MetricFailed, measure
from mainspring.training.gate_kinds import Gate

_WHOLE = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A slice's value beside what is needed.

    Attributes:
        value: With the standard error of its difference to `needed`, unknown without `sure` and `harm`.
        sign: 1 if higher values pass, -1 if lower ones do.
        limit: Whether `needed` is a fixed limit; else it is another model's value on the same rows.
        known: Whether there are enough data for a verdict.
    """

    slice: str
    rows: int
    value: Estimate
    needed: float
    sign: int
    limit: bool
    known: bool

    def interval(self, sure: float) -> tuple[float, float]:
        """Return the bounds of the value, each of which holds with probability `sure`."""
        return self.value.bounds_within_one(sure) if self.limit else self.value.bounds(sure)

    def gain(self, sure: float | None) -> float:
        """Return by how much the value, or its bound, is better than needed."""
        if sure is None:
            return self.sign * (self.value.value - self.needed)
        low, high = self.interval(sure)
        return low - self.needed if self.sign > 0 else self.needed - high

    @property
    def chance(self) -> float:
        """The p-value of "the value is at least as good as needed": small if it is shown to fall short."""
        return Estimate(-self.gain(None), self.value.error, self.value.blocks).chance_below(0.0)


def judge_rows(
    gate: Gate, held_out: HeldOut, against: str, *, higher: bool, margin: float = 0.0, hidden: Collection[str] = ()
) -> list[GateResult]:
    """Return the results of a gate on a metric: one, or one for each column of slices.

    Args:
        held_out: Its other side is what the gate compares with; without one, the gate's value is the limit.
        higher: Whether higher values pass.
        margin: By how much the value must be better than the other side's; negative if it may be worse.
        hidden: See `slices.slices_of`.
    """
    columns: list[tuple[str, list[Slice]]] = [(_WHOLE, [Slice(_WHOLE, np.arange(len(held_out)))])]
    if gate.by_slice:
        try:
            columns = [(name, slices_of(held_out.table, name, hidden)) for name in gate.by_slice]
        except Invalid as error:
            return [nothing(gate, against, error.what, error.fix)]
    sign = 1 if higher else -1
    try:
        measured = [[_measure(gate, held_out, each, sign, margin) for each in slices] for _, slices in columns]
    except MetricFailed as error:
        return [nothing(gate, against, error.what, error.fix)]
    failing = _failing(gate, [each for found in measured for each in found if each.known])
    return [_result(gate, against, name, found, failing) for (name, _), found in zip(columns, measured, strict=True)]


def block_of(gate: Gate, at: Ints) -> Ints:
    """Return the block of time of each row; see `stats.jackknife.time_blocks`."""
    return time_blocks(at, gate.block or DAY)


def _measure(gate: Gate, held_out: HeldOut, part: Slice, sign: int, margin: float) -> Measured:
    candidate, other, at = held_out.candidate, held_out.other, held_out.at
    if part.name != _WHOLE:  # the table stays as it is: of 2,000 columns none is needed any more
        candidate, other, at = candidate.rows(part.rows), other and other.rows(part.rows), at[part.rows]
    block = block_of(gate, at) if gate.bounded else None
    ours = values_by_block(gate.metric, candidate, held_out.labels, block)
    needed = np.full(ours.size, gate.value)
    if other is not None:
        needed = values_by_block(gate.metric, other, held_out.labels, block) + sign * margin
    value, enough = Estimate(float(ours[0]), nan, 0), part.name == _WHOLE or at.size >= gate.least_rows
    known = enough and isfinite(ours[0]) and isfinite(needed[0])
    if block is not None:
        with np.errstate(invalid="ignore"):  # of two infinite errors
            of_gain = estimate(ours - needed, block)
        value, known = Estimate(value.value, of_gain.error, of_gain.blocks), enough and of_gain.known
    return Measured(part.name, int(at.size), value, float(needed[0]), sign, other is None, known)


def values_by_block(name: str, side: Scored, labels: Sequence[str], block: Ints | None) -> Floats:
    """Return a metric of all rows, then of the rows without each block; NaN where undefined."""
    metric, columns = side.metric(name), [(side.truth, side.scores)]
    if labels:
        plain, _, label = name.rpartition(".")
        named = tuple(labels) if metric is not None else (label,)
        metric = metric or side.metric(plain)
        places = [tuple(labels).index(each) for each in named if each in labels]
        columns = [(side.truth[:, place], side.scores[:, place]) for place in places]
    if metric is None or not columns:
        return np.full(1 + (0 if block is None else int(block.max(initial=-1)) + 1), nan)
    if block is None:
        return np.array([np.mean([measure(metric, *each) for each in columns])])
    return np.asarray(np.mean([leave_out(metric, *each, block) for each in columns], axis=0))


def _failing(gate: Gate, known: Sequence[Measured]) -> set[str]:
    """Return the slices that fall short."""
    if gate.harm is None:
        return {each.slice for each in known if each.gain(gate.sure) < -ROUNDING}
    shown = holm([each.chance for each in known], 1.0 - gate.harm)
    return {each.slice for each, short in zip(known, shown, strict=True) if short}


def _result(gate: Gate, against: str, column: str, found: Sequence[Measured], failing: Collection[str]) -> GateResult:
    known, few = [each for each in found if each.known], [each for each in found if not each.known]
    if not known:
        return nothing(gate, against, _insufficient(gate, few) or f"the column {column} has no rows.")
    worst = min(known, key=(lambda each: each.gain(gate.sure)) if gate.harm is None else (lambda each: each.chance))
    short = [each.slice for each in known if each.slice in failing and each is not worst]
    fine, enough = not any(each.slice in failing for each in known), not few or gate.insufficient == "pass"
    notes = [f"also short: {listed(short)}"] if short else []
    notes += [_insufficient(gate, few)] if few else []
    chance = gate.sure or gate.harm
    return GateResult(
        gate=str(gate),
        against=against,
        value=worst.value.value,
        needed=worst.needed,
        passed=fine and enough,
        short_by=-worst.gain(gate.sure) if not fine else 0.0 if enough else None,
        note="; ".join(notes),
        interval=None if chance is None else worst.interval(chance),
        sure=chance,
        slice=worst.slice,
        rows=worst.rows,
    )


def _insufficient(gate: Gate, few: Sequence[Measured]) -> str:
    """Return which data are missing, as text; empty if none."""
    if not few:
        return ""
    if not few[0].slice:
        each, length = few[0], format_duration(gate.block or DAY)
        if not isfinite(each.value.value) or not isfinite(each.needed):
            side = "candidate" if not isfinite(each.value.value) else "other side"
            return f"the {side} has no {gate.metric} on the held-out rows."
        return (
            f"insufficient data: the held-out rows count as {each.value.blocks} equal blocks of {length}, and at least "
            f"{FEWEST_BLOCKS} that all define {gate.metric} are needed; hold out a longer time, or shorten the block."
        )
    named = listed([f"{each.slice} ({each.rows:,} rows)" for each in few])
    return f"insufficient data for {gate.metric}: {named}; a slice needs {gate.least_rows:,} rows" + (
        "" if gate.sure is None and gate.harm is None else f" in {FEWEST_BLOCKS} blocks of time"
    )
