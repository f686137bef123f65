"""Routes derived from aliases. The aliases are the source of truth; the routing table can be rebuilt at any time."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mainspring.core.errors import NotFound
from mainspring.registry.model import ModelVersion
from mainspring.registry.ports import ModelVersions
from mainspring.serving.model import Arm, Endpoint, Route
from mainspring.serving.ports import Routes

CHAMPION = "champion"


def routes_for(endpoints: Iterable[Endpoint], versions: ModelVersions, *, gated: Collection[str]) -> list[Route]:
    """Return the routes of the endpoints for the current aliases, sorted by endpoint name.

    An endpoint has no route if its alias or version does not exist, or the version has not passed its gates.

    Args:
        gated: Models whose versions must pass gates, or be approved, before serving.
    """
    routes = []
    for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.name):
        try:
            version = version_of(endpoint, versions, gated=gated)
        except NotFound:
            continue
        routes.append(
            Route(
                endpoint=endpoint.name,
                model=endpoint.model_name,
                arms=(Arm(version.version, version.digest),),
                deadline_us=endpoint.deadline_us,
                max_queue_rows=endpoint.max_queue_rows,
                log=endpoint.log,
                without_store=endpoint.without_store,
            )
        )
    return routes


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


def publish(endpoints: Iterable[Endpoint], versions: ModelVersions, routes: Routes, *, gated: Collection[str]) -> int:
    """Publish the routing table for the current aliases, and return its revision.

    Called after a move and at every start, which repairs a crash between a move and its publication. If an alias moves
    meanwhile, the table is published again, so the last publication has the newest state.
    """
    endpoints = list(endpoints)
    wanted = routes_for(endpoints, versions, gated=gated)
    while True:
        revision = routes.publish(wanted)
        now = routes_for(endpoints, versions, gated=gated)
        if now == wanted:
            return revision
        wanted = now
