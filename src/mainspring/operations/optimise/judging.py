"""Quality of a variant beside its parent's on the same held-out rows, and the gates that its predictions decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.core.time import DAY
from mainspring.delivery.evidence import values_by_block
from mainspring.delivery.gates import BASELINE, direction
from mainspring.delivery.held_out import HeldOut, read_held_out, score_held_out
from mainspring.delivery.model import GateResult
from mainspring.delivery.verdicts import verdicts
from mainspring.operations.optimise.model import PARENT, Quality
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.stats.jackknife import estimate, time_blocks
from mainspring.stats.metrics import Metric, metrics_of
from mainspring.training.gate_kinds import FairnessGate, RobustGate
from mainspring.training.model import Model

_SURE = 0.95


def metric_of(declared: Model | None, task: str) -> tuple[str, bool]:
    """Return the metric by which variants are judged, and whether higher is better: that of the model's first gate on
    one, else its search's, else its task's first.
    """
    more: Sequence[Metric] = ()
    names = [*metrics_of(task)]
    if declared is not None:
        more = declared.measured
        of_gates = [gate.metric for gate in declared.gates if gate.on_metric]
        names = [*of_gates, *([declared.search.metric] if declared.search else []), *names]
    return names[0], direction(names[0], more)


def side_by_side(variant: Bundle, parent: Bundle, declared: Model | None) -> HeldOut:
    """Return the variant's held-out rows with its predictions and its parent's."""
    more, threshold = ((), None) if declared is None else (declared.measured, declared.threshold)
    table = read_held_out(variant)
    return score_held_out(variant, table=table, champion=(parent, table), more=more, threshold=threshold)


def quality_of(rows: HeldOut, metric: str, *, higher: bool, declared: Model | None = None) -> Quality:
    """Return the quality of the candidate of `rows` beside the other side's.

    Args:
        declared: Its gate on the metric says how long the blocks of time are that count as independent.

    Raises:
        NotConvertible: The metric has no value.
    """
    gates = () if declared is None else declared.gates
    length = next((gate.block for gate in gates if gate.on_metric and gate.metric == metric and gate.block), DAY)
    block = time_blocks(rows.at, length)
    sides = (rows.candidate, rows.other or rows.candidate)
    ours, theirs = (values_by_block(metric, side, rows.labels, block) for side in sides)
    losses = (theirs - ours) if higher else (ours - theirs)
    if not np.isfinite((ours[0], losses[0])).all():
        odd = int((~np.isfinite(rows.candidate.scores)).reshape(len(rows), -1).any(axis=1).sum())
        raise NotConvertible(
            f"The metric {metric} has no value on its {len(rows):,} held-out rows; in {odd:,} its answers are not "
            "finite."
        )
    found = estimate(losses, block)
    low, high = found.bounds(_SURE) if found.known else (None, None)
    return Quality(value=float(ours[0]), loss=float(losses[0]), loss_low=low, loss_high=high)


def with_metrics(variant: Bundle, declared: Model | None) -> Bundle:
    """Return a variant whose manifest has the metrics of its own predictions; those of the baseline stay."""
    more, threshold = ((), None) if declared is None else (declared.measured, declared.threshold)
    rows = score_held_out(variant, more=more, threshold=threshold)
    sides = {"": rows.candidate, **({} if rows.other is None else {BASELINE: rows.other})}
    found = {f"{prefix}{name}": value for prefix, side in sides.items() for name, value in rows.metrics(side).items()}
    recorded = {name: value for name, value in variant.manifest.metrics.items() if name.startswith(BASELINE)}
    return replace(variant, manifest=msgspec.structs.replace(variant.manifest, metrics={**recorded, **found}))


def judge_gates(measured: Bundle, declared: Model, parent: Bundle | None = None) -> tuple[GateResult, ...]:
    """Return the results of the gates that predictions decide.

    Args:
        measured: As `with_metrics` returns it.
        parent: Taken as the champion; `None` for no champion.
    """
    from mainspring.operations.models.cards import personal

    gates = [gate for gate in declared.gates if gate.on_metric or isinstance(gate, (FairnessGate, RobustGate))]
    champion = None if parent is None else ModelVersion(declared.name, PARENT, parent.digest, "", 0)
    live = measured if parent is None else parent
    return verdicts(gates, measured, champion, lambda _: live, None, declared.measured, declared.threshold, personal)
