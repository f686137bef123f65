"""Evidence from the outputs of answers, such as their cost. They are known at once, so no label is waited for."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.time import SECOND
from mainspring.delivery.rollout.guards import OUTPUT, Guard
from mainspring.delivery.rollout.labelling import (
    ARMS,
    BEFORE,
    ENOUGH,
    FEWEST,
    LAG,
    assigned,
    bounds,
    counted_as,
    predictions_of,
    suffice,
    with_bounds,
    with_values,
)
from mainspring.delivery.rollout.losses import values_of
from mainspring.delivery.rollout.model import Evidence, RolloutState
from mainspring.delivery.rollout.plan import Plan
from mainspring.ledger.ports import PredictionStore
from mainspring.monitoring.joins import OUTPUTS, json_rows
from mainspring.stats.sequential.counting import first_of_units

_UNSURE = (0.05, 0.95)  # the mean of a Boolean, as which bets begin


def outputs_of(plan: Plan) -> list[Guard]:
    """Return the guards and goals of a plan that are on outputs; one on the same values as another counts once."""
    found = {counted_as(each): each for each in (*plan.guards, *plan.goals) if each.kind == OUTPUT}
    return [*found.values()]


def measured(state: RolloutState, evidence: Evidence, log: PredictionStore, now: int) -> Evidence:
    """Return the evidence with the outputs of answers that were given since.

    Args:
        now: By the clock that dates predictions, UTC epoch microseconds.
    """
    guards = outputs_of(state.plan)
    if state.began_at is None or not guards:
        return evidence
    since, until = evidence.labelled.get(OUTPUT, state.began_at), now - LAG
    if until - since < SECOND:
        return evidence
    arms, seen = assigned(state, log, since, until), b""
    if state.plan.assign == "key":  # a unit stays in its arm, and counts once
        first, seen = first_of_units(arms["unit"].to_numpy(), evidence.seen.get(OUTPUT, b""))
        arms = arms.filter(pa.array(first))
    rows = _beside(predictions_of(log, state.endpoint, since, until), arms)
    found, spent = evidence, dict[str, int]()
    for guard in guards:
        if bounds(guard, found) is not None:
            continue
        made = _bounded(found, guard, _history(log, state))
        if made is None:
            control = rows.filter(pc.invert(rows["candidate"])).sort_by("at")
            number, made = FEWEST, _bounded(found, guard, control.slice(0, FEWEST))
            while made is None and number < control.num_rows:
                number = min(2 * number, control.num_rows)
                made = _bounded(found, guard, control.slice(0, number))
            if made is None:
                return evidence  # these answers are met again, together with more
            spent[counted_as(guard)] = control["at"][min(number, control.num_rows) - 1].as_py()
        found = made
    seens = {**found.seen, OUTPUT: seen} if seen else found.seen
    found = msgspec.structs.replace(found, labelled={**found.labelled, OUTPUT: until}, seen=seens)
    for guard in guards:  # values that fixed the bounds are not counted within them
        kept = np.asarray(rows["at"].to_numpy()) > spent.get(counted_as(guard), -1)
        found = with_values(found, guard, rows.filter(pa.array(kept)))
    return found


def _bounded(evidence: Evidence, guard: Guard, rows: pa.Table) -> Evidence | None:
    """Return the evidence with bounds of a guard's values from the champion's answers, `None` of too few."""
    values = values_of(guard, rows) if rows.num_rows else np.zeros(0)
    finite = values[np.isfinite(values)]
    if finite.size < FEWEST:
        return None
    given = [row.get(guard.metric) for row in json_rows(rows[OUTPUTS])]
    if all(isinstance(each, bool) for each in given if each is not None):
        low, high = (-1.0, 0.0) if guard.higher_is_better else (0.0, 1.0)
        least, most = (low + part for part in _UNSURE)
        cuts = (low, high, float(np.clip(finite.mean(), least, most)))
        return msgspec.structs.replace(evidence, cuts={**evidence.cuts, counted_as(guard): cuts})
    return with_bounds(evidence, guard, values) if suffice(values) else None


def _history(log: PredictionStore, state: RolloutState) -> pa.Table:
    """Return some hundred of the champion's answers before the rollout."""
    end = state.began_at or 0
    for span in BEFORE:
        made = predictions_of(log, state.endpoint, end - span, end)
        made = made.filter(pa.array([each == state.champion for each in made["version"].to_pylist()], pa.bool_()))
        if made.num_rows >= ENOUGH:
            break
    return made


def _beside(predictions: pa.Table, arms: pa.Table) -> pa.Table:
    """Return the outputs of the arms' answers, with what `arms` has of each."""
    ids = arms["id"].combine_chunks()
    known = predictions.filter(pc.is_in(predictions["id"], ids)).select(["id", OUTPUTS])
    rows = arms.take(pc.index_in(known["id"], ids))
    for name in ARMS.names[1:]:
        known = known.append_column(name, rows[name])
    return known
