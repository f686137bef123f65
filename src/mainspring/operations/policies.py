"""Policies of a project: checked, tested by a table of cases, and explained."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from mainspring.core.errors import Denied, Invalid, NotFound
from mainspring.operations.access import GROUP, find_account
from mainspring.project import Project
from mainspring.security.model import PROJECT, Action, Binding, KeyScope, Kind, Principal, Role
from mainspring.security.policy import CedarAuthoriser, Explanation, Policies, expect_resource
from mainspring.security.policy_files import POLICIES, read_policies

_COLUMNS = ("who", "action", "resource", "expected")
_EXPECTED = {"allowed": True, "denied": False}


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a table of cases, and what was decided."""

    line: int
    who: str
    action: str
    resource: str
    expected: str
    decided: str
    rules: tuple[str, ...]


def own_policies(project: Project) -> Policies:
    """Return the policies of the project's folder now.

    Raises:
        Invalid: A file is not valid.
    """
    return Policies(read_policies(project.settings.root / POLICIES))


def invalid_policies(project: Project) -> list[str]:
    """Return what is not valid about the project's policies, one line a file, beginning with its name; empty if nothing
    is. Meanwhile running processes follow the policies that were valid last.
    """
    folder = project.settings.root / POLICIES
    if not folder.is_dir():
        return []
    problems = []
    for path in sorted(folder.glob("*.cedar")):
        try:
            Policies({path.name: path.read_text("utf-8")})
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path.name} cannot be read: {error}.")
        except Invalid as error:
            problems.append(error.what if path.name in error.what else f"{path.name}: {error.what}")
    if not problems:
        try:
            own_policies(project)  # together: ids are given once
        except Invalid as error:
            problems.append(error.what)
    return problems


def tested(project: Project, path: Path) -> list[Case]:
    """Return the decision of each case of a CSV file with the columns who, action, resource and expected.

    `expected` is `allowed` or `denied`; for `who` see `principal_of`.

    Raises:
        NotFound: There is no such file, or somebody in it is not known.
        Invalid: The file or a policy is not valid.
    """
    authoriser = CedarAuthoriser(project.settings.project, _Fixed(own_policies(project)))
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(line for line in file if line.strip() and not line.startswith("#"))
            if tuple(rows.fieldnames or ()) != _COLUMNS:
                raise Invalid(f"{path} has other columns.", fix=f"begin it with the line {','.join(_COLUMNS)}.")
            return [_case(project, authoriser, number, row) for number, row in enumerate(rows, 1)]
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except (UnicodeDecodeError, csv.Error, IsADirectoryError) as error:
        raise Invalid(f"{path} is not a CSV file: {error}.") from error


def _case(project: Project, authoriser: CedarAuthoriser, number: int, row: dict[str, str]) -> Case:
    who, action, resource, expected = ((row[name] or "").strip() for name in _COLUMNS)
    if expected not in _EXPECTED:
        raise Invalid(f"Case {number} expects {expected!r}.", fix="write allowed or denied.")
    found = authoriser.explain(principal_of(project, who), action_named(action), expect_resource(resource))
    return Case(number, who, action, resource, expected, "allowed" if found.allowed else "denied", found.rules)


def explain(project: Project, who: str, action: str, resource: str) -> Explanation:
    """Return which rules decide, and which roles would permit the action; for `who` see `principal_of`.

    Raises:
        NotFound: Nobody is known by that name.
        Invalid: The action, the resource or a policy is not valid.
    """
    authoriser = CedarAuthoriser(project.settings.project, _Fixed(own_policies(project)))
    return authoriser.explain(principal_of(project, who), action_named(action), expect_resource(resource))


def action_named(text: str) -> Action:
    """Return an action by its name.

    Raises:
        Invalid: There is no such action.
    """
    try:
        return Action(text)
    except ValueError:
        raise Invalid(f"There is no action {text[:140]!r}.", fix=f"use one of {', '.join(Action)}.") from None


def principal_of(project: Project, who: str) -> Principal:
    """Return the principal that a text names.

    It is `user:NAME`, `service:NAME`, `group:NAME`, `key:ID`, or `role:ROLE@RESOURCE` for one with that role alone.

    Raises:
        NotFound: Nobody is known by that name.
        Invalid: The text is malformed, or the key or account is void.
    """
    kind, _, name = who.partition(":")
    scopes = frozenset(KeyScope)
    if kind in (Kind.USER, Kind.SERVICE):
        account = find_account(project, Kind(kind), name)
        held = project.accounts.holder(account.id)
        if held is None or held.disabled_at is not None:
            raise Invalid(f"The account {who!r} is disabled.")
        return Principal(held.id, held.name, scopes, held.kind, "", held.groups, held.roles)
    if kind == GROUP:
        if name not in {group.name for group in project.accounts.groups()}:
            raise NotFound(f"There is no group {name!r}.", fix="run `mainspring groups list`.")
        granted = [each for each in project.accounts.grants() if (each.kind, each.who) == (GROUP, name)]
        roles = frozenset(Binding(each.role, each.resource) for each in granted)
        return Principal(who, who, scopes, Kind.USER, "", frozenset({name}), roles)
    if kind == "role":
        role, _, resource = name.partition("@")
        if role not in list(Role):
            raise Invalid(f"There is no role {role!r}.", fix=f"use one of {', '.join(Role)}.")
        binding = Binding(Role(role), expect_resource(resource or PROJECT))
        return Principal(who, who, scopes, Kind.USER, roles=frozenset({binding}))
    if kind == Kind.KEY:
        try:
            return project.authenticator.principal(name)
        except Denied as denied:
            raise Invalid(denied.what) from denied
    raise Invalid(f"{who!r} names nobody.", fix="write user:, service:, group:, key: or role:, and a name.")


class _Fixed:
    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    def current(self) -> Policies:
        return self._policies
