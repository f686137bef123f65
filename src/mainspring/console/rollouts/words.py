"""Readings and decisions of rollouts in sentences, for people who do not know the statistics."""

from __future__ import annotations

import math

from mainspring.delivery.rollout.deciding import CONTROLLER
from mainspring.delivery.rollout.guards import ERRORS, LATENCY, OUTCOME, QUALITY, SCORE
from mainspring.delivery.rollout.judging import SAMPLE_RATIO, breached_from
from mainspring.delivery.rollout.model import Look, Reading, RolloutState
from mainspring.delivery.rollout.plan import Plan

DECISIONS = {
    "start": "Started",
    "begin": "First requests",
    "continue": "No change",
    "step": "Next step",
    "share": "New share",
    "wait": "Succeeded",
    "promote": "Succeeded",
    "done": "Promoted",
    "roll back": "Rolled back",
    "stop": "Stopped",
    "fail": "Failed",
    "end": "Ended undecided",
}


def state_of(reading: Reading, *, goal: bool = False) -> tuple[str, str]:
    """Return a word for a reading, and the stylesheet's class of the state."""
    if reading.breach:
        return "Worse than tolerated", "alert"
    if goal and reading.futile:
        return "No improvement", "drifted"
    if reading.safe:
        return ("Better" if goal else "Holds"), "fresh"
    return "Undecided", "waits"


def sentence(reading: Reading, state: RolloutState) -> str:
    """Return one reading in a sentence, with its numbers."""
    if reading.estimate is None:
        return f"{_thing(reading)}: {reading.note or 'nothing was observed yet'}."
    low, high = ("unknown" if each is None else f"{each:.3g}" for each in (reading.low, reading.high))
    if reading.guard == SAMPLE_RATIO:
        return (
            f"Version {state.candidate} had {reading.estimate:.3g} times the odds of requests that its share gives it "
            f"(between {low} and {high}; 1 is exact): {reading.candidate:,} requests, against {reading.control:,} of "
            f"version {state.champion}."
        )
    if reading.guard == LATENCY and not reading.note:
        return (
            f"Version {state.candidate} takes {reading.estimate:.3g} times as long as version {state.champion} "
            f"(between {low} and {high} times; up to {reading.limit:.3g} is tolerated). Counted: {reading.candidate:,} "
            f"answers of version {state.candidate}, {reading.control:,} of version {state.champion}."
        )
    if reading.unit == "ratio":
        return (
            f"{_thing(reading)} are {reading.estimate:.3g} times as frequent with version {state.candidate} as with "
            f"version {state.champion} (between {low} and {high} times; up to {reading.limit:.3g} is tolerated). "
            f"Counted: {reading.candidate:,} of version {state.candidate}, {reading.control:,} of version "
            f"{state.champion}."
        )
    if reading.guard == SCORE:
        return (
            f"{_thing(reading)}: {reading.estimate:.3g} (between {low} and {high}; up to {reading.limit:.3g} is "
            f"tolerated), in {reading.candidate:,} pairs."
        )
    return (
        f"{_thing(reading)} of version {state.candidate} differs by {reading.estimate:+.3g} from version "
        f"{state.champion}'s (between {low} and {high}; the limit is {reading.limit:+.3g}). Counted: "
        f"{reading.candidate:,} labelled predictions of version {state.candidate}, {reading.control:,} of version "
        f"{state.champion}."
    )


def strength(reading: Reading, plan: Plan) -> str:
    """Return in a sentence how strong the evidence against a guard is."""
    limit = breached_from(plan)
    e_value = math.exp(min(reading.log_e, 700))
    if reading.breach:
        return (
            f"If it were no worse than tolerated, such numbers would come up in at most 1 of {e_value:,.0f} rollouts; "
            f"1 of {limit:,.0f} is the limit for a rollback."
        )
    return f"The evidence against it (e-value) is {e_value:.3g}; a rollback needs {limit:,.0f}."


def why(look: Look, state: RolloutState) -> list[str]:
    """Return in sentences why a look decided as it did."""
    candidate, both = f"Version {state.candidate}", (*look.readings, *look.goals)
    if look.actor != CONTROLLER:
        if look.decision == "start":
            begun = f"{look.actor} started it: version {state.candidate} beside champion {state.champion}."
            return [begun, *([f"Reason: {state.reason}"] if state.reason else [])]
        told = {"stop": "stopped it", "roll back": "rolled it back", "done": "promoted the candidate"}
        return [f"{look.actor} {told.get(look.decision, 'decided so')}: {look.why}."]
    if look.decision == "begin":
        return [
            f"A controller looked for the first time: {candidate.lower()} gets {100 * look.share:g}% of the requests."
        ]
    if look.decision == "roll back":
        worse = [reading for reading in look.readings if reading.breach]
        return [text for each in worse for text in (sentence(each, state), strength(each, state.plan))] or [look.why]
    if look.decision == "step":
        return [
            f"{candidate} had {look.candidate:,} requests, the step was held long enough, and no guard was breached: "
            f"it now gets {100 * look.share:g}% of the requests."
        ]
    if look.decision in ("promote", "wait") and both:
        ready = "It becomes champion." if look.decision == "promote" else "A person decides about the promotion."
        return [
            f"Every guard is shown to hold, after {look.candidate:,} requests. {ready}",
            *(sentence(each, state) for each in both),
        ]
    if look.decision == "end" and any(goal.futile for goal in look.goals):
        hopeless = [goal for goal in look.goals if goal.futile]
        return ["An improvement that matters is excluded.", *(sentence(each, state) for each in hopeless)]
    return [f"{look.why[:1].upper()}{look.why[1:]}."] if look.why else []


def _thing(reading: Reading) -> str:
    kind, _, metric = reading.guard.partition(" ")
    if kind == ERRORS:
        return "Failed requests"
    if kind in (LATENCY, SCORE) and reading.note:
        return reading.note[:1].upper() + reading.note[1:]
    if kind in (LATENCY, SCORE):
        return {LATENCY: "Slow requests", SCORE: "Scores"}[kind]
    if kind in (QUALITY, OUTCOME):
        return f"The mean {metric.replace('_', ' ')}"
    return reading.note[:1].upper() + reading.note[1:] if reading.estimate is not None else reading.guard.capitalize()
