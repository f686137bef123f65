"""Plan of a rollout: data that a project declares, or that defaults give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Literal

import msgspec

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.core.time import MINUTE, format_duration, parse_duration
from mainspring.data.model import SourceColumn
from mainspring.delivery.rollout import guards
from mainspring.delivery.rollout.guards import LOSSES, Guard

CANARY, BLUE_GREEN, AB, BANDIT, SHADOW = "canary", "blue-green", "ab", "bandit", "shadow"
KINDS = (CANARY, BLUE_GREEN, AB, BANDIT, SHADOW)
PROMOTE, WAIT = "promote", "wait"
ANSWERS = "answers"  # task of a chain of answers
_STEPS = {CANARY: (0.05, 0.25, 0.5), BLUE_GREEN: (1.0,), AB: (0.5,), BANDIT: (0.5,), SHADOW: (0.0,)}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout's plan, complete: stored with the rollout, so that a later declaration changes none that runs.

    Attributes:
        steps: The candidate's share in each step, growing; of a bandit, the share to begin with; of a shadow, 0.
        hold_us: The shortest time of a step, counted while a controller looks.
        least_requests: The candidate's requests in a step before the next.
        alpha: The chance that a candidate no worse than tolerated is rolled back, over all guards and looks.
        assign: Unit that is assigned to an arm: each "request", or each entity "key".
        by: With "key": the key column that is the unit; empty for all of a request's key columns together.
        longest_us: The longest time of the rollout, counted while a controller looks.
        on_success: "promote" lets the candidate be champion, "wait" leaves that to a person.
        floor: Of a bandit: the smallest share of either arm.
    """

    endpoint: str
    kind: str = CANARY
    steps: tuple[float, ...] = _STEPS[CANARY]
    hold_us: int = 10 * MINUTE
    least_requests: int = 100
    guards: tuple[Guard, ...] = ()
    goals: tuple[Guard, ...] = ()
    alpha: float = 0.05
    assign: Literal["request", "key"] = "request"
    longest_us: int = 7 * 24 * 60 * MINUTE
    on_success: str = PROMOTE
    floor: float = 0.1
    by: str = ""

    @property
    def most(self) -> float:
        """The largest share that the candidate may have at any time."""
        return 1.0 - self.floor if self.kind == BANDIT else max(self.steps)

    def allowed(self, step: int) -> float:
        """Return the largest share that the candidate may have in a step."""
        return self.most if self.kind == BANDIT else self.steps[step]


@dataclass(frozen=True, eq=False)
class Rollout:
    """How new versions reach an endpoint, or a chain of answers: `mainspring rollout start` follows it.

    Args:
        endpoint: Name of the endpoint, or of the chain.
        kind: "canary" grows by steps. "blue-green" moves every request at once, and back as fast. "ab" splits by entity
            key and compares goals. "bandit" moves the share to the arm that does better, within `floor`. "shadow"
            scores logged requests with the candidate and answers none.
        steps: The candidate's share in each step, each larger than the one before; by default of the kind.
        hold: The shortest time of a step, a duration.
        least_requests: The candidate's requests in a step before the next.
        guards: Metrics that may end the rollout, from `ms.guards`; by default errors, latency and score. The candidate
            succeeds once none of them is worse than tolerated.
        goals: Metrics that must improve: `ms.guards.quality`, `ms.guards.outcome` or `ms.guards.output`.
        alpha: The chance of rolling back a candidate that is no worse than tolerated, over all guards and looks.
        assign: Unit that is assigned to an arm: "request"; the name of an entity's key column, such as "customer"; or
            "key", all of a request's key columns together. By default "key" for "ab".
        longest: A duration. A rollout without a decision by then ends, and the champion has all requests again.
        on_success: "promote", or "wait" for `mainspring rollout promote`; by default "wait" for "ab" and "shadow".
        floor: Of a bandit: the smallest share of either arm, above 0, at most 0.5.
    """

    endpoint: str
    _: KW_ONLY
    kind: str = CANARY
    steps: Sequence[float] | None = None
    hold: str | int = "10m"
    least_requests: int = 100
    guards: Sequence[Guard] | None = None
    goals: Sequence[Guard] = ()
    alpha: float = 0.05
    assign: str | None = None
    longest: str | int = "7d"
    on_success: str | None = None
    floor: float = 0.1

    def __post_init__(self) -> None:
        check_id(self.endpoint, "endpoint")
        _check(self, self._refusal)
        declare(self)

    @property
    def name(self) -> str:
        return self.endpoint

    def _refusal(self, what: str, fix: str) -> Invalid:
        return Invalid(f"The rollout of {self.endpoint!r} {what}.", fix=fix)

    @property
    def plan(self) -> Plan:
        """The complete plan, defaults filled in."""
        waits, assign = self.kind in (AB, SHADOW), self.assign or ("key" if self.kind == AB else "request")
        chosen = (guards.errors(), guards.latency(), guards.score()) if self.guards is None else tuple(self.guards)
        return Plan(
            endpoint=self.endpoint,
            kind=self.kind,
            steps=tuple(float(each) for each in (_STEPS[self.kind] if self.steps is None else self.steps)),
            hold_us=parse_duration(self.hold),
            least_requests=self.least_requests,
            guards=chosen,
            goals=tuple(self.goals),
            alpha=self.alpha,
            assign="request" if assign == "request" else "key",
            by="" if assign in ("request", "key") else assign,
            longest_us=parse_duration(self.longest),
            on_success=self.on_success or (WAIT if waits else PROMOTE),
            floor=self.floor,
        )


