"""Decisions of a rollout, as pure functions of its plan, its state, its evidence and the time.

Time counts only while somebody looks, and no gap between two looks counts for more than `LONGEST_GAP`. So neither a
clock that jumps nor a controller that was dead moves a rollout on.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from mainspring.core.errors import Conflict
from mainspring.core.time import MINUTE, format_duration
from mainspring.delivery.rollout.model import Evidence, Look, Observed, Reading, RolloutState, Status
from mainspring.delivery.rollout.plan import BANDIT, PROMOTE

LONGEST_GAP = MINUTE
_FEWEST = 50  # requests within `LONGEST_GAP` that prove that no gateway gives the candidate any
CONTROLLER = "rollout controller"
BEGIN, CONTINUE, STEP, SHARE = "begin", "continue", "step", "share"
_SHOWN = 100  # looks without a decision are stored each time the watched time has grown by a hundredth

# decision -> the status after it
_AFTER = {
    BEGIN: Status.RUNNING,
    STEP: Status.RUNNING,
    SHARE: Status.RUNNING,
    "wait": Status.WAITING,
    "promote": Status.PROMOTING,
    "done": Status.DONE,
    "roll back": Status.ROLLED_BACK,
    "stop": Status.STOPPED,
    "fail": Status.FAILED,
    "end": Status.INCONCLUSIVE,
}


class Decision(NamedTuple):
    """A decision and its reason, which names the numbers. `share` is the candidate's share after it."""

    action: str
    why: str
    share: float


def decide(state: RolloutState, seen: Observed) -> Decision:
    """Return what becomes of a rollout whose times (`held_us`, `watched_us`) are those of now."""
    stay = Decision(CONTINUE, "", state.share)
    if not state.live:
        return stay
    ended = _overtaken(state, seen)
    if ended is not None:
        return ended
    if state.status is Status.PENDING:
        return _begun(state, seen) or stay
    if state.status is Status.PROMOTING:
        return stay
    return _harmed(state, seen) or _progress(state, seen) or stay


def _overtaken(state: RolloutState, seen: Observed) -> Decision | None:
    """Return the decision if something outside of the rollout ended it."""
    if seen.champion == state.candidate:
        by_hand = "" if state.status is Status.PROMOTING else ": it was promoted outside of the rollout"
        return Decision("done", f"version {state.candidate} is champion{by_hand}", state.share)
    if seen.champion != state.champion:
        moved = f"version {seen.champion}" if seen.champion else "nothing"
        return Decision("stop", f"the endpoint now serves {moved}, not version {state.champion}", 0.0)
    if seen.lost:
        return Decision("fail", f"version {state.candidate} cannot be served: {seen.lost}", 0.0)
    return None


def _begun(state: RolloutState, seen: Observed) -> Decision | None:
    """Return the decision to begin, once every gateway has the candidate; it never begins in some of them alone."""
    plan, late = state.plan, state.watched_us >= LONGEST_GAP
    if seen.unable:
        why = f"version {state.candidate} cannot be served: {seen.unable}"
        return Decision("fail", why, 0.0) if late else None
    if seen.waiting:
        over = f"no decision within {format_duration(plan.longest_us)}"
        why = f"{over}: {seen.waiting} did not load version {state.candidate}"
        return Decision("end", why, 0.0) if state.watched_us >= plan.longest_us else None
    if seen.reference is not None and seen.reference < plan.least_requests and not late:
        return None
    return Decision(BEGIN, f"{_percent(plan.steps[0])} of the requests", plan.steps[0])


def _harmed(state: RolloutState, seen: Observed) -> Decision | None:
    """Return the decision if a guard is breached, the arms' shares are wrong, or the time is over."""
    worse = [reading for reading in seen.readings if reading.breach]
    if worse:
        return Decision("roll back", "; ".join(told(reading) for reading in worse), 0.0)
    if seen.sample_ratio is not None and seen.sample_ratio.breach:
        return Decision("fail", _unfair(state, seen), 0.0)
    unserved = state.held_us >= LONGEST_GAP and not seen.candidate and seen.unchosen >= _FEWEST
    if unserved and not seen.control and state.share > 0:
        return Decision("fail", _unserved(state, seen), 0.0)
    if state.watched_us >= state.plan.longest_us:
        return Decision("end", _undecided(state, seen), 0.0)
    return None


def _progress(state: RolloutState, seen: Observed) -> Decision | None:
    """Return the decision that a running rollout has earned."""
    plan = state.plan
    if state.status is Status.WAITING:
        return None
    hopeless = [goal for goal in seen.goals if goal.futile]
    if hopeless:
        return Decision("end", "no improvement that matters: " + "; ".join(map(told, hopeless)), 0.0)
    if state.held_us >= plan.hold_us and seen.candidate - state.step_from >= plan.least_requests:
        if state.step + 1 < len(plan.steps):
            share = plan.steps[state.step + 1]
            return Decision(STEP, f"no guard is breached: {_percent(share)} of the requests", share)
        if all(reading.safe for reading in (*seen.readings, *seen.goals)):
            proved = "; ".join(told(reading) for reading in (*seen.goals, *seen.readings))
            return Decision("promote" if plan.on_success == PROMOTE else "wait", proved, state.share)
    if plan.kind == BANDIT and seen.share is not None:
        limits = plan.floor, 1 - plan.floor
        share = min(max(round(seen.share, 2), plan.floor), 1 - plan.floor)
        # Few strata: small moves only to a limit, at which a share usually stays.
        if abs(share - state.share) >= 0.05 or (share in limits and share != state.share):
            return Decision(SHARE, f"{_percent(share)} of the requests", share)
    return None


