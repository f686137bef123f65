"""Routes derived from aliases and live rollouts. Those are the source of truth; the routing table can be rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from mainspring.core.errors import Conflict, NotFound
from mainspring.delivery.rollout.model import RolloutState
from mainspring.delivery.rollout.plan import SHADOW
from mainspring.registry.model import ModelVersion
from mainspring.registry.ports import ModelVersions
from mainspring.serving.model import Arm, Endpoint, Restriction, Route, Shed
from mainspring.serving.ports import Routes

CHAMPION = "champion"


Rollouts = Callable[[], Sequence[RolloutState]]  # returns the live rollouts


class Defence(NamedTuple):
    """Measures at an endpoint that live incidents caused."""

    shed: Shed | None = None
    restricted: tuple[Restriction, ...] = ()
    team_sheds: tuple[Shed, ...] = ()
    fewest: bool = False  # whether executors are as few as the endpoint allows

    def executors(self, declared: tuple[int, int]) -> tuple[int, int]:
        """Return the least and the most executors; at least one, so that the endpoint goes on."""
        least = max(1, declared[0])
        return (min(declared[0], least), least) if self.fewest else declared


Defences = Callable[[], Mapping[str, Defence]]  # returns endpoint -> what live incidents caused
NO_DEFENCE = Defence()
_NO_DEFENCES: Mapping[str, Defence] = {}


def routes_for(
    endpoints: Iterable[Endpoint],
    versions: ModelVersions,
    *,
    gated: Collection[str],
    rollouts: Sequence[RolloutState] = (),
    defences: Mapping[str, Defence] = _NO_DEFENCES,
) -> list[Route]:
    """Return the routes of the endpoints for the current aliases and rollouts, sorted by endpoint name.

    An endpoint has no route if its alias or version does not exist, or the version has not passed its gates. A rollout
    adds its candidate's arm only while the endpoint's version is the one that the rollout began with.

    Args:
        gated: Models whose versions must pass gates, or be approved, before serving.
        rollouts: The live rollouts.
        defences: Endpoint -> what live incidents caused.
    """
    routes = []
    live = {rollout.endpoint: rollout for rollout in rollouts}
    for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.name):
        try:
            version = version_of(endpoint, versions, gated=gated)
        except NotFound:
            continue
        rollout, defence = live.get(endpoint.name), defences.get(endpoint.name, NO_DEFENCE)
        if rollout is not None and (rollout.model, rollout.champion) != (endpoint.model_name, version.version):
            rollout = None
        routes.append(
            Route(
                endpoint=endpoint.name,
                model=endpoint.model_name,
                arms=(Arm(version.version, version.digest),) if rollout is None else arms_of(rollout),
                rollout="" if rollout is None else rollout.id,
                assign="key" if rollout is None else rollout.plan.assign,
                by="" if rollout is None else rollout.plan.by,
                salt="" if rollout is None else rollout.salt,
                deadline_us=endpoint.deadline_us,
                max_queue_rows=endpoint.max_queue_rows,
                log=endpoint.log,
                without_store=endpoint.without_store,
                unusual=endpoint.unusual,
                shed=defence.shed,
                team_sheds=defence.team_sheds,
                quotas=tuple(endpoint.quotas),
                price=endpoint.price,
                outputs=tuple(endpoint.outputs),
                cache=endpoint.cache,
                resident=endpoint.resident,
                executors=defence.executors(endpoint.executors),
                idle_us=endpoint.idle_us,
                device=endpoint.device,
                restricted=defence.restricted,
            )
        )
    return routes


def arms_of(rollout: RolloutState) -> tuple[Arm, ...]:
    """Return the arms of a live rollout, the control first; of a shadow the control alone.

    Gateways load an arm without a share, too: so they have the candidate before its first request, and the champion for
    the way back.
    """
    control = Arm(rollout.champion, rollout.champion_digest, 1.0 - rollout.share)
    if rollout.plan.kind == SHADOW:
        return (control,)
    return control, Arm(rollout.candidate, rollout.candidate_digest, rollout.share)


def version_of(endpoint: Endpoint, versions: ModelVersions, *, gated: Collection[str]) -> ModelVersion:
    """Return the version that an endpoint should serve.

    `champion` only moves through the gates. A version named by number or by another alias has passed them if it ever
    was champion.

    Raises:
        NotFound: There is no such version, or it has not passed its gates; the fix says what to do.
    """
    model, reference = endpoint.model_name, endpoint.reference
    try:
        version = versions.get(model, reference)
    except NotFound:
        trained = bool(versions.all(model))
        if reference == CHAMPION:
            what = f"Endpoint {endpoint.name!r} serves no version yet: {model!r} has no champion."
            steps = "`mainspring promote`" if trained else "`mainspring train` and `mainspring promote`"
        else:
            what = f"Endpoint {endpoint.name!r} serves no version: {model!r} has no {reference!r}."
            steps = f"`mainspring train {model}`, or name a version of `mainspring models list`"
        raise NotFound(what, fix=f"run {steps}.") from None
    around = reference != CHAMPION and model in gated
    if around and not any(move.new == version.version for move in versions.moves(model, CHAMPION)):
        number = version.version
        raise NotFound(
            f"Endpoint {endpoint.name!r} serves no version: version {number} of {model!r} has not passed its gates.",
            fix=f"run `mainspring promote {model} {number}`, which checks them.",
        )
    return version


def publish(
    endpoints: Iterable[Endpoint] | Callable[[], Iterable[Endpoint]],
    versions: ModelVersions,
    routes: Routes,
    *,
    gated: Collection[str],
    rollouts: Rollouts = tuple,
    defences: Defences = dict,
) -> int:
    """Publish the routing table for the current aliases, rollouts and incidents, and return its revision.

    Called after a move and at every start, which repairs a crash between a move and its publication. If an alias moves
    or a rollout or a defence changes meanwhile, the table is published again, so the last publication has the newest
    state. A state that was read before another's publication is not published: a process that was suspended brings no
    old route back.

    Args:
        endpoints: All endpoints of the project, or a function that returns them as they are when it is called.
    """
    given = endpoints if callable(endpoints) else list(endpoints)
    while True:
        before = routes.revision()
        found = list(given() if callable(given) else given)
        wanted = routes_for(found, versions, gated=gated, rollouts=rollouts(), defences=defences())
        try:
            revision = routes.publish(wanted, after=before)
        except Conflict:
            continue
        if routes_for(found, versions, gated=gated, rollouts=rollouts(), defences=defences()) == wanted:
            return revision
