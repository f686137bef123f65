"""Evidence from labels. A prediction counts once, when it is as old as the horizon, with the label known by then.

Each guard and goal has a horizon of its own. A prediction without a label by then is an event of its own, compared
between the arms: so an arm whose labels come sooner wins nothing by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.delivery.rollout.guards import OUTCOME, QUALITY, Guard
from mainspring.delivery.rollout.losses import RANGES, USUAL, values_of
from mainspring.delivery.rollout.model import Cells, Counts, Evidence, RolloutState
from mainspring.delivery.rollout.plan import Plan
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring.joins import OUTPUTS, distinct, join_labels, known_through
from mainspring.monitoring.model import LabelRows
from mainspring.stats.sequential.counting import NEVER, LabelState, first_of_units, label_states
from mainspring.stats.sequential.means import Bounds, bounds_of

UNLABELLED = "no label"
FEWEST = 30  # of the champion's values, to fix their bounds
LAG = 10 * SECOND  # until a prediction is in the store
_OFTEN = 200  # looks at labels within a horizon
ENOUGH = 500  # predictions of the champion before the rollout that fix bounds
_BEND = " bend"  # ends the name of where values begin to count by their logarithm
BEFORE = (10 * MINUTE, HOUR, DAY, 7 * DAY)  # spans in which these are looked for

_READ = ("id", "version", "at", "keys", "score", OUTPUTS)
_TYPES: dict[str, pa.DataType] = {
    "id": pa.string(),
    "at": pa.int64(),
    "candidate": pa.bool_(),
    "share": pa.float64(),
    "unit": pa.int64(),
}
ARMS = pa.schema(list(_TYPES.items()))
_NOTHING = pa.schema(
    [
        (name, pa.timestamp("us", tz="UTC") if name == "at" else pa.float64() if name == "score" else pa.string())
        for name in _READ
    ]
)

Floats = npt.NDArray[np.float64]


class Horizon(NamedTuple):
    """Guards and goals that count a prediction at the same age, by the same labels.

    Attributes:
        column: The label's column; empty for all labels of the model.
        within_us: The declared age; `None` for that at which the labels mature.
    """

    column: str
    within_us: int | None
    guards: tuple[Guard, ...]

    @property
    def name(self) -> str:
        """Name of its predictions without a label, among events."""
        within = "" if self.within_us is None else str(self.within_us)
        return " ".join(filter(None, (UNLABELLED, self.column, within)))

    def of(self, labels: LabelRows) -> tuple[LabelRows, int]:
        """Return the labels as a prediction of the horizon's age has them, and that age in µs."""
        chosen = [each for each in labels.each if each.label.column == self.column] or list(labels.each)
        rows = replace(chosen[0], others=tuple(chosen[1:]))
        age = rows.horizon_us if self.within_us is None else self.within_us
        first, *others = (replace(each, label=each.label.known_after(age)) for each in chosen)
        return replace(first, others=tuple(others)), age


def horizons(plan: Plan) -> list[Horizon]:
    """Return the horizons of a plan; a guard and a goal on the same values are counted once."""
    found: dict[tuple[str, int | None], dict[str, Guard]] = {}
    for guard in (*plan.guards, *plan.goals):
        if guard.labelled:
            column = guard.metric if guard.kind == OUTCOME else ""
            found.setdefault((column, guard.within_us), {}).setdefault(counted_as(guard), guard)
    return [Horizon(*key, tuple(each.values())) for key, each in found.items()]


def counted_as(guard: Guard) -> str:
    """Return the name under which the values of a guard or goal are counted."""
    within = "" if guard.within_us is None else f" {guard.within_us}"
    return f"{guard.name}{' higher' if guard.higher_is_better else ''}{within}"


def bounds(guard: Guard, evidence: Evidence) -> Bounds | None:
    """Return the bounds of a guard's values, `None` while too few are known."""
    cuts = evidence.cuts.get(counted_as(guard))
    if cuts is None:
        return None
    bend = evidence.cuts.get(f"{counted_as(guard)}{_BEND}")
    return Bounds(cuts[0], cuts[1], cuts[2], tuple(cuts[3:]), None if bend is None else (bend[0], bend[1]))


def history_bounds(guard: Guard, values: Floats) -> Bounds:
    """Return bounds of a guard's values by those of the champion. Of a loss or a Boolean they are known; values of
    others that are worse than all of the champion's count by their logarithm."""
    finite = values[np.isfinite(values)]
    two = np.unique(np.abs(finite)).tolist() == [0.0, 1.0]
    known = RANGES.get(guard.metric) if guard.kind == QUALITY else None
    return bounds_of(values, known=known, tolerance=None if two else guard.tolerance)


