"""Readings of guards and goals: anytime-valid tests on the evidence of a rollout.

Guards share alpha by the union bound. A guard is breached if its e-value against "no worse than tolerated" reaches the
number of guards divided by alpha. It is safe if its e-value against "worse than tolerated" reaches 1 / alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from mainspring.delivery.rollout import pairing
from mainspring.delivery.rollout.guards import ERRORS, LATENCY, SCORE, Guard
from mainspring.delivery.rollout.labelling import FEWEST, UNLABELLED, bounds, counted_as, horizons
from mainspring.delivery.rollout.model import Cells, Counts, Evidence, Observed, Reading
from mainspring.delivery.rollout.observing import LATENCIES, event
from mainspring.delivery.rollout.plan import BANDIT, BLUE_GREEN, SHADOW, Plan
from mainspring.stats.sequential import events, means, verdicts
from mainspring.stats.sequential.bandit import weights_by_means
from mainspring.stats.sequential.distributions import averaged
from mainspring.stats.sequential.slowness import WIDTH, Slowness, bins_within

SAMPLE_RATIO = "sample ratio"
_SURE = math.log(20)  # that the champion's share of failures before a switch is below the end of its interval
_FINE = 1e-3


def breached_from(plan: Plan) -> float:
    """Return the e-value from which a guard is breached: the number of guards divided by alpha."""
    return 1 / alpha_of_guards(plan)


def alpha_of_guards(plan: Plan) -> float:
    """Return the share of alpha of each guard, of the sample ratio, and of missing labels if they are compared."""
    return plan.alpha / (len(plan.guards) + 1 + _labelled(plan))


def _labelled(plan: Plan) -> bool:
    return any(guard.labelled for guard in (*plan.guards, *plan.goals))


def judge(plan: Plan, evidence: Evidence) -> Observed:
    """Return the readings of all guards and goals, and the numbers of requests."""
    labelled = _labelled(plan)
    breach, safe = math.log(breached_from(plan)), math.log(1 / plan.alpha)
    readings = [_read(plan, guard, evidence, breach, safe) for guard in plan.guards]
    return Observed(
        candidate=evidence.candidate,
        control=evidence.control,
        unchosen=evidence.unchosen,
        readings=(*readings, _unlabelled(plan, evidence, breach)) if labelled else tuple(readings),
        goals=tuple(_goal(goal, evidence, safe) for goal in plan.goals),
        reference=int(evidence.cuts.get(ERRORS, (0.0, 0.0))[1]) if plan.kind == BLUE_GREEN else None,
        share=_share(plan, evidence),
        sample_ratio=_sample_ratio(evidence, breach),
    )


def _read(plan: Plan, guard: Guard, evidence: Evidence, breach: float, safe: float) -> Reading:
    if plan.kind == SHADOW and (of_pairs := pairing.read(guard, evidence, breach, safe)) is not None:
        return of_pairs
    if guard.kind == ERRORS:
        return _errors(plan, guard, evidence, breach, safe)
    if guard.kind in (LATENCY, SCORE) and guard.kind not in evidence.cuts:
        return Reading(guard=guard.name, note="too few of the champion's predictions to compare with", limit=0.0)
    if guard.kind == LATENCY:
        return _latency(guard, evidence, breach, safe)
    if guard.kind == SCORE:
        return _score(guard, evidence, breach, safe)
    return _mean_reading(guard, evidence, breach, safe)


def _before(guard: Guard, evidence: Evidence) -> float:
    """Return the share of failures that a guard tolerates where the champion was observed before the switch alone.

    It is the upper end of the interval of the champion's share, and so much more as is tolerated. A champion without a
    failure may fail in a harmless share.
    """
    failed, asked = evidence.cuts.get(ERRORS, (0.0, 0.0))
    harmless = guard.at_most or 0.0
    if not failed and harmless:
        return harmless
    low, high = failed / asked if asked else 0.0, 1.0
    while asked and high - low > _FINE * high:
        middle = (low + high) / 2
        found = float(events.log_e_share_below(failed, asked, middle)) >= _SURE
        low, high = (low, middle) if found else (middle, high)
    return min(max(harmless, (1 + guard.tolerance) * high), 1 - _FINE)


def _errors(plan: Plan, guard: Guard, evidence: Evidence, breach: float, safe: float) -> Reading:
    """Return the reading of errors: worse means both a larger share than tolerated and one that is not harmless."""
    counts, asked = evidence.events.get(ERRORS, ()), evidence.candidate
    failed = sum(each.candidate for each in counts)
    at_most = _before(guard, evidence) if plan.kind == BLUE_GREEN else guard.at_most or 0.0
    if at_most and asked and not _compared(evidence):
        found = verdicts.of_share(failed, asked, at_most)
    else:
        found = verdicts.of_errors(*_arrays(counts), asked, 1 + guard.tolerance, at_most if asked else 0.0)
    made = _ratio_reading(guard, counts, breach, float(found.worse), bool(found.fine >= safe))
    if plan.kind == BLUE_GREEN and asked and at_most:
        before = evidence.cuts.get(ERRORS, (0.0, 0.0))
        said = f"tolerated {100 * at_most:.3g}%; before the switch {before[0]:g} of {before[1]:g} failed"
        return _with_note(made, f"{failed} of {asked} requests failed, {100 * failed / asked:.3g}%; {said}")
    if made.estimate is None and asked:
        others = sum(each.control for each in counts), evidence.control
        return _with_note(made, f"{failed} of {asked} requests failed, {others[0]} of the champion's {others[1]}")
    return made


def _latency(guard: Guard, evidence: Evidence, breach: float, safe: float) -> Reading:
    """Return the reading of latency: the factor by which the candidate is slower."""
    if not _compared(evidence):
        return _uncompared(guard)
    found = _slowness(evidence)
    tolerated = math.exp(WIDTH * bins_within(guard.factor))
    if found is None:
        return Reading(guard=guard.name, limit=tolerated)
    worse, fine = found.verdicts(guard.factor)
    estimate, interval = found.interval(1 - 2 * math.exp(-breach))
    return Reading(
        guard=guard.name,
        breach=bool(worse >= breach),
        safe=bool(fine >= safe),
        log_e=float(worse),
        estimate=_finite(estimate),
        low=_finite(interval.low),
        high=_finite(interval.high),
        limit=tolerated,
        candidate=int(found.candidate.sum()),
        control=int(found.control.sum()),
    )


def _slowness(evidence: Evidence) -> Slowness | None:
    """Return the latencies that were counted while both arms had requests, `None` without any."""
    kinds = {
        int(kind.removeprefix(LATENCIES)): each for kind, each in evidence.events.items() if kind.startswith(LATENCIES)
    }
    shares = sorted({each.share for counts in kinds.values() for each in counts if 0 < each.share < 1})
    if not shares:
        return None
    arms = np.zeros((2, len(shares), len(kinds)))
    for place, number in enumerate(sorted(kinds)):
        for each in kinds[number]:
            if 0 < each.share < 1:
                arms[:, shares.index(each.share), place] = each.candidate, each.control
    return Slowness(evidence.cuts[LATENCY], np.array(shares), np.array(sorted(kinds)), arms[0], arms[1])


def _score(guard: Guard, evidence: Evidence, breach: float, safe: float) -> Reading:
    ratio, cuts = 1 + guard.tolerance, evidence.cuts[SCORE]
    if not _compared(evidence):
        return _uncompared(guard)
    each = [evidence.events.get(event(SCORE, place), ()) for place in range(len(cuts) + 2)]
    # A bin for scores that are no number counts once there are any.
    made = [place for place, counts in enumerate(each) if counts and (place <= len(cuts) or _total(counts))]
    shares = sorted({count.share for counts in each for count in counts})
    if not made or not shares:
        return _with_note(_ratio_reading(guard, (), breach, 0.0, False), "no scores yet")
    arms = np.zeros((2, len(shares), len(made)))
    for column, place in enumerate(made):
        for count in each[place]:
            arms[:, shares.index(count.share), column] = count.candidate, count.control
    found = verdicts.of_scores(shares, arms[0], arms[1], ratio)
    worst = max(made, key=lambda place: _above(each[place], ratio))
    reading = _ratio_reading(guard, each[worst], breach, float(found.worse), bool(found.fine >= safe))
    return _with_note(reading, f"scores {_bin(cuts, worst)}")


def _bin(cuts: Sequence[float], place: int) -> str:
    if place > len(cuts):
        return "that are no number"
    if place == len(cuts):
        return f"of at least {cuts[-1]:.3g}"
    return f"below {cuts[place]:.3g}" if not place else f"from {cuts[place - 1]:.3g} to {cuts[place]:.3g}"


def _sample_ratio(evidence: Evidence, breach: float) -> Reading:
    counts = [each for each in evidence.requests if 0 < each.share < 1]
    if not counts:
        return Reading(guard=SAMPLE_RATIO, note="no choice of arm yet")
    weights = [[1 - each.share, each.share] for each in counts]
    log_e = float(events.log_e_sample_ratio(weights, [[each.control, each.candidate] for each in counts]))
    made = _ratio_reading(Guard(kind=SAMPLE_RATIO), counts, breach, log_e, True)
    return _with_note(made, "requests of the candidate, for those that its share gives it")


def _unlabelled(plan: Plan, evidence: Evidence, breach: float) -> Reading:
    """Return the reading of predictions without a label: neither arm may have twice the other's, at any horizon."""
    each = [evidence.events.get(horizon.name, ()) for horizon in horizons(plan)]
    if not any(map(_total, each)):
        return Reading(guard=UNLABELLED, safe=True, note="every label came, or none is due")
    found = [float(verdicts.of_missing(*_arrays(counts))) if counts else 0.0 for counts in each]
    counts = each[int(np.argmax(found))]
    made = _ratio_reading(Guard(kind=UNLABELLED, tolerance=1.0), counts, breach, float(averaged(found)), True)
    return _with_note(made, "predictions without a label in time")


