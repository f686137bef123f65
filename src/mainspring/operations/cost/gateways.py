"""Division of a gateway process's processor time among endpoints, versions and callers.

Measured are the time of the process's first thread, on which its event loop runs, and of all else: other threads and
processes below it. By version, the time that models and reads of features kept the loop, and that models kept threads.

1. The loop's time for models and reads is charged as measured, at most all that the loop used.
2. The rest of the loop's time is charged by requests, at most a millisecond for each.
3. Other threads and processes are charged by the time of models in them, at most that time on every core.
4. Within a version, 1 and 3 are charged to callers by rows, 2 by requests.
5. What is left is the process's own: probes, scrapes, the log, requests without a valid key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mainspring.cost.splitting import shares
from mainspring.cost.usage import ENDPOINT, LANGUAGE_MODEL, Subject
from mainspring.serving.plane.uses import Had, LaneCounts, LaneUses, ProcessCounts

_NUMBERS = ("requests", "rows", "received", "sent", "prompt", "completion", "micros")
_MEASURES = {
    "requests": "requests", "rows": "rows", "received": "in", "sent": "out", "prompt": "prompt",
    "completion": "completion", "micros": "charged",
}  # fmt: skip
_MOST_US = 1_000
Amounts = dict[Subject, dict[str, int]]


def grown(before: ProcessCounts | None, now: ProcessCounts) -> list[LaneCounts]:
    """Return the lanes of a process with how much each count grew; those that did not are left out."""
    known = {} if before is None else {(each.endpoint, each.version, each.model): each.uses for each in before.lanes}
    found = []
    for each in now.lanes:
        was = known.get((each.endpoint, each.version, each.model), LaneUses())
        callers = {}
        for caller, had in each.uses.callers.items():
            old = was.callers.get(caller, Had())
            more = {name: max(0, getattr(had, name) - getattr(old, name)) for name in _NUMBERS}
            if any(more.values()):
                callers[caller] = Had(**more, teams=had.teams)
        uses = LaneUses(
            max(0.0, each.uses.loop_us - was.loop_us),
            max(0.0, each.uses.thread_us - was.thread_us),
            each.uses.memory,
            callers,
        )
        if callers or uses.loop_us or uses.thread_us or uses.memory:
            found.append(LaneCounts(each.endpoint, each.version, each.model, uses))
    return found


def divided(lanes: Sequence[LaneCounts], *, loop_us: int, other_us: int, cores: float) -> Amounts:
    """Return what each version's callers used, by measure, by the rule of this module.

    Args:
        lanes: What grew in the time.
        loop_us, other_us: Processor time of the process in it.
    """
    found: Amounts = {}
    if lanes:
        direct = _charged(loop_us, [round(each.uses.loop_us) for each in lanes])
        requests = [sum(had.requests for had in each.uses.callers.values()) for each in lanes]
        rest = _by(min(loop_us - sum(direct), _MOST_US * sum(requests)), requests)
        threads = _charged(other_us, [round(each.uses.thread_us * cores) for each in lanes])
        parts = zip(lanes, direct, rest, threads, strict=True)
        for each, of_loop, of_requests, of_threads in parts:
            _add(found, each, of_loop + of_threads, of_requests)
    return found


def by_gpu(lanes: Sequence[LaneCounts], reserved_us: int) -> dict[Subject, int]:
    """Return the time of a gateway's GPUs by version: by the time of models in threads, where every model on a GPU is
    called; without any it is the process's own."""
    times = _by(reserved_us, [round(each.uses.thread_us) for each in lanes])
    return {subject_of(each): time for each, time in zip(lanes, times, strict=True) if time}


def _charged(spent: int, measured: Sequence[int]) -> list[int]:
    """Return measured times, scaled down where they are together more than was spent."""
    return _by(min(spent, sum(measured)), measured)


def _by(amount: int, weights: Sequence[int]) -> list[int]:
    return shares(amount, weights) if sum(weights) else [0] * len(weights)


def _add(found: Amounts, lane: LaneCounts, computed_us: int, handled_us: int) -> None:
    callers = lane.uses.callers
    rows = {id: had.rows for id, had in callers.items()}
    if not any(rows.values()):
        rows = {id: had.requests for id, had in callers.items()}
    by_rows = _given(computed_us, rows)
    by_requests = _given(handled_us, {id: had.requests for id, had in callers.items()})
    for id in {**by_rows, **by_requests}:
        had = callers.get(id, Had())
        amounts = {"cpu": by_rows.get(id, 0) + by_requests.get(id, 0)}
        amounts |= {measure: getattr(had, name) for name, measure in _MEASURES.items()}
        subject = subject_of(lane, id, had.teams)
        known = found.setdefault(subject, {})
        for measure, amount in amounts.items():
            if amount:
                known[measure] = known.get(measure, 0) + amount


def _given(amount: int, weights: Mapping[str, int]) -> dict[str, int]:
    if not sum(weights.values()):  # nobody's, such as a request that began before: the version's
        return {**dict.fromkeys(weights, 0), **({"": amount} if amount else {})}
    return dict(zip(weights, shares(amount, list(weights.values())), strict=True))


def subject_of(lane: LaneCounts, caller: str = "", teams: tuple[str, ...] = ()) -> Subject:
    """Return the subject of a lane for a caller."""
    if not lane.endpoint:
        return Subject(LANGUAGE_MODEL, lane.model, key=caller, teams=teams, inside=True)
    return Subject(ENDPOINT, lane.endpoint, lane.version, lane.model, caller, teams, inside=True)