_UNITS = 'write assign="request", assign="key", or the name of an entity\'s key column.'
Refuse = Callable[[str, str], Invalid]


def _check(rollout: Rollout, refuse: Refuse) -> None:
    """Raise if the plan of a rollout does not hold together."""
    owner = f"The rollout of {rollout.endpoint!r}"
    if rollout.kind not in KINDS:
        raise refuse(f"has the kind {rollout.kind!r}", f"use one of {', '.join(KINDS)}.")
    expect(rollout.assign, (str, type(None)), f"{owner}'s assign", fix=_UNITS)
    if rollout.on_success not in (None, PROMOTE, WAIT):
        raise refuse(f"has on_success={rollout.on_success!r}", 'write on_success="promote" or on_success="wait".')
    if rollout.steps is not None:
        _check_steps(rollout, refuse)
    expect(rollout.least_requests, int, f"{owner}'s least_requests", fix="give a number of requests.")
    expect(rollout.alpha, (int, float), f"{owner}'s alpha", fix="give a probability, such as 0.05.")
    expect(rollout.floor, (int, float), f"{owner}'s floor", fix="give a share, such as 0.1.")
    if rollout.least_requests < 0:
        raise refuse(f"has least_requests={rollout.least_requests}", "give a number of at least 0.")
    if not 0 < rollout.alpha <= 0.5:
        raise refuse(f"has alpha={rollout.alpha}", "give a probability above 0, at most 0.5.")
    if not 0 < rollout.floor <= 0.5:
        raise refuse(
            f"has floor={rollout.floor}, which two arms cannot both have", "give a share above 0, at most 0.5."
        )
    _check_metrics(rollout, refuse)
    for name in ("hold", "longest"):
        guards.expect_unit(f"{owner}'s {name}", getattr(rollout, name))
    hold, longest = parse_duration(rollout.hold), parse_duration(rollout.longest)
    steps = len(rollout.steps or _STEPS[rollout.kind])
    if hold * steps >= longest:
        raise refuse(
            f"has {steps} steps of {format_duration(hold)} and ends after {format_duration(longest)}",
            "let longest be longer than all steps together.",
        )
    late = [each for each in (*(rollout.guards or ()), *rollout.goals) if (each.within_us or 0) >= longest]
    if late:
        raise refuse(
            f"has {late[0].name} within {format_duration(late[0].within_us or 0)} and ends after "
            f"{format_duration(longest)}, before any prediction counts",
            "let longest be longer than within.",
        )


