"""Plans of rollouts, and what a rollout waits for, in words for people who do not know the statistics."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.time import SECOND, format_duration
from mainspring.delivery.rollout.guards import ERRORS, LATENCY, LOSSES, OUTPUT, QUALITY, SCORE, Guard
from mainspring.delivery.rollout.model import RolloutState, Status
from mainspring.delivery.rollout.plan import AB, BANDIT, BLUE_GREEN, CANARY, PROMOTE, SHADOW, Plan

_KINDS = {
    CANARY: "Canary: the candidate gets a growing share of the requests",
    BLUE_GREEN: "Blue-green: the candidate gets every request at once",
    AB: "A/B test: the requests are split by a fixed share",
    BANDIT: "Bandit: the better arm gets more of the requests",
}


def planned(plan: Plan) -> list[str]:
    """Return a plan in sentences."""
    if plan.kind == SHADOW:
        return _planned_shadow(plan)
    steps = ", then ".join(f"{100 * share:g}%" for share in plan.steps)
    unit = (
        "Each request is"
        if plan.assign == "request"
        else f"Each {plan.by or 'entity key'} keeps its arm: its requests are"
    )
    told = [
        f"{_KINDS[plan.kind]}: {steps}.",
        f"{unit} assigned at random. A step lasts at least {format_duration(plan.hold_us)} and "
        f"{plan.least_requests:,} requests of the candidate.",
        "It is rolled back at once if one of these is worse than tolerated: "
        + "; ".join(map(_tolerated, plan.guards))
        + ".",
    ]
    if plan.goals:
        told.append("It succeeds only if these improve: " + ", ".join(goal.name for goal in plan.goals) + ".")
    after = "the candidate becomes champion" if plan.on_success == PROMOTE else "a person decides about the promotion"
    told.append(
        f"After its last step {after} once every guard is shown to hold. Without a decision within "
        f"{format_duration(plan.longest_us)} the champion gets every request again."
    )
    told.append(
        f"A candidate that is no worse than tolerated is rolled back by mistake in at most {100 * plan.alpha:g}% of "
        "rollouts, however often the numbers are looked at."
    )
    return told


def missing_guard(plan: Plan, task: str, labelled: bool) -> str:
    """Return which guard a plan lacks, as errors, latency and scores do not show whether answers are right; else "".

    Args:
        labelled: Whether labels of the predictions come.
    """
    if not labelled or any(guard.labelled for guard in (*plan.guards, *plan.goals)):
        return ""
    metric = next((name for name, tasks in LOSSES.items() if task in tasks), None)
    if metric is None:
        return ""
    return (
        f'Labels come, and no guard compares them: with ms.guards.quality("{metric}") answers that are wrong are found.'
    )


def waits_for(state: RolloutState, undecided: Sequence[str]) -> tuple[str, ...]:
    """Return why a live rollout does not go on, as `delivery.rollout.deciding` decides it; empty until the next look.

    Args:
        undecided: Guards and goals that are not shown to hold.
    """
    plan = state.plan
    if state.status is Status.PENDING:
        return ("the first look of a worker",)
    if state.status is Status.WAITING:
        return ("a person, who promotes the candidate or ends the rollout",)
    if state.status is not Status.RUNNING:
        return ()
    held, fewer = plan.hold_us - state.held_us, plan.least_requests - (state.evidence.candidate - state.step_from)
    waits = [f"{format_duration(held // SECOND * SECOND)} more"] if held >= SECOND else []
    counted = "pairs of answers" if plan.kind == SHADOW else f"requests of version {state.candidate}"
    waits += [f"{fewer:,} more {counted}"] if fewer > 0 else []
    if not waits and undecided and state.step + 1 >= len(plan.steps):
        waits.append(f"evidence on {', '.join(undecided)}")
    return tuple(waits)


def _planned_shadow(plan: Plan) -> list[str]:
    compared = [guard for guard in plan.guards if guard.kind != LATENCY]
    return [
        "Shadow: the candidate answers logged requests of the champion again, and no caller.",
        f"It lasts at least {format_duration(plan.hold_us)} and {plan.least_requests:,} pairs of answers.",
        f"It ends at once if one of these is worse than tolerated: {'; '.join(map(_tolerated_in_pairs, compared))}.",
        f"It ends without a decision after {format_duration(plan.longest_us)}.",
        f"A candidate that is no worse than tolerated is found worse in at most {100 * plan.alpha:g}% of shadows, "
        "however often the numbers are looked at.",
    ]


def _tolerated_in_pairs(guard: Guard) -> str:
    if guard.kind == SCORE:
        allowed = guard.tolerance / 2
        return f"the mean difference of a pair's scores, up to {allowed:g} standard deviations of the champion's scores"
    return _tolerated(guard)


def _tolerated(guard: Guard) -> str:
    if guard.kind == ERRORS:
        harmless = "" if guard.at_most is None else f" (a share up to {100 * guard.at_most:g}% is harmless)"
        return f"failed requests, up to {1 + guard.tolerance:g} times the champion's share{harmless}"
    if guard.kind == LATENCY:
        return f"latency, up to {guard.factor:g} times the champion's"
    if guard.kind == SCORE:
        return f"the distribution of scores, up to {1 + guard.tolerance:g} times as many in each range"
    if guard.kind == QUALITY:
        return f"mean {guard.metric.replace('_', ' ')} of predictions with labels, up to {guard.tolerance:g} higher"
    worse = "lower" if guard.higher_is_better else "higher"
    if guard.kind == OUTPUT:
        return f"mean {guard.metric} of answers, up to {guard.tolerance:g} {worse}"
    return f"mean {guard.metric} as labels come, up to {guard.tolerance:g} {worse}"
