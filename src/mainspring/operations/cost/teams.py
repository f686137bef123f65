"""Teams that pay for work of a project: by name, by definition, by who started it, or by the profile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mainspring.core.errors import Invalid
from mainspring.core.nearest import meant
from mainspring.cost.paying import NAMED, NOBODY, Payers, paid_by, payers, settled
from mainspring.cost.usage import ENDPOINT
from mainspring.project import Project
from mainspring.project.running import belongs_to_up
from mainspring.registry.processes import current_starter
from mainspring.security.model import Action, Kind, Principal


def known_teams(project: Project) -> set[str]:
    """Return the teams that are declared, and the groups of accounts."""
    return {*project.definitions.teams, *(each.name for each in project.accounts.groups())}


def charged_to(project: Project, team: str) -> Payers:
    """Return the payers of work that names its team.

    Raises:
        Invalid: The team is neither declared nor a group.
    """
    known = known_teams(project)
    if team not in known:
        raise Invalid(f"There is no team {team[:140]!r}.", fix=meant(team, known))
    return Payers((team,), NAMED)


def check_charge(project: Project, team: str, principal: Principal | None = None) -> str:
    """Return the team if work may be charged to it: by a caller, or by who decides here.

    Raises:
        Denied: It may not.
        Invalid: The team is neither declared nor a group.
    """
    if not team:
        return ""
    resource = f"group/{team}"
    if principal is not None:
        project.authoriser.check(principal, Action.TEAM_CHARGE, resource)
    else:
        from mainspring.operations.models.curating import decider

        decider(project, None, Action.TEAM_CHARGE, resource)
    charged_to(project, team)
    return team


@contextmanager
def named(project: Project, team: str) -> Iterator[Payers]:
    """Context of work of who decides here, charged to a team; an empty name leaves it as it is.

    Raises:
        Denied: Work may not be charged to it.
        Invalid: The team is neither declared nor a group.
    """
    if not check_charge(project, team):
        yield payers()
        return
    with paid_by(charged_to(project, team)) as found:
        yield found


@contextmanager
def charging(project: Project, kind: str, name: str, *, by: str | None = None, team: str = "") -> Iterator[Payers]:
    """Context of work, with those who pay for it; see `settled`.

    Args:
        kind, name: Of `cost.usage`: a model (as `RUN` or `BATCH`), a pipeline, a view or a job.
        by: Who started it, as records name people; by default who is known here: of what the processes of `up` do by
            themselves, nobody.
        team: That was named when it was queued; whether that was permitted was checked then.
    """
    around = Payers((team,), NAMED) if team else payers()
    declared = _declared(project, kind, name)
    starter: tuple[str, ...] = ()
    if not (around.teams or declared):
        starter = groups_of(project, _starter(project) if by is None else by)
    with paid_by(settled(around, declared=declared, starter=starter, profile=project.settings.team)) as found:
        yield found


def groups_of(project: Project, who: str) -> tuple[str, ...]:
    """Return the groups of a person, an account or a key, as records name them; none of somebody unknown."""
    if not who:
        return ()
    kind, _, name = who.partition(":")
    if kind == Kind.KEY:
        key = project.key_store.find(name.partition(":")[0])
        return () if key is None or key.holder is None else tuple(sorted(key.holder.groups))
    if kind in (Kind.USER, Kind.SERVICE):
        accounts = [name]
    else:  # a user of a machine
        accounts = [each.account_id for each in project.accounts.names() if each.name == who]
    holders = [project.accounts.holder(each) for each in accounts]
    return tuple(sorted({group for each in holders if each is not None for group in each.groups}))


def payers_of_requests(project: Project, model: str) -> tuple[str, ...]:
    """Return who pays for what an endpoint's requests used, and its model kept, where no caller has a group."""
    return settled(NOBODY, declared=_declared(project, ENDPOINT, model), profile=project.settings.team).teams


def _declared(project: Project, kind: str, name: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(each.name for each in project.definitions.teams.values() if each.pays_for(kind, name)))
    except Invalid:  # errors in the definitions do not stop built-in jobs
        return ()


def _starter(project: Project) -> str:
    from mainspring.operations.models.curating import actor

    return current_starter() or ("" if belongs_to_up(project.settings.state) else actor(project))