def watched(state: RolloutState, now: int) -> RolloutState:
    """Return a live state whose times include that since the last look."""
    if state.looked_at is None or not state.live:
        return msgspec.structs.replace(state, looked_at=now)
    gap = min(max(0, now - state.looked_at), LONGEST_GAP)
    return msgspec.structs.replace(state, looked_at=now, held_us=state.held_us + gap, watched_us=state.watched_us + gap)


def looked(
    state: RolloutState, seen: Observed, now: int, *, evidence: Evidence | None = None, domain_now: int | None = None
) -> tuple[RolloutState, Look | None]:
    """Return the state after a look at the evidence, and the look if it is to be stored.

    Args:
        evidence: The evidence that was looked at, with what is new.
        domain_now: The instant by the clock that dates predictions; by default `now`.
    """
    state = watched(state, now)
    decision = decide(state, seen)
    if evidence is not None:
        state = msgspec.structs.replace(state, evidence=evidence)
    if decision.action == CONTINUE:
        fresh = seen.candidate + seen.control > 0
        if not fresh or (state.watched_us - state.shown_us) * _SHOWN < state.watched_us:
            return state, None
    return after(state, decision, seen, now, CONTROLLER, domain_now=domain_now)


def after(
    state: RolloutState,
    decision: Decision,
    seen: Observed,
    now: int,
    actor: str,
    *,
    domain_now: int | None = None,
) -> tuple[RolloutState, Look]:
    """Return the state after a decision, and the look that explains it."""
    status = _AFTER.get(decision.action, state.status)
    changed: dict[str, object] = {"status": status, "looks": state.looks + 1, "shown_us": state.watched_us}
    if decision.action == CONTINUE:
        changed["audited"] = state.audited + (state.audited == state.looks)  # no decision, no entry
    else:
        changed |= {"why": decision.why, "share": decision.share}
    if decision.action == BEGIN:
        changed |= {"began_at": now if domain_now is None else domain_now}
    if decision.action in (BEGIN, STEP):
        changed |= {
            "step": state.step + (decision.action == STEP),
            "held_us": 0,
            "step_from": seen.candidate,
        }
    made = msgspec.structs.replace(state, **changed)
    if not made.live:
        made = msgspec.structs.replace(made, ended_at=now)
    look = Look(
        rollout=state.id,
        number=made.looks,
        at=now,
        decision=decision.action,
        why=decision.why,
        actor=actor,
        status=made.status,
        step=made.step,
        share=made.share,
        candidate=seen.candidate,
        control=seen.control,
        readings=seen.readings,
        goals=seen.goals,
        sample_ratio=seen.sample_ratio,
    )
    return made, look


def intervened(state: RolloutState, action: str, actor: str, why: str, now: int) -> tuple[RolloutState, Look]:
    """Return the state after a person's "stop", "roll back" or "promote", or the outcome of a promotion.

    Raises:
        Conflict: The rollout has ended, or has not begun and is to be promoted.
    """
    if not state.live:
        raise Conflict(
            f"The rollout {state.id} of {state.endpoint!r} has ended: {state.status}.",
            fix=f"`mainspring rollout status {state.endpoint}` tells why.",
        )
    if action == "promote" and state.status is Status.PENDING:
        raise Conflict(
            f"The rollout {state.id} of {state.endpoint!r} has not begun.", fix="wait for its first look, or stop it."
        )
    share = state.share if action in ("promote", "done") else 0.0
    seen = Observed(candidate=state.evidence.candidate, control=state.evidence.control)
    return after(state, Decision(action, why, share), seen, now, actor)


def taken_back(state: RolloutState, actor: str, why: str, now: int) -> tuple[RolloutState, Look]:
    """Return the state after a person has undone a rollout's promotion, and the look that tells so."""
    seen = Observed(candidate=state.evidence.candidate, control=state.evidence.control)
    return after(state, Decision("roll back", why, 0.0), seen, now, actor)


def told(reading: Reading) -> str:
    """Return a reading in words, with its numbers."""
    name = reading.guard
    if reading.estimate is None:
        return f"{name}: {reading.note or 'nothing observed'}"
    interval = f"{_number(reading.low)} to {_number(reading.high)}"
    counts = f"{reading.candidate} candidate, {reading.control} champion"
    what = "x" if reading.unit == "ratio" else ""
    return f"{name} {_number(reading.estimate)}{what} ({interval}; tolerated {_number(reading.limit)}{what}; {counts})"


def _unfair(state: RolloutState, seen: Observed) -> str:
    both = seen.candidate + seen.control
    if not seen.candidate:
        return f"no request of {both} reached version {state.candidate}: no gateway has loaded it"
    assert seen.sample_ratio is not None
    return (
        f"the arms' requests do not fit their shares: {seen.candidate} of {both} reached version {state.candidate} "
        f"({told(seen.sample_ratio)}); some requests are lost, or not logged"
    )


def _unserved(state: RolloutState, seen: Observed) -> str:
    return (
        f"no gateway serves version {state.candidate}: {seen.unchosen} requests came, and each went to version "
        f"{state.champion} alone; the gateway's log and `mainspring doctor` tell why"
    )


def _undecided(state: RolloutState, seen: Observed) -> str:
    plan = state.plan
    over = f"no decision within {format_duration(plan.longest_us)}"
    if state.status is Status.WAITING:
        return f"{over}: nobody promoted version {state.candidate}"
    if not seen.candidate + seen.control:
        return f"{over}: no request came"
    short = plan.least_requests - (seen.candidate - state.step_from)
    if short > 0:
        return f"{over}: {short} of the candidate's {plan.least_requests} requests of step {state.step + 1} are missing"
    unsure = [each for each in (*seen.readings, *seen.goals) if not each.safe]
    return f"{over}: " + ("; ".join(map(told, unsure)) or "the last step was not held long enough")


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
