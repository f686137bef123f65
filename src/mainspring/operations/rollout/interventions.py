"""Beginning and ending of rollouts by people: each acts at once and waits for no worker."""

from __future__ import annotations

import secrets

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.ids import new_id
from mainspring.core.nearest import meant
from mainspring.delivery import promote as delivery
from mainspring.delivery.model import Promotion
from mainspring.delivery.rollout.controller import record
from mainspring.delivery.rollout.deciding import intervened, taken_back
from mainspring.delivery.rollout.model import Look, RolloutState, Status
from mainspring.delivery.rollout.plan import ANSWERS, SHADOW, Plan, Rollout, unfit
from mainspring.delivery.routing import CHAMPION, version_of
from mainspring.operations import promote as promoting
from mainspring.operations.device_checks import check_provider
from mainspring.operations.fallbacks import check_fallbacks
from mainspring.operations.models import curating
from mainspring.operations.models.curating import expect_kept, storable
from mainspring.project import Project

_TRIES = 20


def plan_of(project: Project, endpoint: str) -> Plan:
    """Return the plan that the project declares for an endpoint, or the default.

    Raises:
        NotFound: The project has no such endpoint.
        Invalid: A metric of the plan does not exist for the endpoint's model.
    """
    definitions = project.definitions
    model = definitions.models.get(definitions.served(endpoint).model_name)
    declared = definitions.rollouts.get(endpoint)
    plan = Rollout(endpoint).plan if declared is None else declared.plan
    chain = definitions.answers.get(endpoint)
    if chain is not None:
        wrong = unfit(plan, ANSWERS, chain.labels, chain.keys)
    else:
        wrong = unfit(plan, "", ()) if model is None else unfit(plan, model.task, model.labels, model.keys)
    if wrong is not None:
        raise Invalid(f"The rollout of {endpoint!r} {wrong[0]}.", fix=wrong[1])
    return plan


def start(
    project: Project, endpoint: str, candidate: str | None = None, *, reason: str = ""
) -> RolloutState | Promotion:
    """Begin a rollout of a version, by default the newest; return it, or the gates that the version did not pass.

    The champion has every request until a worker looks for the first time.

    Raises:
        NotFound: There is no such endpoint or version, or the endpoint serves nothing yet.
        Invalid: The candidate serves already, the endpoint does not follow the champion, its fallback answer does not
            fit the candidate, or the candidate was made for an execution provider of ONNX Runtime that is not here.
        Conflict: The endpoint has a live rollout, or the version is marked for deletion.
        Corrupt: The candidate's bundle is damaged.
    """
    plan, served = plan_of(project, endpoint), project.definitions.served(endpoint)
    model = served.model_name
    if served.reference != CHAMPION:
        raise Invalid(
            f"Endpoint {endpoint!r} serves {served.model}, which no promotion moves.",
            fix=f"declare it as {model}@{CHAMPION}.",
        )
    champion = version_of(served, project.versions, gated=promoting.gated(project))
    chosen = promoting.newest_version(project, model) if candidate is None else candidate
    version = project.versions.get(model, chosen)
    if version.version == champion.version:
        raise Invalid(
            f"Version {version.version} of {model!r} is champion already.",
            fix=f"name another: `mainspring rollout start {endpoint} --candidate VERSION`.",
        )
    expect_kept(project, version)
    check_provider(project, version, [served])
    check_fallbacks(project, version, [served])
    results = () if plan.kind == SHADOW else promoting.judged(project, version)  # a shadow answers nobody
    if not all(result.allows for result in results):
        return delivery.refused(version, champion, results)
    now, who = project.wall.now(), curating.actor(project)
    state = RolloutState(
        id=new_id(),
        endpoint=endpoint,
        model=model,
        plan=plan,
        champion=champion.version,
        champion_digest=champion.digest,
        candidate=version.version,
        candidate_digest=version.digest,
        salt=secrets.token_hex(8),
        actor=who,
        reason=storable(reason),
        created_at=now,
        looks=1,
    )
    why = f"version {version.version} beside champion {champion.version}{f': {state.reason}' if reason else ''}"
    why += "".join(f"; although {result}" for result in results if not result.passed)  # waived ones
    look = Look(
        rollout=state.id, number=1, at=now, decision="start", why=why, actor=who, status=state.status, step=0, share=0.0
    )
    return _carried(project, project.rollouts.create(state, look))


def end(
    project: Project, endpoint: str, action: str, *, reason: str = "", by: str | None = None, only: str | None = None
) -> RolloutState:
    """End the live rollout of an endpoint by "stop" or "roll back": the champion has every request again.

    Args:
        by: Person who does it; by default who is signed in here, or else the user of this process.
        only: Id of the rollout that is meant; by default the live one.

    Raises:
        NotFound: There is none.
        Conflict: Another rollout is live than the one that is meant.
    """
    who = by or curating.actor(project)
    for _ in range(_TRIES):
        state = live(project, endpoint, only)
        why = storable(reason) or f"by {who}"
        made, look = intervened(state, action, who, why, project.wall.now())
        try:
            ended = project.rollouts.replace(made, [look])
        except Conflict:  # a look was faster
            continue
        if state.status is Status.PROMOTING:
            _undo_promotion(project, ended, who)
        return _carried(project, ended)
    raise Conflict(f"The rollout of {endpoint!r} kept changing.", fix="run the command again.")