def _mean_reading(guard: Guard, evidence: Evidence, breach: float, safe: float) -> Reading:
    """Return the reading of a mean; values are larger if worse, numbers are shown in the metric's own direction."""
    limits, cells = bounds(guard, evidence), evidence.values.get(counted_as(guard), ())
    sign = -1 if guard.higher_is_better else 1
    if limits is None or not any(0 < each.share < 1 for each in cells):
        note = "no label came" if limits is None or not cells else "the arms were not compared"
        return Reading(guard=guard.name, unit="difference", note=note, limit=sign * guard.tolerance)
    arrays = _cells(cells)
    worse, fine = verdicts.of_means(limits, *arrays, guard.tolerance)
    estimate, interval = means.mean_difference(limits, *arrays, confidence=1 - 2 * math.exp(-breach))
    low, high = sorted((sign * interval.low, sign * interval.high))
    return Reading(
        guard=guard.name,
        unit="difference",
        breach=bool(worse >= breach),
        safe=bool(fine >= safe),
        log_e=float(worse),
        estimate=_finite(sign * estimate),
        low=_finite(low),
        high=_finite(high),
        limit=sign * guard.tolerance,
        candidate=round(sum(sum(each.candidate) for each in cells)),
        control=round(sum(sum(each.control) for each in cells)),
    )