def labelled(state: RolloutState, evidence: Evidence, log: PredictionStore, labels: LabelRows, now: int) -> Evidence:
    """Return the evidence with the predictions that have become as old as the horizons of their guards.

    Args:
        now: By the clock that dates predictions, UTC epoch microseconds.
    """
    if state.began_at is None:
        return evidence
    for horizon in horizons(state.plan):
        evidence = _at(horizon, state, evidence, log, labels, now)
    return evidence


def _at(
    horizon: Horizon, state: RolloutState, evidence: Evidence, log: PredictionStore, labels: LabelRows, now: int
) -> Evidence:
    known_labels, age = horizon.of(labels)
    since = evidence.labelled.get(horizon.name, evidence.labelled_until)
    since = state.began_at if since is None else since
    assert since is not None
    until = now - age - LAG
    if until - since < max(SECOND, age // _OFTEN):
        return evidence
    # Label rows may land long after the time that they state. So a prediction waits until they have come so far, but no
    # longer than for a second horizon: they may have ended.
    through = known_through(known_labels, now)
    until = min(until, max(until - age, 0 if through is None else through - age))
    if until <= since:
        return evidence
    arms, seen = assigned(state, log, since, until), b""
    if state.plan.assign == "key":  # a unit stays in its arm, and counts once
        first, seen = first_of_units(arms["unit"].to_numpy(), evidence.seen.get(horizon.name, b""))
        arms = arms.filter(pa.array(first))
    joined = _joined(predictions_of(log, state.endpoint, since, until), arms, known_labels, now)
    missing = arms.filter(pa.array(_states(arms, joined, now, age) == LabelState.MISSING))
    joined = joined.filter(pa.array(_states(joined, joined, now, age) == LabelState.KNOWN))
    before = _with_history(horizon, evidence, state, log, known_labels, age)
    unbounded = [guard for guard in horizon.guards if bounds(guard, before) is None]
    fixed, spent = before, dict[str, int]()
    for guard in unbounded:
        control = joined.filter(pa.array(~_arm(joined))).sort_by("at")
        values = values_of(guard, control)
        enough = next((each for each in range(FEWEST, values.size + 1) if suffice(values[:each])), None)
        if enough is None:
            return before  # these predictions are met again, together with more
        fixed = with_bounds(fixed, guard, values[:enough])
        spent[counted_as(guard)] = control["at"][enough - 1].as_py()
    found = msgspec.structs.replace(
        fixed,
        labelled={**fixed.labelled, horizon.name: until},
        events={**fixed.events, horizon.name: _counted(fixed.events.get(horizon.name, ()), missing)},
        seen={**fixed.seen, horizon.name: seen} if seen else fixed.seen,
    )
    for guard in horizon.guards:  # values that fixed the bounds are not counted within them
        found = with_values(
            found, guard, joined.filter(pa.array(joined["at"].to_numpy() > spent.get(counted_as(guard), -1)))
        )
    return found


def _with_history(
    horizon: Horizon, evidence: Evidence, state: RolloutState, log: PredictionStore, labels: LabelRows, age: int
) -> Evidence:
    """Return the evidence with bounds from the champion's predictions before the rollout, or those of the loss."""
    unbounded = [guard for guard in horizon.guards if bounds(guard, evidence) is None]
    if not unbounded:
        return evidence
    _, known = history(log, state.endpoint, state.champion, labels, age, state.began_at or 0)
    for guard in unbounded:
        values = values_of(guard, known) if known.num_rows else np.zeros(0)
        if suffice(values):
            evidence = with_bounds(evidence, guard, values)
        elif guard.metric in RANGES and guard.kind == QUALITY:
            cuts = (*RANGES[guard.metric], USUAL[guard.metric])
            evidence = msgspec.structs.replace(evidence, cuts={**evidence.cuts, counted_as(guard): cuts})
    return evidence


def history(
    log: PredictionStore, endpoint: str, version: str, labels: LabelRows, age: int, until: int
) -> tuple[int, pa.Table]:
    """Return some hundred of the newest predictions of a version that were `age` old by `until`, with their labels.

    Args:
        labels: As `Horizon.of` returns them.

    Returns:
        Their number, and `id`, `score`, `label`, `lag_us`, `outputs` of those that have a label.
    """
    end = until - age
    for span in BEFORE:
        made = predictions_of(log, endpoint, end - span, end)
        made = made.filter(pa.array([each == version for each in made["version"].to_pylist()], pa.bool_()))
        if made.num_rows >= ENOUGH:
            break
    return made.num_rows, _with_labels(made, labels, until)


def suffice(values: Floats) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size >= FEWEST and finite.min() < finite.max())


def with_bounds(evidence: Evidence, guard: Guard, values: Floats) -> Evidence:
    made, name = history_bounds(guard, values), counted_as(guard)
    bend = {} if made.bend is None else {f"{name}{_BEND}": made.bend}
    cuts = (made.low, made.high, made.centre, *made.inner)
    return msgspec.structs.replace(evidence, cuts={**evidence.cuts, **bend, name: cuts})