def _undo_promotion(project: Project, ended: RolloutState, who: str) -> None:
    """Take the alias back if the rollout had moved it before it was ended; afterwards it does not move it any more."""
    champion = project.versions.get(ended.model, CHAMPION).version
    before = delivery.previous_version(project.versions, ended.model)
    if (champion, before) == (ended.candidate, ended.champion):
        promoting.rollback(project, ended.model, reason=f"rollout {ended.id}: {ended.why}", by=who, emergency=True)


def end_of_model(project: Project, model: str, *, reason: str = "", by: str | None = None) -> list[RolloutState]:
    """Roll back every live rollout of a model; return them."""
    return [
        end(project, state.endpoint, "roll back", reason=reason, by=by)
        for state in project.rollouts.live()
        if state.model == model
    ]


def promote(
    project: Project, endpoint: str, *, reason: str = "", by: str | None = None, only: str | None = None
) -> RolloutState | Promotion:
    """Let the candidate of a live rollout be champion now; return the rollout, or the gates that it did not pass.

    Args:
        by: Person who promotes; by default who is signed in here, or else the user of this process.
        only: Id of the rollout that is meant; by default the live one.

    Raises:
        NotFound: There is no live rollout.
        Conflict: Another rollout is live than the one that is meant.
    """
    state, who = live(project, endpoint, only), by or curating.actor(project)
    reason = storable(reason)
    promotion = promoting.promote(
        project,
        state.model,
        state.candidate,
        reason=f"rollout {state.id}{f': {reason}' if reason else ''}",
        by=who,
        rollout=state.id,
    )
    if not promotion.promoted:
        return promotion
    why = reason or f"version {state.candidate} is champion, instead of version {promotion.previous}"
    for _ in range(_TRIES):
        state = _get(project, state.id)
        if not state.live:  # a controller has noted it
            return state
        made, look = intervened(state, "done", who, why, project.wall.now())
        try:
            return _carried(project, project.rollouts.replace(made, [look]))
        except Conflict:
            continue
    return _get(project, state.id)


def roll_back(project: Project, endpoint: str, *, reason: str = "", emergency: bool = False) -> RolloutState:
    """Take a candidate back: end the live rollout, or undo the promotion by the last one.

    Args:
        emergency: As in `promote.rollback`, for the promotion.

    Raises:
        Invalid: An emergency has no reason.
        NotFound: There is no rollout to take back.
        Conflict: The champion has moved since the last rollout's promotion; or the version before has not the approvals
            that it needs, and nobody but an author wants it.
    """
    project.definitions.served(endpoint)
    promoting.expect_reason(reason, emergency=emergency)
    if any(state.endpoint == endpoint for state in project.rollouts.live()):
        return end(project, endpoint, "roll back", reason=reason)
    last = next(iter(project.rollouts.find(endpoints=[endpoint], limit=1)), None)
    if last is None or last.status is not Status.DONE:
        raise NotFound(
            f"Endpoint {endpoint!r} has no rollout to take back.", fix="`mainspring rollout list` lists rollouts."
        )
    champion = project.versions.get(last.model, CHAMPION).version
    before = delivery.previous_version(project.versions, last.model)
    if (champion, before) != (last.candidate, last.champion):
        raise Conflict(
            f"The champion of {last.model!r} is version {champion} and was {before}: it has moved since the rollout of "
            f"version {last.candidate}.",
            fix=f"run `mainspring rollback {last.model}`, or promote the version that you want.",
        )
    promoting.rollback(project, last.model, reason=reason or f"rollout {last.id}", emergency=emergency)
    why = storable(reason) or f"version {last.champion} is champion again"
    made, look = taken_back(last, curating.actor(project), why, project.wall.now())
    return _carried(project, project.rollouts.replace(made, [look]))


def live(project: Project, endpoint: str, only: str | None = None) -> RolloutState:
    """Return the live rollout of an endpoint; with `only`, if it has this id.

    Raises:
        NotFound: There is none.
        Conflict: It has another id.
    """
    found = {state.endpoint: state for state in project.rollouts.live()}
    if endpoint not in found:
        fix = meant(endpoint, found) if found else f"run `mainspring rollout start {endpoint}`."
        raise NotFound(f"Endpoint {endpoint!r} has no live rollout.", fix=fix)
    if only not in (None, found[endpoint].id):
        raise Conflict(
            f"The rollout {only} of {endpoint!r} has ended; {found[endpoint].id} is live.",
            fix="look at the one that is live.",
        )
    return found[endpoint]


def _carried(project: Project, state: RolloutState) -> RolloutState:
    """Publish the routes and record the decision; what is cut short here is done by the next look."""
    promoting.publish_routes(project)
    try:
        return record(project.rollouts, project.audit, state)
    except Conflict:
        return _get(project, state.id)


def _get(project: Project, id: str) -> RolloutState:
    [found] = project.rollouts.get([id])
    if found is None:
        raise NotFound(f"There is no rollout {id!r}.", fix="`mainspring rollout list` lists them.")
    return found
