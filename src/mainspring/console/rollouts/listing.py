"""View models of the list of rollouts and of one rollout, for the templates and the API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.console.plots import Plot
from mainspring.console.rollouts import pictures
from mainspring.console.rollouts.words import sentence, state_of, strength
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.ids import ID_PATTERN
from mainspring.delivery.rollout.deciding import CONTINUE
from mainspring.delivery.rollout.judging import breached_from
from mainspring.delivery.rollout.model import LIVE, Look, Reading, RolloutState, Status
from mainspring.delivery.rollout.plan import SHADOW
from mainspring.delivery.rollout.plan_in_words import waits_for
from mainspring.operations.rollout.gateways import GatewayReport, gateways
from mainspring.operations.rollout.reports import all_looks
from mainspring.project import Project
from mainspring.security.model import AuditEvent

SHOWN, LOOKS = 25, 50
DRAWN = 200  # looks in a drawing; of more, decisions and every n-th are drawn
_AUDITED = 1_000  # newest events of the audit log that are searched
_PLACE = re.compile(rf"(\d{{1,16}})-({ID_PATTERN})")

# Status -> the stylesheet's class.
STATES: Mapping[Status, str] = {
    Status.PENDING: "waits",
    Status.RUNNING: "live",
    Status.WAITING: "drifted",
    Status.PROMOTING: "live",
    Status.DONE: "fresh",
    Status.ROLLED_BACK: "alert",
    Status.STOPPED: "drifted",
    Status.FAILED: "late",
    Status.INCONCLUSIVE: "drifted",
}


@dataclass(frozen=True, slots=True)
class RolloutList:
    """Live rollouts, and some that ended, newest first; `next` is where older ones begin."""

    live: tuple[RolloutState, ...]
    ended: tuple[RolloutState, ...]
    before: str
    next: str


@dataclass(frozen=True, slots=True)
class Metric:
    """A guard or goal: its newest reading in words, and its numbers over all looks.

    `estimates` is its confidence sequence, `evidence` its e-values; `None` where nothing was compared.
    """

    reading: Reading
    goal: bool
    word: str
    state: str
    sentence: str
    strength: str
    estimates: Plot | None
    evidence: Plot | None

    @property
    def name(self) -> str:
        return self.reading.guard


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """A rollout. `looks` are all, oldest first; `metrics` are guards, goals and the sample ratio."""

    state: RolloutState
    looks: tuple[Look, ...]
    metrics: tuple[Metric, ...]
    shares: Plot
    events: tuple[AuditEvent, ...]
    limit: float  # e-value from which a guard is breached
    every: int  # every n-th look without a decision is drawn
    gateways: tuple[GatewayReport, ...]  # of this machine, while it is live

    @property
    def decisions(self) -> list[Look]:
        """Looks that changed something, newest first."""
        return [look for look in reversed(self.looks) if look.decision != CONTINUE]

    @property
    def awaits(self) -> str:
        """For what a live rollout waits."""
        reasons = waits_for(self.state, [metric.name for metric in self.metrics if metric.state == "waits"])
        return " and ".join(reasons) or "the next look"

    @property
    def may_be_promoted(self) -> bool:
        return self.state.status in (Status.RUNNING, Status.WAITING)

    @property
    def names(self) -> list[str]:
        """Names of the metrics."""
        return [f"{metric.name} (goal)" if metric.goal else metric.name for metric in self.metrics]

    def readings(self, look: Look) -> list[Reading | None]:
        """Return the readings of a look, in the order of the metrics."""
        found = dict(_readings(look))
        return [found.get((metric.goal, metric.name)) for metric in self.metrics]


def rollout_list(project: Project, *, endpoint: str = "", before: str = "", limit: int = SHOWN) -> RolloutList:
    """Return the live rollouts, and the newest ended ones or those older than `before`.

    Raises:
        Invalid: `before` is not a valid position.
    """
    endpoints = [endpoint] if endpoint else []
    found = project.rollouts.find(
        endpoints=endpoints,
        statuses=set(Status) - LIVE,
        before=_place(before) if before else None,
        limit=limit + 1,
    )
    rows = found[:limit]
    return RolloutList(
        live=tuple(each for each in project.rollouts.live() if not endpoint or each.endpoint == endpoint),
        ended=tuple(rows),
        before=before,
        next=f"{rows[-1].created_at}-{rows[-1].id}" if len(found) > limit else "",
    )


def find_rollout(project: Project, id: str) -> RolloutState:
    """Return a rollout.

    Raises:
        NotFound: It does not exist.
    """
    [found] = project.rollouts.get([id])
    if found is None:
        raise NotFound(f"There is no rollout {id!r}.", fix="`mainspring rollout list` lists them.")
    return found


def rollout_page(project: Project, id: str) -> RolloutPage:
    """Return a rollout with its looks.

    Raises:
        NotFound: It does not exist.
    """
    state = find_rollout(project, id)
    looks = tuple(all_looks(project, state))
    every = -(-len(looks) // DRAWN) or 1
    drawn = [look for look in looks if look.decision != CONTINUE or (len(looks) - look.number) % every == 0]
    end = project.wall.now() if state.live or state.ended_at is None else state.ended_at
    return RolloutPage(
        state=state,
        looks=looks,
        metrics=tuple(_metrics(state, drawn, end)),
        shares=pictures.shares(looks, end),
        events=tuple(each for each in project.audit.read(_AUDITED) if state.id in each.detail),
        limit=breached_from(state.plan),
        every=every,
        gateways=gateways(project, state.endpoint) if state.live and state.plan.kind != SHADOW else (),
    )


def _metrics(state: RolloutState, looks: Sequence[Look], end: int) -> list[Metric]:
    """Return the metrics of the newest look that has readings."""
    last = next((look for look in reversed(looks) if look.readings or look.goals), None)
    if last is None:
        return []
    over: dict[tuple[bool, str], list[tuple[int, Reading]]] = {}
    for look in looks:
        for key, reading in _readings(look):
            over.setdefault(key, []).append((look.at, reading))
    return [_metric(state, reading, over[key], end, goal=key[0]) for key, reading in _readings(last)]


def _metric(
    state: RolloutState, reading: Reading, over: Sequence[tuple[int, Reading]], end: int, *, goal: bool
) -> Metric:
    limit = breached_from(state.plan)
    word, look = state_of(reading, goal=goal)
    compared = any(each.estimate is not None or each.log_e for _, each in over)
    return Metric(
        reading=reading,
        goal=goal,
        word=word,
        state=look,
        sentence=sentence(reading, state),
        strength="" if goal else strength(reading, state.plan),
        estimates=pictures.sequence(over, end),
        evidence=None if goal or not compared else pictures.evidence(over, end, limit),
    )


def _readings(look: Look) -> list[tuple[tuple[bool, str], Reading]]:
    """Return all readings of a look; a key says whether it is a goal's, and its name."""
    ratio = () if look.sample_ratio is None else (look.sample_ratio,)
    both = ((False, look.readings), (True, look.goals), (False, ratio))
    return [((goal, each.guard), each) for goal, readings in both for each in readings]


def _place(text: str) -> tuple[int, str]:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise Invalid(
            "This is not a position in the list of rollouts.", fix="use `next` of the previous page, or leave it out."
        )
    return int(match[1]), match[2]
