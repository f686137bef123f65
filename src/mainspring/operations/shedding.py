"""Sheds of endpoints: which are on follows from the stored incidents, and the routing table follows from that.

So a worker that is killed between its decision and the table leaves nothing behind: the next publication has the shed,
or has it no more. Gateways end a shed at its stated time by themselves, whether a worker lives or not.
"""

from __future__ import annotations

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.time import format_instant
from mainspring.monitoring.incidents.actions import SHED
from mainspring.monitoring.incidents.model import Incident, Taken
from mainspring.project import Project
from mainspring.serving.model import Shed


def live_sheds(incident: Incident, now: int) -> list[Taken]:
    """Return the sheds of an incident that are on, at an instant of the machine's clock."""
    return [each for each in incident.actions if each.sheds(now)] if incident.is_open else []


def sheds(project: Project) -> dict[str, Shed]:
    """Return endpoint -> its live shed, the largest share where incidents have several."""
    found: dict[str, Shed] = {}
    now = project.wall.now()
    for incident in project.incidents.open():
        for taken in live_sheds(incident, now):
            endpoint = taken.action.removeprefix(f"{SHED} ")
            if endpoint not in found or taken.share > found[endpoint].share:
                found[endpoint] = Shed(share=taken.share, until=taken.until, salt=incident.id)
    return found


def in_words(project: Project, endpoint: str) -> str:
    """Return the live shed of an endpoint in words; empty without one."""
    shed = sheds(project).get(endpoint)
    if shed is None:
        return ""
    return (
        f"{shed.share:.0%} of the requests are refused on purpose until {format_instant(shed.until)} at the latest; "
        f"`mainspring incidents end-shed {shed.salt}` ends it"
    )


def ended(incident: Incident, now: int, by: str, reason: str) -> Incident:
    """Return an incident whose live sheds a person ended.

    Raises:
        Invalid: There is none.
    """
    live = live_sheds(incident, now)
    if not live:
        raise Invalid(
            f"The incident {incident.id} sheds no requests.", fix="`mainspring incidents show` has its actions."
        )
    detail = f"ended at {format_instant(now)} by {by}{f': {reason}' if reason else ''}"
    actions = tuple(
        msgspec.structs.replace(each, ended_at=now, detail=detail) if each in live else each
        for each in incident.actions
    )
    return msgspec.structs.replace(incident, actions=actions)


def publish_sheds(project: Project) -> None:
    """Bring the routing table up to date if its sheds are not the live ones."""
    from mainspring.operations.promote import publish_routes

    wanted = sheds(project)
    if any(route.shed != wanted.get(name) for name, route in project.routes.current().items()):
        publish_routes(project)
