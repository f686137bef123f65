"""Actions that incidents cause: rollback, shedding, a restriction, a pipeline; once for each incident, in a budget.

An action is noted in its incident by compare-and-set before it is done, so two workers never do it twice. What a killed
worker had begun is done by the next pass: a pipeline's run has the incident as its key, and a rollback looks whether
the champion has moved. A shed or a restriction is on as soon as it is noted: the routing table follows from
the notes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from mainspring.core.errors import Conflict, MainspringError
from mainspring.core.time import MINUTE, format_duration, format_instant, parse_duration
from mainspring.delivery.routing import CHAMPION
from mainspring.monitoring.incidents.actions import (
    LABELS,
    RESTRICT,
    ROLL_BACK,
    SHED,
    Action,
    caused,
    refusal,
)
from mainspring.monitoring.incidents.model import BEGUN, DONE, DRY, FAILED, REFUSED, Incident, Taken
from mainspring.operations.auditing import audit
from mainspring.operations.defending import publish_defences, sheds
from mainspring.operations.pipelines import control
from mainspring.operations.promote import rollback
from mainspring.project import Project

MONITOR = "monitor"
_AGAIN_US = 10 * MINUTE  # after which an action that was begun and not ended is done again
_TRIES = 20
_PAST = 500  # incidents of an endpoint among which actions are counted

_log = logging.getLogger(__name__)


def act(project: Project, incidents: Sequence[Incident]) -> list[Taken]:
    """Take the actions that open incidents cause, and end the sheds and restrictions that are over; return the
    former's outcomes.

    Args:
        incidents: The open ones.
    """
    taken = []
    for incident in incidents:
        for endpoint in incident.endpoints:
            monitor = project.definitions.monitors.get(endpoint)
            actions = () if monitor is None else monitor.actions
            begun = _again(project, incident, actions, endpoint)
            taken += [_do(project, incident.id, action, endpoint) for action in begun]
            for action in caused(_get(project, incident.id), actions, endpoint, project.clock.now()):
                made = _begun(project, incident.id, action, endpoint)
                if made is not None:
                    taken.append(_do(project, incident.id, action, endpoint) if made.state == BEGUN else made)
    publish_defences(project)
    return taken


def _again(project: Project, incident: Incident, actions: Sequence[Action], endpoint: str) -> list[Action]:
    """Return the actions that a worker began and did not end. To shed or restrict twice does no harm, so these
    never wait."""
    now = project.wall.now()
    begun = {each.action: now - each.at for each in incident.actions if each.state == BEGUN}
    return [action for action in actions if begun.get(action.title(endpoint), -1) > (-1 if action.lasts else _AGAIN_US)]


def _begun(project: Project, id: str, action: Action, endpoint: str) -> Taken | None:
    """Note that an action is begun, or why not; return the note, `None` if another worker was faster."""
    incident, title, now = _get(project, id), action.title(endpoint), project.wall.now()
    if any(each.action == title for each in incident.actions):
        return None
    found = project.incidents.find(endpoint=endpoint, limit=_PAST)
    why = refusal(action, title, [each for other in found for each in other.actions], now)
    if not why and action.kind == ROLL_BACK:
        why = _too_old(project, action, endpoint, incident)
    if not why and action.kind == SHED and endpoint in sheds(project):
        why = "requests are shed for another incident"
    caller = next((each.caller for each in incident.symptoms if each.caller and each.endpoint == endpoint), "")
    if not why and action.kind == RESTRICT and not caller:
        why = "it is about no caller"
    state = REFUSED if why else DRY if action.dry_run else BEGUN
    until = now + parse_duration(action.lasts) if action.lasts else 0
    detail = why or _intended(project, action, endpoint, until)
    made = Taken(
        action=title, at=now, state=state, detail=detail, share=action.share, until=until, to=action.to,
        caller=caller if action.kind == RESTRICT else "",
    )  # fmt: skip
    try:
        with project.audit.together():
            project.incidents.save([msgspec.structs.replace(incident, actions=(*incident.actions, made))])
            audit(project, "incident.action", f"incident/{id}", f"{title}: {state}: {detail}", who=MONITOR)
    except Conflict:
        return None
    return made


def _do(project: Project, id: str, action: Action, endpoint: str) -> Taken:
    """Do an action that is noted as begun, and note its outcome."""
    title = action.title(endpoint)
    noted = next(each for each in _get(project, id).actions if each.action == title)
    try:
        state, detail = DONE, _done(project, id, action, endpoint, noted)
    except MainspringError as error:
        _log.warning("%s of incident %s: %s", title, id, error)
        state, detail = FAILED, str(error)
    with project.audit.together():
        _changed(project, id, lambda incident: _replaced(incident, noted.action, state, detail[:1_000]))
        audit(project, "incident.action", f"incident/{id}", f"{title}: {state}: {detail}", who=MONITOR)
    return msgspec.structs.replace(noted, state=state, detail=detail)


def _done(project: Project, id: str, action: Action, endpoint: str, noted: Taken) -> str:
    """Do an action; return what was done."""
    if action.kind == ROLL_BACK:
        return _rolled_back(project, id, endpoint, noted)
    if action.kind in (SHED, RESTRICT):
        publish_defences(project)
        return noted.detail
    return _started(project, id, action)


def _intended(project: Project, action: Action, endpoint: str, until: int) -> str:
    if action.kind == ROLL_BACK:
        return f"from version {_champion(project, endpoint)}"
    if action.kind == SHED:
        return f"{action.share:.0%} of the requests are refused until {format_instant(until)} at the latest"
    if action.kind == RESTRICT:
        given = "gets labels alone" if action.to == LABELS else "gets no answers"
        return f"the caller {given} until {format_instant(until)} at the latest"
    return f"pipeline {action.name}"


def _rolled_back(project: Project, id: str, endpoint: str, noted: Taken) -> str:
    version = noted.detail.removeprefix("from version ")
    if (now := _champion(project, endpoint)) != version:  # done before this worker was killed, or by a person
        return f"version {now} is champion instead of version {version}"
    model = project.definitions.served(endpoint).model_name
    made = rollback(project, model, reason=f"incident {id}", by=MONITOR, emergency=True)
    return f"version {made.version} is champion instead of version {made.previous}"


def _started(project: Project, id: str, action: Action) -> str:
    job = control.start(project, action.name, key=f"incident:{id}", by=MONITOR)
    return f"run {job.id}"


def _champion(project: Project, endpoint: str) -> str:
    return project.versions.get(project.definitions.served(endpoint).model_name, CHAMPION).version


def _too_old(project: Project, action: Action, endpoint: str, incident: Incident) -> str:
    """Return why a version is hardly the cause of an incident: it had been champion for long before."""
    served = project.definitions.served(endpoint)
    if served.reference != CHAMPION:
        return f"the endpoint serves {served.model}, which no rollback moves"
    if any(state.endpoint == endpoint for state in project.rollouts.live()):
        return ""
    moves = project.versions.moves(served.model_name, CHAMPION)
    if not moves:
        return ""
    age = incident.started - (moves[0].domain_at or moves[0].at)
    if age > parse_duration(action.newest):
        return (
            f"version {moves[0].new} had been champion for {format_duration(age // MINUTE * MINUTE)} when the incident "
            f"began, since {format_instant(moves[0].at)}"
        )
    return ""


def _replaced(incident: Incident, title: str, state: str, detail: str) -> Incident:
    """Return an incident with the outcome of an action, unless a person ended it meanwhile."""
    actions = tuple(
        msgspec.structs.replace(each, state=state, detail=each.detail if each.ended_at else detail)
        if each.action == title
        else each
        for each in incident.actions
    )
    return msgspec.structs.replace(incident, actions=actions)


def _changed(project: Project, id: str, change: Callable[[Incident], Incident]) -> None:
    for _ in range(_TRIES):
        try:
            project.incidents.save([change(_get(project, id))])
        except Conflict:
            continue
        return
    raise Conflict(f"The incident {id} kept changing.", fix="the outcome of its action is noted by the next pass.")


def _get(project: Project, id: str) -> Incident:
    [found] = project.incidents.get([id])
    assert found is not None  # incidents are never deleted
    return found
