"""Evidence from labels. A prediction counts once, when it is as old as the horizon, with the label known by then.

A prediction without a label by then is an event of its own, compared between the arms: so an arm whose labels come
sooner wins nothing by it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.time import DAY, HOUR, SECOND
from mainspring.delivery.rollout.guards import QUALITY, Guard
from mainspring.delivery.rollout.model import Counts, Evidence, RolloutState, Sums
from mainspring.delivery.rollout.plan import Plan
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring.joins import join_labels
from mainspring.monitoring.model import LabelRows
from mainspring.stats.sequential.counting import first_of_units
from mainspring.stats.sequential.means import Bounds, bounds_of

UNLABELLED = "no label"
HORIZON = DAY  # of labels that neither mature nor are declared within a time
FEWEST = 30  # of the champion's values, to fix their bounds
_LAG = 10 * SECOND  # until a prediction is in the store
_OFTEN = 200  # looks at labels within a horizon
_LEAST = 1e-4  # probability, so that a logarithm is finite
_BOUNDS = {
    "error": Bounds(0.0, 1.0, 0.25),
    "brier": Bounds(0.0, 1.0, 0.2),
    "log_loss": Bounds(0.0, -float(np.log(_LEAST)), 0.5),
}

_TYPES: dict[str, pa.DataType] = {
    "id": pa.string(),
    "candidate": pa.bool_(),
    "share": pa.float64(),
    "hour": pa.int64(),
    "unit": pa.int64(),
}
_ARMS = pa.schema(list(_TYPES.items()))

Floats = npt.NDArray[np.float64]


def horizon(plan: Plan, labels: LabelRows) -> int:
    """Return the age at which predictions count, in µs: the longest that a guard or goal declares."""
    matures = [each.label.matures_us for each in labels.each if each.label.matures_us]
    declared = [guard.within_us for guard in (*plan.guards, *plan.goals) if guard.labelled]
    return max(max(matures, default=HORIZON) if within is None else within for within in declared)


def bounds(guard: Guard, evidence: Evidence) -> Bounds | None:
    """Return the bounds of a guard's values, `None` while too few are known."""
    if guard.kind == QUALITY and guard.metric in _BOUNDS:
        return _BOUNDS[guard.metric]
    cuts = evidence.cuts.get(guard.name)
    return None if cuts is None else Bounds(*cuts)


