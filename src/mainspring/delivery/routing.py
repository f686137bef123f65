"""From aliases to routes. The alias decides; the routing table follows, and can be made again at any time."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.core.errors import NotFound
from mainspring.registry.ports import ModelVersions
from mainspring.serving.model import Arm, Endpoint, Route
from mainspring.serving.ports import Routes


def routes_for(endpoints: Iterable[Endpoint], versions: ModelVersions) -> list[Route]:
    """Return the route of each endpoint as the aliases stand now, in the order of their names.

    An endpoint whose alias or version does not exist yet has no route.
    """
    routes = []
    for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.name):
        try:
            version = versions.get(endpoint.model_name, endpoint.reference)
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
            )
        )
    return routes


def publish(endpoints: Iterable[Endpoint], versions: ModelVersions, routes: Routes) -> int:
    """Make the routing table say what the aliases say, and return its revision.

    Called after a move and at every start: a crash between a move and its publication heals here. If an alias moves
    meanwhile, the table is made again, so whoever publishes last publishes the newest state.
    """
    endpoints = list(endpoints)
    wanted = routes_for(endpoints, versions)
    while True:
        revision = routes.publish(wanted)
        now = routes_for(endpoints, versions)
        if now == wanted:
            return revision
        wanted = now
