"""Actions of exceeded budgets. Each is noted in the budget's incident and in the audit log before it takes effect.

What holds follows from the notes alone: a hold is on while its incident is open, until the month's end, unless a person
ended it (`mainspring incidents end-shed`) or the budget is no longer exceeded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import msgspec

from mainspring.core.errors import Conflict, LimitReached
from mainspring.core.time import format_instant
from mainspring.cost.budgets.declaring import ENDPOINT, MODEL, QUEUE, SCALE_DOWN, SHED, STOP_SEARCHES, TEAM, Budget
from mainspring.cost.budgets.judging import EXCEEDED, Standing
from mainspring.cost.paying import payers
from mainspring.monitoring.incidents.model import DONE, Incident, Taken
from mainspring.monitoring.signals import BUDGET
from mainspring.operations.auditing import audit
from mainspring.operations.defending import SCALE_DOWN as SCALED_DOWN
from mainspring.operations.defending import TEAM as OF_TEAM
from mainspring.operations.defending import publish_defences
from mainspring.project import Project

WORKER = "monitor"
WHOLE = "the project"
TITLES = {QUEUE: "queue work for", STOP_SEARCHES: "stop searches for", SHED: "shed", SCALE_DOWN: SCALED_DOWN}
_log = logging.getLogger(__name__)


class BudgetExceeded(LimitReached):
    """Work is held back because a budget is exceeded."""

    def __init__(self, what: str, hold: Taken, incident: str) -> None:
        other = " Another team may pay for it: --team NAME." if OF_TEAM in hold.action else ""
        super().__init__(
            f"{what} is held back until {format_instant(hold.until)}: {hold.detail}",
            fix=f"raise the budget and apply, or end the hold: mainspring incidents end-shed {incident}.{other}",
            retryable=True,
        )


def act(project: Project, standings: Iterable[Standing]) -> list[Taken]:
    """Note the actions of budgets that are exceeded, and end those of budgets that are not; return the new ones."""
    of_budgets = {each.cause.name: each for each in project.incidents.open() if each.cause.kind == BUDGET}
    if not of_budgets:
        return []
    found = {each.budget: each for each in standings}
    taken: list[Taken] = []
    for name, incident in of_budgets.items():
        standing, budget = found.get(name), project.definitions.budgets.get(name)
        if standing is None or budget is None or standing.level != EXCEEDED:
            _end(project, incident, "is not declared any more" if standing is None else "is not exceeded any more")
        elif not incident.silenced(project.clock.now()):
            taken += _begin(project, incident, budget, standing)
    publish_defences(project)
    return taken


def check_hold(project: Project, act: str, what: str, model: str = "") -> None:
    """Raise if a budget holds work back.

    Args:
        act: `QUEUE` or `STOP_SEARCHES`.
        what: The work, to be named.
        model: Of the work; a budget of another model does not hold it. Nor does one of a team that does not pay for
            it: of several that do, each holds it.

    Raises:
        BudgetExceeded: One does.
    """
    now, holding = project.wall.now(), {WHOLE, model, *(f"{OF_TEAM}{each}" for each in payers().teams)}
    for incident in project.incidents.open():
        if incident.cause.kind != BUDGET:
            continue
        for taken in incident.actions:
            named = taken.action.removeprefix(TITLES[act])
            if named != taken.action and taken.holds(now) and named.strip() in holding:
                raise BudgetExceeded(what, taken, incident.id)


def model_of(project: Project, target: str) -> str:
    """Return the model of a batch's target: an endpoint, or `MODEL:VERSION`."""
    model, colon, _ = target.partition(":")
    return model if colon else project.definitions.served(target).model_name


def _begin(project: Project, incident: Incident, budget: Budget, standing: Standing) -> list[Taken]:
    """Note what an exceeded budget asks for and is not on yet, unless a person ended it; end what it asks no more."""
    now = project.wall.now()
    asked = dict(_titles(project, budget))
    over = [each for each in incident.actions if each.holds(now) and asked.get(each.action) != each.share]
    known = {each.action for each in incident.actions if each.until == standing.end and each not in over}
    made = [
        Taken(action=title, at=now, state=DONE, detail=standing.why, share=share, until=standing.end)
        for title, share in asked.items()
        if title not in known
    ]
    if not _noted(project, incident, made, over, "does not ask for it any more"):
        return []
    for each in made:
        _log.warning("budget %s: %s: %s", budget.name, each.action, each.detail)
    return made


def _end(project: Project, incident: Incident, why: str) -> None:
    now = project.wall.now()
    _noted(project, incident, [], [each for each in incident.actions if each.holds(now)], why)


def _noted(project: Project, incident: Incident, made: Sequence[Taken], over: Sequence[Taken], why: str) -> bool:
    """Return whether actions that begin and end were noted; not if there are none, or another process was faster.

    The next pass looks again. An action that ends here is over before the month is, so that it can begin again.
    """
    now = project.wall.now()
    if not made and not over:
        return False
    kept = [
        msgspec.structs.replace(each, until=now, detail=f"{each.detail} Ended: the budget {why}.")
        if each in over
        else each
        for each in incident.actions
    ]
    try:
        with project.audit.together():
            project.incidents.save([msgspec.structs.replace(incident, actions=(*kept, *made))])
            for each in over:
                audit(project, "budget.end", f"incident/{incident.id}", f"{each.action}: the budget {why}", who=WORKER)
            for each in made:
                detail = f"{each.action} until {format_instant(each.until)}: {each.detail}"
                audit(project, "budget.action", f"incident/{incident.id}", detail, who=WORKER)
    except Conflict:
        return False
    return True


def _titles(project: Project, budget: Budget) -> list[tuple[str, float]]:
    """Return the words under which a budget's actions are noted, and the share of a shed."""
    whole = f"{OF_TEAM}{budget.team}" if budget.team else budget.model or WHOLE
    titles: list[tuple[str, float]] = []
    for each in budget.act:
        if each == SHED and budget.team:
            titles.append((f"{TITLES[SHED]} {OF_TEAM}{budget.team}", budget.share))
        elif each in (SHED, SCALE_DOWN):
            share = budget.share if each == SHED else 0.0
            titles += [(f"{TITLES[each]} {name}", share) for name in _endpoints(project, budget)]
        else:
            titles.append((f"{TITLES[each]} {whole}", 0.0))
    return titles


def _endpoints(project: Project, budget: Budget) -> list[str]:
    endpoints = project.definitions.endpoints
    if budget.scope == ENDPOINT:
        return [budget.endpoint]
    if budget.scope == MODEL:
        return [name for name, each in endpoints.items() if each.model_name == budget.model]
    if budget.scope == TEAM:
        team = project.definitions.teams.get(budget.team)
        return [] if team is None else [name for name, each in endpoints.items() if each.model_name in team.models]
    return list(endpoints)