def _goal(goal: Guard, evidence: Evidence, safe: float) -> Reading:
    """Return the reading of a goal: safe if the candidate is better, futile if not by an effect that matters."""
    made = _mean_reading(msgspec.structs.replace(goal, tolerance=0.0), evidence, safe, safe)
    limits, cells = bounds(goal, evidence), evidence.values.get(counted_as(goal), ())
    hopeless = False
    if goal.effect > 0 and limits is not None and made.estimate is not None:
        hopeless = float(means.log_e_mean_above(limits, *_cells(cells), -goal.effect)) >= safe
    return msgspec.structs.replace(made, breach=False, futile=hopeless and not made.safe)


def _share(plan: Plan, evidence: Evidence) -> float | None:
    """Return the share of a bandit's candidate: the probability that it is better on its goal."""
    if plan.kind != BANDIT:
        return None
    (goal,) = plan.goals
    limits, cells = bounds(goal, evidence), evidence.values.get(counted_as(goal), ())
    if limits is None or not cells:
        return None
    nodes = limits.nodes
    moments = np.stack([np.ones_like(nodes), nodes, nodes**2], axis=1)
    _, *arms = (np.asarray(each) for each in _cells(cells))
    sums = [arm.sum(axis=0) @ moments for arm in arms]
    if min(arm[0] for arm in sums) < FEWEST:
        return None
    seed = round(sum(float(arm[0]) for arm in sums))
    return weights_by_means(sums, floor=plan.floor, seed=seed, fewer_is_better=True)[0]


def _cells(cells: Sequence[Cells]) -> tuple[list[float], list[tuple[float, ...]], list[tuple[float, ...]]]:
    return [each.share for each in cells], [each.candidate for each in cells], [each.control for each in cells]


def _ratio_reading(guard: Guard, counts: Sequence[Counts], breach: float, log_e: float, safe: bool) -> Reading:
    """Return the reading of a relative risk; the bounds of its interval are breached as the guard is."""
    compared = [each for each in counts if 0 < each.share < 1]
    shares = [each.share for each in compared]
    arms = [each.candidate for each in compared], [each.control for each in compared]
    estimate = low = high = None
    if compared and sum(map(sum, arms)):
        interval = events.risk_interval(shares, *arms, confidence=1 - 2 * math.exp(-breach))
        estimate, low, high = map(_finite, (events.risk_ratio(shares, *arms), interval.low, interval.high))
    return Reading(
        guard=guard.name,
        breach=log_e >= breach,
        safe=safe,
        log_e=log_e,
        estimate=estimate,
        low=low,
        high=high,
        limit=1 + guard.tolerance,
        candidate=sum(each.candidate for each in counts),
        control=sum(each.control for each in counts),
    )


def _above(counts: Sequence[Counts], ratio: float) -> float:
    return float(events.log_e_above(*_arrays(counts), ratio)) if counts else 0.0


def _arrays(counts: Sequence[Counts]) -> tuple[list[float], list[int], list[int]]:
    return [each.share for each in counts], [each.candidate for each in counts], [each.control for each in counts]


def _total(counts: Sequence[Counts]) -> int:
    return sum(each.candidate + each.control for each in counts)


def _compared(evidence: Evidence) -> bool:
    """Return whether requests had a choice of arm, or none came yet."""
    return not evidence.requests or any(0 < each.share < 1 for each in evidence.requests)


def _uncompared(guard: Guard) -> Reading:
    return Reading(guard=guard.name, safe=True, note="not compared: the candidate has every request", limit=0.0)


def _with_note(reading: Reading, note: str) -> Reading:
    return msgspec.structs.replace(reading, note=note)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
