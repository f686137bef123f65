"""Evidence of a shadow: pairs of answers to the same inputs, the champion's as logged and the candidate's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from mainspring.delivery.rollout.guards import ERRORS, LATENCY, SCORE, Guard
from mainspring.delivery.rollout.model import Counts, Evidence, Reading, Sums
from mainspring.stats.sequential import means

DIFFERENCE, DROPPED, SKIPPED = "paired difference", "dropped", "skipped"
_ALL = 1.0  # share of a stratum without a choice of arm
_HALF = 0.5  # of the champion's standard deviation: the mean difference that a tolerance of 1 allows


def scaled(evidence: Evidence, scores: Sequence[float | None]) -> Evidence:
    """Return the evidence with the scale of the champion's scores, if they have one."""
    found = _spread(scores)
    return evidence if found is None else msgspec.structs.replace(evidence, cuts={**evidence.cuts, DIFFERENCE: found})


def _spread(scores: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the standard deviation and the range of the champion's scores, `None` if they do not differ."""
    values = np.asarray([each for each in scores if each is not None and math.isfinite(each)], dtype=np.float64)
    if values.size < 2 or not values.std():
        return None
    return float(values.std()), float(np.ptp(values))


def paired(
    evidence: Evidence,
    champion: Sequence[float | None],
    candidate: Sequence[float | None],
    failed: int,
    *,
    dropped: int = 0,
    skipped: int = 0,
) -> Evidence:
    """Return the evidence with more pairs. The first pairs only fix the scale of the champion's scores, if none does.

    Args:
        champion, candidate: Scores by pair; of pairs that failed, the candidate's is `None`.
        failed: Pairs to which the candidate gave no answer.
        dropped: Predictions that were not scored, because too many had come.
        skipped: Predictions that the log does not have whole, or that a fallback answered.
    """
    events = dict(evidence.events)
    for kind, number in ((ERRORS, failed), (DROPPED, dropped), (SKIPPED, skipped)):
        events[kind] = _plus(events.get(kind, ()), number)
    requests = _plus(evidence.requests, len(champion))
    evidence = msgspec.structs.replace(evidence, events=events, requests=requests)
    scale = evidence.cuts.get(DIFFERENCE)
    if scale is None:
        return scaled(evidence, champion)
    both = [(mine, its) for mine, its in zip(candidate, champion, strict=True) if mine is not None and its is not None]
    differences = np.abs(np.asarray([mine - its for mine, its in both], dtype=np.float64))
    more = _bounds(scale).sums(differences[np.isfinite(differences)])
    before = next(iter(evidence.sums.get(DIFFERENCE, ())), Sums(_ALL, 0))
    total = tuple(float(a + b) for a, b in zip(before.candidate, more, strict=True))
    sums = Sums(_ALL, 0, (int(total[0]), total[1], total[2]))
    return msgspec.structs.replace(evidence, sums={**evidence.sums, DIFFERENCE: (sums,)})


def read(guard: Guard, evidence: Evidence, breach: float, safe: float) -> Reading | None:
    """Return the reading of a guard on scores or latency in a shadow, `None` of other guards."""
    if guard.kind == LATENCY:
        return Reading(guard=guard.name, safe=True, note="not compared: a shadow answers nobody", limit=0.0)
    if guard.kind != SCORE:
        return None
    scale, sums = evidence.cuts.get(DIFFERENCE), evidence.sums.get(DIFFERENCE, ())
    if scale is None or not sums or not sums[0].candidate[0]:
        return Reading(guard=guard.name, unit="difference", note="no pairs yet", limit=0.0)
    bounds, values, limit = _bounds(scale), sums[0].candidate, guard.tolerance * _HALF * scale[0]
    log_e = float(means.log_e_paired_above(bounds, values, limit))
    estimate, interval = means.paired_difference(bounds, values, confidence=1 - 2 * math.exp(-breach))
    return Reading(
        guard=guard.name,
        unit="difference",
        breach=log_e >= breach,
        safe=float(means.log_e_paired_below(bounds, values, limit)) >= safe,
        log_e=log_e,
        estimate=estimate,
        low=interval.low if math.isfinite(interval.low) else None,
        high=interval.high if math.isfinite(interval.high) else None,
        limit=limit,
        candidate=values[0],
        control=values[0],
        note="mean absolute difference of the arms' scores of the same inputs",
    )


def _bounds(scale: Sequence[float]) -> means.Bounds:
    """Return bounds of absolute differences, clipped to twice the range of the champion's scores."""
    return means.Bounds(-_HALF * scale[0], 2 * scale[1], 0.0)  # a lower bound of 0 would have no estimate


def _plus(before: Sequence[Counts], number: int) -> tuple[Counts, ...]:
    return (Counts(_ALL, sum(each.candidate for each in before) + number, 0),)