def labelled(state: RolloutState, evidence: Evidence, log: PredictionStore, labels: LabelRows, now: int) -> Evidence:
    """Return the evidence with the predictions that have become as old as the horizon.

    Args:
        now: By the clock that dates predictions, UTC epoch microseconds.
    """
    guards = [guard for guard in (*state.plan.guards, *state.plan.goals) if guard.labelled]
    if not guards or state.began_at is None:
        return evidence
    age = horizon(state.plan, labels)
    since = state.began_at if evidence.labelled_until is None else evidence.labelled_until
    until = now - age - _LAG
    if until - since < max(SECOND, age // _OFTEN):
        return evidence
    arms = _assigned(state, log, since, until)
    if state.plan.assign == "key":  # a unit stays in its arm, and counts once
        first, seen = first_of_units(arms["unit"].to_numpy(), evidence.seen.get(UNLABELLED, b""))
        arms = arms.filter(pa.array(first))
        evidence = msgspec.structs.replace(evidence, seen={**evidence.seen, UNLABELLED: seen})
    evidence = msgspec.structs.replace(evidence, labelled_until=until)
    if not arms.num_rows:
        return evidence
    predictions = log.read(state.endpoint, since, until)
    ours = predictions.filter(pc.is_in(predictions["id"], arms["id"].combine_chunks()))
    known = join_labels(ours, labels, now)
    known = known.filter(pa.array(_numbers(known["lag_us"]) <= age))
    missing = arms.filter(pc.invert(pc.is_in(arms["id"], known["id"].combine_chunks())))
    events = {**evidence.events, UNLABELLED: _counted(evidence.events.get(UNLABELLED, ()), missing)}
    evidence = msgspec.structs.replace(evidence, events=events)
    joined = known.select(["id", "score", "label"]).join(arms, "id").combine_chunks()
    for guard in guards:
        evidence = _with(evidence, guard, joined)
    return evidence


def _assigned(state: RolloutState, log: PredictionStore, since: int, until: int) -> pa.Table:
    """Return `id`, `candidate` (Boolean), `share`, `hour` and `unit` of requests made in `[since, until)`."""
    found = log.observations(state.id, since=since)
    parts = [_ARMS.empty_table()]
    for table in found.batches if found is not None else ():
        at = np.asarray(table["at"].cast(pa.int64()).to_numpy(), dtype=np.int64)
        names = ("row", "status", "weight", "unit")
        row, status, weight, unit = (np.asarray(table[name].to_numpy()) for name in names)
        kept = (at < until) & (row == 0) & (status == 200)
        candidate = np.asarray(table["version"].to_pylist(), dtype=object) == state.candidate
        share = np.round(np.where(candidate, weight, 1 - weight), 6)
        columns = [table["id"].filter(pa.array(kept)), *(each[kept] for each in (candidate, share, at // HOUR, unit))]
        parts.append(pa.table(columns, names=_ARMS.names).cast(_ARMS))
    return pa.concat_tables(parts)


def _counted(before: tuple[Counts, ...], rows: pa.Table) -> tuple[Counts, ...]:
    found = {each.share: each for each in before}
    shares, arms = _numbers(rows["share"]), _numbers(rows["candidate"]) > 0
    for share in np.unique(shares).tolist():
        mine, here = found.get(share, Counts(share)), shares == share
        found[share] = Counts(
            share, mine.candidate + int((here & arms).sum()), mine.control + int((here & ~arms).sum())
        )
    return tuple(found[share] for share in sorted(found))


def _with(evidence: Evidence, guard: Guard, joined: pa.Table) -> Evidence:
    """Return the evidence with the values of a guard; the first of the champion's only fix their bounds."""
    values = _values(guard, joined)
    candidate = _numbers(joined["candidate"]) > 0
    finite = np.isfinite(values)
    limits = bounds(guard, evidence)
    if limits is None:
        control = values[finite & ~candidate]
        if control.size < FEWEST or control.min() == control.max():
            return evidence
        made = bounds_of(control)
        return msgspec.structs.replace(evidence, cuts={**evidence.cuts, guard.name: (made.low, made.high, made.centre)})
    share, hour = _numbers(joined["share"]), _numbers(joined["hour"])
    found = {(each.share, each.hour): each for each in evidence.sums.get(guard.name, ())}
    for key in sorted(set(zip(share[finite].tolist(), hour[finite].tolist(), strict=True))):
        mine = finite & (share == key[0]) & (hour == key[1])
        before = found.get((key[0], int(key[1])), Sums(key[0], int(key[1])))
        found[key[0], int(key[1])] = Sums(
            before.share,
            before.hour,
            _plus(before.candidate, limits.sums(values[mine & candidate])),
            _plus(before.control, limits.sums(values[mine & ~candidate])),
        )
    sums = tuple(found[key] for key in sorted(found))
    return msgspec.structs.replace(evidence, sums={**evidence.sums, guard.name: sums})


def _plus(before: tuple[int, float, float], more: Floats) -> tuple[int, float, float]:
    return before[0] + int(more[0]), before[1] + float(more[1]), before[2] + float(more[2])


def _values(guard: Guard, joined: pa.Table) -> Floats:
    """Return the value of each row, larger is worse; shape (rows,)."""
    score, label = (_columns(joined[name]) for name in ("score", "label"))
    if guard.kind != QUALITY:
        chosen = label.get(guard.metric, next(iter(label.values())))
        return np.asarray(-chosen) if guard.higher_is_better else chosen
    losses = [_loss(guard.metric, score[name], label[name]) for name in label]
    return np.asarray(np.mean(losses, axis=0))


def _loss(metric: str, score: Floats, label: Floats) -> Floats:
    if metric == "error":
        return np.asarray((score >= 0.5) != (label >= 0.5), dtype=np.float64)
    if metric == "brier":
        return np.asarray((score - label) ** 2)
    if metric == "log_loss":
        likely = np.clip(np.where(label >= 0.5, score, 1 - score), _LEAST, 1.0)
        return np.asarray(-np.log(likely))
    return np.asarray(np.abs(score - label) if metric == "absolute_error" else (score - label) ** 2)


def _numbers(column: Any) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _columns(column: Any) -> dict[str, Floats]:
    """Return name -> numbers: one column has the name "", several are a struct of them."""
    whole = column.combine_chunks()
    if isinstance(whole.type, pa.StructType):
        parts = {each.name: whole.field(each.name) for each in whole.type}
    else:
        parts = {"": whole}
    return {name: _numbers(pa.chunked_array([each])) for name, each in parts.items()}