def _check_metrics(rollout: Rollout, refuse: Refuse) -> None:
    owner = f"The rollout of {rollout.endpoint!r}"
    for kind, given in (("guards", rollout.guards or ()), ("goals", rollout.goals)):
        expect_each(given, Guard, f"{owner}'s {kind}", fix=f"write {kind}=[ms.guards.errors(), ...].")
        names = [each.name for each in given]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise refuse(f"has several {kind} on {twice[0]}", "leave one of them.")
    if rollout.guards is not None and not rollout.guards and not rollout.goals:
        raise refuse("has neither guards nor goals", "leave out guards for the defaults.")
    no_goals = [goal.name for goal in rollout.goals if not goal.labelled and goal.kind != guards.OUTPUT]
    if no_goals:
        raise refuse(f"has the goal {no_goals[0]}", "use ms.guards.quality, ms.guards.outcome or ms.guards.output.")
    if rollout.kind in (AB, BANDIT) and not rollout.goals:
        raise refuse(f"is of the kind {rollout.kind} and has no goal", "write goals=[ms.guards.quality(...)].")
    if rollout.kind == BANDIT and len(rollout.goals) > 1:
        raise refuse(f"is a bandit with {len(rollout.goals)} goals", "leave one of them; guard the others.")
    means = [
        each.name for each in (*(rollout.guards or ()), *rollout.goals) if each.labelled or each.kind == guards.OUTPUT
    ]
    if rollout.kind == SHADOW and means:
        raise refuse(f"is a shadow with {means[0]}", "use ms.guards.errors() and ms.guards.score().")


def _check_steps(rollout: Rollout, refuse: Refuse) -> None:
    steps = rollout.steps
    expect_each(
        steps, (int, float), f"The steps of the rollout of {rollout.endpoint!r}", fix="give shares: (0.05, 0.5)."
    )
    assert steps is not None
    if not steps:
        raise refuse("has no step", "leave out steps for the kind's own.")
    if rollout.kind in (BANDIT, SHADOW):
        raise refuse(f"is a {rollout.kind} with steps={tuple(steps)}", "leave out steps.")
    wrong = [each for each in steps if not 0 < each <= 1]
    if wrong:
        raise refuse(f"has a step of {wrong[0]}", "give shares above 0, at most 1: 0.05 for 5%.")
    for before, after in pairwise(steps):
        if after <= before:
            raise refuse(f"has the step {after} after {before}", "let each step be larger than the one before.")
    if len(steps) > 1 and rollout.kind != CANARY:
        raise refuse(f"is {rollout.kind} with {len(steps)} steps", 'give one share, or write kind="canary".')
    if rollout.kind in (CANARY, AB) and steps[-1] == 1:
        raise refuse(
            "leaves the champion nothing in its last step, so there is nothing to compare",
            'let the last step be below 1; success gives the rest. Or write kind="blue-green".',
        )


def unfit(plan: Plan, task: str, labels: Sequence[SourceColumn], keys: Sequence[str] = ()) -> tuple[str, str] | None:
    """Return what of a plan cannot exist for a model, and the fix; `None` if all can.

    Args:
        task: The model's task; `ANSWERS` of a chain of answers.
        labels: Its labels; none for a model that the project only serves.
        keys: Its key columns; likewise.
    """
    if task == ANSWERS and plan.kind == SHADOW:
        return "is a shadow, and a chain of answers is not asked again without a caller", 'use kind="canary".'
    if plan.by and keys and plan.by not in keys:
        return (
            f"has assign={plan.by!r}, which is no key of the model",
            f"use one of {', '.join(('request', 'key', *keys))}.",
        )
    numbers = {each.column: each.source.columns[each.column] is not DType.String for each in labels}
    for guard in (*plan.guards, *plan.goals):
        if guard.labelled and not numbers:
            return f"is on {guard.name}, and the project declares no label of the model", "leave it out."
        if guard.kind == guards.QUALITY and task not in LOSSES[guard.metric]:
            losses = [name for name, tasks in LOSSES.items() if task in tasks]
            fix = f"use one of {', '.join(losses)}." if losses else "leave it out."
            return f"is on {guard.name}, which a {task} model does not have", fix
        if guard.kind == guards.OUTCOME and guard.metric not in numbers:
            return f"is on the label {guard.metric!r}, which the model does not have", f"name one of {sorted(numbers)}."
        if guard.kind == guards.OUTCOME and not numbers[guard.metric]:
            fix = "a String has no mean; use ms.guards.quality."
            return f"is on the label {guard.metric!r}, whose values are not numbers", fix
    return None