def assigned(state: RolloutState, log: PredictionStore, since: int, until: int) -> pa.Table:
    """Return `id`, `at` (µs), `candidate` (Boolean), `share` and `unit` of requests made in `[since, until)`."""
    found = log.observations(state.id, since=since)
    parts = [ARMS.empty_table()]
    for table in found.batches if found is not None else ():
        at = np.asarray(table["at"].cast(pa.int64()).to_numpy(), dtype=np.int64)
        row, status, weight, unit = (np.asarray(table[name].to_numpy()) for name in ("row", "status", "weight", "unit"))
        kept = (at < until) & (row == 0) & (status == 200)
        candidate = np.asarray(table["version"].to_pylist(), dtype=object) == state.candidate
        share = np.round(np.where(candidate, weight, 1 - weight), 6)
        columns = [table["id"].filter(pa.array(kept)), *(each[kept] for each in (at, candidate, share, unit))]
        parts.append(pa.table(columns, names=ARMS.names).cast(ARMS))
    return pa.concat_tables(parts)


def predictions_of(log: PredictionStore, endpoint: str, since: int, until: int) -> pa.Table:
    """Return the predictions made in `[since, until)`, each once, with their outputs."""
    found = log.arrivals(endpoint, since, until, columns=_READ)
    batches = [batch.select(_READ) for batch in (found.batches if found is not None else ())]
    return distinct(pa.concat_tables(batches)) if batches else _NOTHING.empty_table()


def _with_labels(predictions: pa.Table, labels: LabelRows, now: int) -> pa.Table:
    known = join_labels(predictions, labels, now, complete=True).select(["id", "score", "label", "lag_us"])
    places = pc.index_in(known["id"], predictions["id"].combine_chunks())
    return known.append_column(OUTPUTS, predictions[OUTPUTS].take(places))


def _joined(predictions: pa.Table, arms: pa.Table, labels: LabelRows, now: int) -> pa.Table:
    """Return the predictions of the arms that have a label, with what `arms` has of each."""
    ids = arms["id"].combine_chunks()
    known = _with_labels(predictions.filter(pc.is_in(predictions["id"], ids)), labels, now)
    rows = arms.take(pc.index_in(known["id"], ids))
    for name in ARMS.names[1:]:
        known = known.append_column(name, rows[name])
    return known


def _states(rows: pa.Table, known: pa.Table, now: int, age: int) -> npt.NDArray[np.int8]:
    """Return the state of the label of each row, by the rule that simulations prove."""
    lags = dict(zip(known["id"].to_pylist(), known["lag_us"].to_pylist(), strict=True))
    made = np.asarray(rows["at"].to_numpy(), dtype=np.int64)
    lag = np.array([lags.get(each, -1) for each in rows["id"].to_pylist()], dtype=np.int64)
    return label_states(made, np.where(lag < 0, NEVER, made + lag), now, age)


def _counted(before: tuple[Counts, ...], rows: pa.Table) -> tuple[Counts, ...]:
    found = {each.share: each for each in before}
    shares, arms = _numbers(rows["share"]), _arm(rows)
    for share in np.unique(shares).tolist():
        mine, here = found.get(share, Counts(share)), shares == share
        found[share] = Counts(
            share, mine.candidate + int((here & arms).sum()), mine.control + int((here & ~arms).sum())
        )
    return tuple(found[share] for share in sorted(found))


def with_values(evidence: Evidence, guard: Guard, joined: pa.Table) -> Evidence:
    """Return the evidence with the values of a guard."""
    limits, values = bounds(guard, evidence), values_of(guard, joined)
    assert limits is not None
    finite, share, candidate = np.isfinite(values), _numbers(joined["share"]), _arm(joined)
    found = {each.share: each for each in evidence.values.get(counted_as(guard), ())}
    nothing = (0.0,) * limits.nodes.size
    for each in np.unique(share[finite]).tolist():
        mine = finite & (share == each)
        before = found.get(each, Cells(each, nothing, nothing))
        found[each] = Cells(
            each,
            _plus(before.candidate, limits.cells(values[mine & candidate])),
            _plus(before.control, limits.cells(values[mine & ~candidate])),
        )
    values_now = {**evidence.values, counted_as(guard): tuple(found[share] for share in sorted(found))}
    return msgspec.structs.replace(evidence, values=values_now)


def _plus(before: Sequence[float], cells: Floats) -> tuple[float, ...]:
    return tuple(np.round(np.asarray(before) + cells.sum(axis=0), 9).tolist())


def _arm(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows are the candidate's."""
    return np.asarray(rows["candidate"].to_numpy(), dtype=np.bool_)


def _numbers(column: Any) -> Floats:
    return np.asarray(column.to_numpy(), dtype=np.float64)
