"""Carrying out of a project's rollouts: what their controller needs of the project."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.time import DAY
from mainspring.delivery.model import Promotion
from mainspring.delivery.rollout.controller import Controller
from mainspring.delivery.rollout.judging import judge
from mainspring.delivery.rollout.labelling import labelled
from mainspring.delivery.rollout.measuring import measured
from mainspring.delivery.rollout.model import Evidence, Observed, RolloutState, Status
from mainspring.delivery.rollout.observing import before_it_began, fixed, observed
from mainspring.delivery.rollout.pairing import scaled
from mainspring.delivery.rollout.plan import BLUE_GREEN, SHADOW
from mainspring.delivery.routing import version_of
from mainspring.ledger.model import Prediction
from mainspring.operations.promote import gated, promote, publish_routes
from mainspring.operations.rollout.gateways import unready
from mainspring.project import Project

_HISTORY = 1_000  # predictions before the rollout that fix thresholds
_SLACK = DAY  # by which the clocks of a gateway and a controller may differ when the log is read for the first time


def controller(project: Project, *, at: Callable[[str], None] = lambda _: None) -> Controller:
    """Return a controller of the project's rollouts."""
    return Controller(project.rollouts, ProjectSurroundings(project), project.audit, project.wall, project.clock, at=at)


def shadowed(project: Project) -> list[RolloutState]:
    """Return the live shadows that have begun."""
    live = project.rollouts.live()
    return [state for state in live if state.plan.kind == SHADOW and state.status in (Status.RUNNING, Status.WAITING)]


class ProjectSurroundings:
    """`Surroundings` of a project."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def champion(self, state: RolloutState) -> str:
        definitions = self._project.definitions
        if state.endpoint not in {**definitions.endpoints, **definitions.answers}:
            return ""
        endpoint = definitions.served(state.endpoint)
        if endpoint.model_name != state.model:
            return ""
        try:
            return version_of(endpoint, self._project.versions, gated=gated(self._project)).version
        except NotFound:
            return ""

    def check(self, state: RolloutState) -> None:
        self._project.versions.get(state.model, state.candidate)
        self._project.bundles.load(state.candidate_digest)

    def observe(self, state: RolloutState) -> Evidence:
        log = self._project.predictions
        if state.began_at is None:
            before = [each for each in log.recent(state.endpoint, _HISTORY) if each.version == state.champion]
            scores = [score_of(each) for each in before]
            evidence = fixed(state.evidence, [each.latency_us for each in before], scores)
            if state.plan.kind == BLUE_GREEN:
                return self._reference(msgspec.structs.replace(state, evidence=evidence))
            return scaled(evidence, scores) if state.plan.kind == SHADOW else evidence
        if state.plan.kind == SHADOW:  # its own process adds the pairs
            return state.evidence
        since, position = state.began_at - _SLACK, state.evidence.position
        found = log.observations(state.id, position, since=0 if position else since)
        if found is None:  # the log went back, as from a backup: what it has is counted anew
            again = Evidence(cuts=state.evidence.cuts)
            state = msgspec.structs.replace(state, evidence=again)
            found = log.observations(state.id, since=since)
        if found is None:
            return state.evidence
        evidence = msgspec.structs.replace(observed(state, found.batches), position=found.position)
        now = self._project.clock.now()
        evidence = measured(state, evidence, log, now)
        labels = self._project.label_rows(state.endpoint)
        return evidence if labels is None else labelled(state, evidence, log, labels, now)

    def _reference(self, state: RolloutState) -> Evidence:
        """Return the evidence of a blue-green rollout that has not begun, with what the champion did since."""
        log, position = self._project.predictions, state.evidence.position
        since = 0 if position else self._project.clock.now() - _SLACK
        found = log.observations(state.id, position, since=since)
        if found is None:
            return state.evidence
        return msgspec.structs.replace(before_it_began(state, found.batches), position=found.position)

    def judge(self, state: RolloutState, evidence: Evidence) -> Observed:
        seen = judge(state.plan, evidence)
        if state.status is not Status.PENDING or state.plan.kind == SHADOW:
            return seen
        unable, waiting = unready(self._project, state)
        return msgspec.structs.replace(seen, unable=unable, waiting=waiting)

    def promote(self, state: RolloutState) -> Promotion:
        reason = f"rollout {state.id} by {state.actor}"
        return promote(self._project, state.model, state.candidate, reason=reason, rollout=state.id)

    def publish(self) -> None:
        publish_routes(self._project)


def score_of(prediction: Prediction) -> float:
    """Return the first output of a prediction if it is a number."""
    first = next(iter(prediction.outputs.values()), None)
    if isinstance(first, list):
        first = first[0] if len(first) == 1 else None
    return float(first) if isinstance(first, int | float) else float("nan")
