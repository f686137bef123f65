"""Sheds of endpoints and restrictions of callers: which are on follows from the stored incidents, and the routing table
follows from that.

So a worker that is killed between its decision and the table leaves nothing behind: the next publication has the shed,
or has it no more. Gateways end a shed at its stated time by themselves, whether a worker lives or not.
"""

from __future__ import annotations

from collections import defaultdict

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.time import format_instant
from mainspring.delivery.routing import NO_DEFENCE, Defence
from mainspring.monitoring.incidents.actions import REFUSE, RESTRICT, SHED
from mainspring.monitoring.incidents.model import Incident, Taken
from mainspring.project import Project
from mainspring.serving.model import Restriction, Shed

SCALE_DOWN = "scale down"  # an action of a budget, before the endpoint's name
TEAM = "team "  # before a team's name, in place of an endpoint's, which has no space


def live(incident: Incident, now: int) -> list[Taken]:
    """Return the sheds and restrictions of an incident that are on, at an instant of the machine's clock."""
    return [each for each in incident.actions if each.holds(now)] if incident.is_open else []


def sheds(project: Project) -> dict[str, Shed]:
    """Return endpoint, or `TEAM` and a team's name -> its live shed, the largest share where incidents have several."""
    found: dict[str, Shed] = {}
    now = project.wall.now()
    for incident in project.incidents.open():
        for taken in live(incident, now):
            kind, _, name = taken.action.partition(" ")
            if kind != SHED:
                continue
            if name not in found or taken.share > found[name].share:
                team = name.removeprefix(TEAM) if name.startswith(TEAM) else ""
                found[name] = Shed(share=taken.share, until=taken.until, salt=incident.id, team=team)
    return found


def restrictions(project: Project) -> dict[str, tuple[Restriction, ...]]:
    """Return endpoint -> its restricted callers, by their ids; the stricter where incidents have several of one."""
    found: defaultdict[str, dict[str, Restriction]] = defaultdict(dict)
    now = project.wall.now()
    for incident in sorted(project.incidents.open(), key=lambda each: each.id):
        for taken in live(incident, now):
            kind, _, endpoint = taken.action.partition(" ")
            if kind == RESTRICT and (taken.to == REFUSE or taken.caller not in found[endpoint]):
                made = Restriction(caller=taken.caller, to=taken.to, incident=incident.id)
                found[endpoint][taken.caller] = made
    return {endpoint: tuple(of[caller] for caller in sorted(of)) for endpoint, of in found.items()}


def defences(project: Project) -> dict[str, Defence]:
    """Return endpoint -> what live incidents caused."""
    shed, restricted, fewest = sheds(project), restrictions(project), scaled_down(project)
    teams = tuple(shed[name] for name in sorted(shed) if shed[name].team)
    names = {*shed, *restricted, *fewest, *(project.definitions.endpoints if teams else ())}
    return {
        name: Defence(shed.get(name), restricted.get(name, ()), teams, name in fewest)
        for name in names
        if not name.startswith(TEAM)
    }


def scaled_down(project: Project) -> set[str]:
    """Return the endpoints that an exceeded budget holds at their fewest executors."""
    now = project.wall.now()
    titles = [taken.action for incident in project.incidents.open() for taken in live(incident, now)]
    return {each.removeprefix(SCALE_DOWN).strip() for each in titles if each.startswith(SCALE_DOWN)}


def in_words(project: Project, endpoint: str) -> str:
    """Return the live sheds of an endpoint in words; empty without one."""
    return "; ".join(
        f"{shed.share:.0%} of the requests{f' of the group {shed.team}' if shed.team else ''} are refused on purpose "
        f"until {format_instant(shed.until)} at the latest; `mainspring incidents end-shed {shed.salt}` ends it"
        for name, shed in sorted(sheds(project).items())
        if shed.team or name == endpoint
    )


def ended(incident: Incident, now: int, by: str, reason: str) -> Incident:
    """Return an incident whose live sheds and restrictions a person ended.

    Raises:
        Invalid: There is none.
    """
    holding = live(incident, now)
    if not holding:
        raise Invalid(
            f"The incident {incident.id} sheds no requests, restricts no caller and holds nothing back.",
            fix="`mainspring incidents show` has its actions.",
        )
    detail = f"ended at {format_instant(now)} by {by}{f': {reason}' if reason else ''}"
    actions = tuple(
        msgspec.structs.replace(each, ended_at=now, detail=detail) if each in holding else each
        for each in incident.actions
    )
    return msgspec.structs.replace(incident, actions=actions)


def publish_defences(project: Project) -> None:
    """Bring the routing table up to date if its sheds and restrictions are not the live ones."""
    from mainspring.operations.promote import publish_routes

    wanted, endpoints = defences(project), project.definitions.endpoints
    for name, route in project.routes.current().items():
        defence = wanted.get(name, NO_DEFENCE)
        declared = endpoints[name].executors if name in endpoints else route.executors
        there = route.shed, route.restricted, route.team_sheds, route.executors
        if there != (*defence[:3], defence.executors(declared)):
            publish_routes(project)
            return
