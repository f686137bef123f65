"""Rollouts as they are shown: one report each, with the newest numbers of every guard."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.core.time import SECOND, format_duration, format_instant
from mainspring.delivery.rollout.deciding import CONTINUE
from mainspring.delivery.rollout.judging import judge
from mainspring.delivery.rollout.model import Look, Reading, RolloutState, Status
from mainspring.delivery.rollout.pairing import DROPPED, SKIPPED
from mainspring.delivery.rollout.plan import SHADOW
from mainspring.delivery.rollout.plan_in_words import waits_for
from mainspring.delivery.routing import CHAMPION
from mainspring.operations.defending import in_words
from mainspring.operations.rollout.gateways import GatewayReport, gateways
from mainspring.project import Project


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout with its newest numbers.

    Attributes:
        share: The candidate's share of the endpoint's requests now; 1 while it is champion.
        step, steps: Number of the step, from 1, and the shares of all.
        step_left: The time that the step still holds at least; `left` the time until the plan ends the rollout.
        waits_for: Reasons why a live rollout does not go on, in words; empty of one that has ended.
        requests, champion_requests: Requests of each arm that were compared.
        unchosen: Requests without a choice of arm, as of a gateway that does not serve the candidate.
        dropped, skipped: Of a shadow: logged requests that were not scored, because too many came or because the log
            has not all of their inputs.
        gateways: While it is live: the gateway processes of this machine.
        decisions: Looks that changed something, oldest first.
        note: What to do next, where that is not obvious.
        shed: While it is live: the share of the endpoint's requests that is refused on purpose, in words.
    """

    id: str
    endpoint: str
    model: str
    kind: str
    status: str
    champion: str
    candidate: str
    share: float
    step: int
    steps: tuple[float, ...]
    step_left: str
    left: str
    requests: int
    champion_requests: int
    readings: tuple[Reading, ...]
    goals: tuple[Reading, ...]
    sample_ratio: Reading | None
    looks: int
    why: str
    actor: str
    reason: str
    created_at: str
    ended_at: str | None
    unchosen: int = 0
    dropped: int = 0
    skipped: int = 0
    gateways: tuple[GatewayReport, ...] = ()
    decisions: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    note: str = ""
    shed: str = ""


def report(project: Project, state: RolloutState) -> RolloutReport:
    """Return the report of a rollout, with its decisions."""
    looks = [look for look in all_looks(project, state) if look.decision != CONTINUE]
    last = next((look for look in reversed(looks) if look.readings), None)
    seen = judge(state.plan, state.evidence)
    made = _made(state)
    if not state.live and last is not None:  # the numbers that decided
        made = msgspec.structs.replace(made, readings=last.readings, goals=last.goals, sample_ratio=last.sample_ratio)
    else:
        made = msgspec.structs.replace(made, readings=seen.readings, goals=seen.goals, sample_ratio=seen.sample_ratio)
    there = gateways(project, state.endpoint) if state.live and state.plan.kind != SHADOW else ()
    champion = state.status is Status.DONE and _champion(project, state) == state.candidate
    return msgspec.structs.replace(
        made,
        share=1.0 if champion else made.share,
        decisions=tuple(map(_told, looks)),
        waits_for=waits_for(state, [each.guard for each in (*seen.readings, *seen.goals) if not each.safe]),
        gateways=there,
        note=_note(project, state, there),
        shed=in_words(project, state.endpoint) if state.ended_at is None else "",
    )


def listed(project: Project, endpoint: str | None, limit: int) -> list[RolloutReport]:
    """Return rollouts without their readings and decisions, newest first."""
    found = project.rollouts.find(endpoints=[endpoint] if endpoint else (), limit=limit)
    return [_made(state) for state in found]


def _made(state: RolloutState) -> RolloutReport:
    plan, evidence = state.plan, state.evidence
    return RolloutReport(
        id=state.id,
        endpoint=state.endpoint,
        model=state.model,
        kind=plan.kind,
        status=state.status,
        champion=state.champion,
        candidate=state.candidate,
        share=state.share if state.live else 0.0,
        step=state.step + 1,
        steps=plan.steps,
        step_left=_left(plan.hold_us, state.held_us),
        left=_left(plan.longest_us, state.watched_us),
        requests=evidence.candidate,
        champion_requests=evidence.control,
        readings=(),
        goals=(),
        sample_ratio=None,
        looks=state.looks,
        why=state.why,
        actor=state.actor,
        reason=state.reason,
        created_at=format_instant(state.created_at),
        ended_at=None if state.ended_at is None else format_instant(state.ended_at),
        unchosen=evidence.unchosen if plan.kind != SHADOW else 0,
        dropped=sum(each.candidate for each in evidence.events.get(DROPPED, ())),
        skipped=sum(each.candidate for each in evidence.events.get(SKIPPED, ())),
    )


def _champion(project: Project, state: RolloutState) -> str:
    return project.versions.get(state.model, CHAMPION).version


def _left(whole: int, used: int) -> str:
    return format_duration(max(0, whole - used) // SECOND * SECOND)


def _told(look: Look) -> str:
    return f"{format_instant(look.at)} {look.decision} by {look.actor}: {look.why}"


def all_looks(project: Project, state: RolloutState) -> list[Look]:
    """Return every look of a rollout, oldest first."""
    looks: list[Look] = []
    while page := project.rollouts.looks(state.id, after=looks[-1].number if looks else 0):
        looks += page
    return looks


def _note(project: Project, state: RolloutState, there: Sequence[GatewayReport]) -> str:
    from mainspring.operations.jobs.queue import worker_is_up

    if state.live and not worker_is_up(project):
        return "No worker is running, so nothing is observed: start one with `mainspring up`."
    if state.status == "pending":
        without = ", ".join(each.process for each in there if state.candidate not in each.versions)
        if without:
            return f"It begins once every gateway process has loaded version {state.candidate}: {without} has not."
    if state.status == "waiting":
        return f"It succeeded: run `mainspring rollout promote {state.endpoint}`, or rollback."
    if state.status is Status.DONE and (now := _champion(project, state)) != state.candidate:
        return f"Since then the champion has moved: version {now} serves."
    return ""
