"""Evidence from observations: counts of events by arm, in strata of one share each, which only grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.delivery.rollout.guards import ERRORS, LATENCY, SCORE
from mainspring.delivery.rollout.model import Counts, Evidence, RolloutState
from mainspring.stats.sequential.counting import first_of_units
from mainspring.stats.sequential.distributions import TAIL
from mainspring.stats.sequential.slowness import places

LATENCIES = "latency bin"  # kind of event, by bin of `stats.sequential.slowness`
BINS = 5  # of the champion's scores
FEWEST = 50  # of the champion's predictions, to fix thresholds
_OK = 200

Floats = npt.NDArray[np.float64]
Added = dict[str, dict[float, list[int]]]  # kind of event -> share -> [candidate, control]


def event(kind: str, place: int) -> str:
    """Return the name under which the events of a threshold or bin are counted."""
    return f"{kind} {place}"


def fixed(evidence: Evidence, latencies: Sequence[float], scores: Sequence[float]) -> Evidence:
    """Return evidence with thresholds from the champion's predictions before the rollout, if there are enough."""
    cuts = dict(evidence.cuts)
    for kind, values, made in ((LATENCY, latencies, _quantiles), (SCORE, scores, edges)):
        array = np.asarray(values, dtype=np.float64)
        finite = array[np.isfinite(array)]
        if kind not in cuts and finite.size >= FEWEST:
            cuts[kind] = made(finite)
        elif kind not in cuts and kind == SCORE and array.size >= FEWEST and not finite.size:
            cuts[kind] = ()  # answers that are no numbers stay none
    return msgspec.structs.replace(evidence, cuts=cuts)


def observed(state: RolloutState, tables: Iterable[pa.Table]) -> Evidence:
    """Return the evidence of a rollout with more observations.

    Args:
        tables: As `ledger.ports.PredictionStore.observations` returns them.
    """
    evidence, added = state.evidence, defaultdict[str, dict[float, list[int]]](lambda: defaultdict(lambda: [0, 0]))
    for table in tables:
        evidence = _add(state, evidence, added, table)
    events = dict(evidence.events)
    for kind in added.keys() - {"requests"}:
        events[kind] = _sum(events.get(kind, ()), added[kind])
    requests = _sum(evidence.requests, added["requests"])
    return msgspec.structs.replace(evidence, requests=requests, events=events)


def _add(state: RolloutState, evidence: Evidence, added: Added, table: pa.Table) -> Evidence:
    versions = np.asarray(table["version"].to_pylist(), dtype=object)
    candidate = versions == state.candidate
    first = _numbers(table, "row", 0) == 0  # rows of one request have one arm: they are no more than its first
    weight = _numbers(table, "weight", 1)
    share = np.round(np.where(candidate, weight, 1 - weight), 6)
    kept = first & (candidate | (versions == state.champion))
    if state.began_at is not None:  # before, there was no choice of arm
        kept &= (share > 0) | (np.asarray(table["at"].cast(pa.int64()).to_numpy()) >= state.began_at)
    # All failures are logged, and a share of the predictions: each counts by the same measure.
    number = np.maximum(1, np.round(_numbers(table, "count", 1) * _sampled(table))).astype(np.int64)
    failed = _numbers(table, "status", _OK) != _OK

    def count(kind: str, which: npt.NDArray[np.bool_]) -> None:
        for of_arm, place in ((candidate, 0), (~candidate, 1)):
            chosen = kept & which & of_arm
            for each in np.unique(share[chosen]):
                added[kind][float(each)][place] += int(number[chosen & (share == each)].sum())

    asked, evidence = _first(state, evidence, "requests", table, kept)
    wrong, evidence = _first(state, evidence, ERRORS, table, kept & failed)
    count("requests", asked)
    count(ERRORS, wrong)
    latency, score = _numbers(table, "latency_us", np.nan), _numbers(table, "score", np.nan)
    answered = kept & ~failed & asked
    before = evidence.cuts
    # An answer that was computed for another request tells how fast the cache is; an arm with less traffic has fewer.
    timed = answered & (_numbers(table, "cached", 0) == 0)
    evidence = fixed(evidence, latency[timed & ~candidate], score[answered & ~candidate])
    # Where these observations made the thresholds, they are not counted by them.
    if LATENCY in before:
        found = np.where(timed, places(np.where(timed, latency, 1.0)), -1)
        for place in np.unique(found[timed]).tolist():
            count(event(LATENCIES, place), found == place)
    if SCORE in before:
        bins = np.searchsorted(np.asarray(before[SCORE]), score, side="right")
        bins = np.where(np.isfinite(score), bins, len(before[SCORE]) + 1)
        for place in range(len(before[SCORE]) + 2):
            count(event(SCORE, place), answered & (bins == place))
    return evidence


def before_it_began(state: RolloutState, tables: Iterable[pa.Table]) -> Evidence:
    """Return the evidence of a blue-green rollout with more of the champion's requests before the switch.

    Its thresholds of errors are the number of these that failed, and the number of all.
    """
    seen = observed(msgspec.structs.replace(state, evidence=Evidence()), tables)
    failed, asked = state.evidence.cuts.get(ERRORS, (0.0, 0.0))
    failed += sum(each.control for each in seen.events.get(ERRORS, ()))
    asked += seen.unchosen
    return msgspec.structs.replace(state.evidence, cuts={**state.evidence.cuts, ERRORS: (failed, asked)})


def _first(
    state: RolloutState, evidence: Evidence, kind: str, table: pa.Table, which: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], Evidence]:
    """Return which of the rows count: all of them, or the first of each unit if units stay in their arm."""
    if state.plan.assign != "key":
        return which, evidence
    first, seen = first_of_units(np.where(which, table["unit"].to_numpy(), 0), evidence.seen.get(kind, b""))
    return first, msgspec.structs.replace(evidence, seen={**evidence.seen, kind: seen})


def _sampled(table: pa.Table) -> Floats:
    """Return by row the share of such requests that counts: 1 of predictions, the log's share of failures."""
    failed = _numbers(table, "status", _OK) != _OK
    return np.where(failed, _numbers(table, "share", 1), 1.0)


def _sum(before: Sequence[Counts], added: dict[float, list[int]]) -> tuple[Counts, ...]:
    found = {each.share: [each.candidate, each.control] for each in before}
    for share, (candidate, control) in added.items():
        mine = found.setdefault(share, [0, 0])
        mine[0] += candidate
        mine[1] += control
    return tuple(Counts(share, *found[share]) for share in sorted(found))


def _numbers(table: pa.Table, name: str, missing: float) -> Floats:
    column: Any = table[name]
    return np.asarray(column.cast(pa.float64()).fill_null(missing).to_numpy(), dtype=np.float64)


def _quantiles(values: Floats) -> tuple[float, ...]:
    return tuple(float(each) for each in np.quantile(values, TAIL))


def edges(values: Floats) -> tuple[float, ...]:
    """Return the inner edges of bins of about equal weight; a value that is very frequent makes fewer bins."""
    edges = np.quantile(values, np.arange(1, BINS) / BINS)
    return tuple(sorted({float(each) for each in edges}))
