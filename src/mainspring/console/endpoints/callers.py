"""View model of an endpoint's callers: the use of its quotas, refused requests, and who asked for how much."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mainspring.console.background_cache import Looking
from mainspring.console.endpoints.period import Period
from mainspring.console.features.values import Seen
from mainspring.core.errors import MainspringError
from mainspring.core.time import DAY, MINUTE, parse_instant
from mainspring.operations.callers import Caller, callers, restricted_callers
from mainspring.operations.quotas import QuotaUse, refused, use
from mainspring.project import Project
from mainspring.security.quota import Quota

_KEPT_US = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class CallersPage:
    """Callers of an endpoint.

    Attributes:
        declared: The endpoint's quotas; `quotas`: their use, each with the end of its period.
        refused: Requests that they refused within the last day.
        seen: Callers of the chosen time, by default the last day.
        watched: Whether a monitor reports callers who are unlike all others.
    """

    declared: tuple[Quota, ...]
    quotas: tuple[tuple[QuotaUse, int], ...]
    refused: int
    seen: Seen[list[Caller]]
    since: int
    until: int
    watched: bool

    @property
    def compared(self) -> bool:
        return any(each.distance is not None for each in self.seen.found or ())


def callers_page(project: Project, looking: Looking, endpoint: str, period: Period) -> CallersPage:
    """Return an endpoint's callers; those of the log are counted beside the page."""
    now, route = project.clock.now(), project.routes.current().get(endpoint)
    since, until = period.bounds(now, DAY)
    until = min(until, now + 1)
    monitor = project.definitions.monitors.get(endpoint)
    try:
        key = ("callers", endpoint, period, now // _KEPT_US)
        ready, found = looking.at(key, lambda: callers(project, endpoint, since, until))
        restricted = restricted_callers(project, endpoint)  # since the look
        shown = [msgspec.structs.replace(each, restricted=restricted.get(each.id, "")) for each in found or ()]
        seen = Seen(ready, None if found is None else shown, None)
    except MainspringError as error:
        seen = Seen[list[Caller]](True, None, str(error))
    return CallersPage(
        declared=() if route is None else route.quotas,
        quotas=tuple((each, parse_instant(each.resets_at)) for each in use(project, endpoint)),
        refused=refused(project, endpoint, project.wall.now() - DAY, project.wall.now() + 1),
        seen=seen,
        since=since,
        until=until,
        watched=monitor is not None and monitor.extraction is not None,
    )
