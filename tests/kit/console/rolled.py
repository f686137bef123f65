"""Rollouts of every outcome, decided by the product's own rules from invented traffic."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np

import mainspring as ms
from kit.console.flights import NOW, Project, definitions, populated
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.delivery.rollout.controller import record
from mainspring.delivery.rollout.deciding import intervened, looked
from mainspring.delivery.rollout.judging import judge
from mainspring.delivery.rollout.model import Counts, Evidence, Look, RolloutState, Status
from mainspring.delivery.rollout.plan import Plan
from mainspring.registry.bundles import seal
from mainspring.stats.sequential.slowness import places

ENDPOINT = "late-arrival"
REASON = "beats <b>version 2</b> & is smaller"
CHAMPION, CANDIDATE = "2", "3"
PLAN = Plan(endpoint=ENDPOINT, hold_us=30 * MINUTE, guards=(ms.guards.errors(), ms.guards.latency(), ms.guards.score()))


@dataclass(frozen=True)
class Rolled:
    """The project, and the ids of its rollouts. `live` is at its second step."""

    project: Project
    live: str
    rolled_back: str
    stopped: str


def rolled(reason: str = REASON) -> Rolled:
    """Return the project of flights with a third version, and three rollouts of it, one after the other."""
    project = populated()
    endless = {name: replace(model, gates=()) for name, model in definitions().models.items()}
    project = project.having(definitions=replace(project.definitions, models=endless), audit=project.audit)
    champion = project.bundles.load(project.versions.get(ENDPOINT, CHAMPION).digest)
    bundle = seal(
        msgspec.structs.replace(champion.manifest, created_at=NOW - 3 * DAY), champion.files, project.signing_key
    )
    project.bundles.save(bundle)
    project.versions.register(ENDPOINT, bundle.digest, champion.manifest.run_id, {}, NOW - 3 * DAY)
    bad = carried(project, "0rolledback", NOW - 2 * DAY, errors=(0.08, 0.01), reason=reason)
    stopped = carried(project, "0stopped", NOW - DAY, errors=(0.01, 0.01), until=3, reason=reason)
    made, look = intervened(stopped, "stop", "ana (k1)", "the release waits for <i>Monday</i>", NOW - DAY + HOUR)
    record(project.rollouts, project.audit, project.rollouts.replace(made, [look]))
    live = carried(project, "0live", NOW - 56 * MINUTE, errors=(0.01, 0.01), reason=reason)
    assert (bad.status, live.status, live.step) == (Status.ROLLED_BACK, Status.RUNNING, 1), (bad, live)
    return Rolled(project, live.id, bad.id, stopped.id)


def carried(
    project: Project,
    id: str,
    at: int,
    *,
    errors: tuple[float, float],
    until: int = 55,
    plan: Plan = PLAN,
    reason: str = REASON,
) -> RolloutState:
    """Begin a rollout and look at it every minute until it ends, or for so many minutes; return its state."""
    digests = [project.versions.get(ENDPOINT, version).digest for version in (CHAMPION, CANDIDATE)]
    state = RolloutState(
        id=id, endpoint=ENDPOINT, model=ENDPOINT, plan=plan, champion=CHAMPION, champion_digest=digests[0],
        candidate=CANDIDATE, candidate_digest=digests[1], salt="s", actor="ana (k1)", reason=reason, created_at=at,
        looks=1,
    )  # fmt: skip
    begun = Look(
        rollout=id, number=1, at=at, decision="start", why=reason, actor="ana (k1)", status=state.status, step=0,
        share=0.0,
    )  # fmt: skip
    state = project.rollouts.create(state, begun)
    for minute in range(1, until + 1):
        evidence = _traffic(state.evidence, state.share, minute, errors)
        seen = msgspec.structs.replace(judge(plan, evidence), champion=CHAMPION)
        made, look = looked(state, seen, at + minute * MINUTE, evidence=evidence)
        state = project.rollouts.replace(made, [] if look is None else [look])
        if not state.live:
            break
    return record(project.rollouts, project.audit, state)


def _traffic(evidence: Evidence, share: float, minute: int, errors: tuple[float, float]) -> Evidence:
    """Return evidence with a minute more: 200 requests, the arms alike but for their errors."""
    rng, cuts = np.random.default_rng(minute), {"latency": (1_808.0, 2_831.0, 4_081.0), "score": (0.1, 0.2, 0.3, 0.5)}
    if not share:
        return msgspec.structs.replace(evidence, cuts=cuts)
    arms = rng.binomial(200, share), 0
    arms = arms[0], 200 - arms[0]
    events = {"errors": tuple(rng.binomial(count, rate) for count, rate in zip(arms, errors, strict=True))}
    bins = [places(rng.lognormal(7.5, 0.35, count)) for count in arms]
    for place in np.unique(np.concatenate(bins)).tolist():
        events[f"latency bin {place}"] = int((bins[0] == place).sum()), int((bins[1] == place).sum())
    for place in range(5):
        events[f"score {place}"] = tuple(rng.binomial(count, 0.2) for count in arms)
    more = {kind: _added(evidence.events.get(kind, ()), share, *counts) for kind, counts in events.items()}
    return msgspec.structs.replace(
        evidence, cuts=cuts, events={**evidence.events, **more}, requests=_added(evidence.requests, share, *arms)
    )


def _added(before: tuple[Counts, ...], share: float, candidate: int, control: int) -> tuple[Counts, ...]:
    kept = {each.share: each for each in before}
    old = kept.get(share, Counts(share))
    kept[share] = Counts(share, old.candidate + int(candidate), old.control + int(control))
    return tuple(kept.values())
