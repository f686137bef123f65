"""Management of users, service accounts, groups and granted roles, with each change in the audit log.

A change raises `Corrupt`, and is not made, where the audit log would take no event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.ids import check_id, new_id
from mainspring.core.nearest import meant
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.model import PROJECT, Account, AccountGroup, BoundName, Grant, Kind, Role
from mainspring.security.people import IMPORTED, LOCAL

GROUP = "group"
GRANTED_ON = (
    "collection",
    "endpoint",
    "feature-view",
    "model",
    "pipeline",
    "table",
    "tenant",
)  # kinds of resources with own roles
_DIRECTORY = "directory:"  # begins the name of who disabled an account, where a directory did
_LISTS = {Kind.USER: "mainspring users list", Kind.SERVICE: "mainspring service-accounts list"}


def add_account(
    project: Project,
    kind: Kind,
    name: str,
    *,
    email: str = "",
    issuer: str = "",
    subject: str = "",
    provider_groups: Iterable[str] = (),
    who: str | None = None,
) -> Account:
    """Add a user or a service account, without any role.

    Args:
        issuer, subject: Identity at an OIDC provider, for a user who signs in there.
        who: Actor of the audit event, by default the user of this process.

    Raises:
        Invalid: A name, e-mail or identity is not valid.
        Conflict: The service account or the identity exists.
    """
    if kind is Kind.SERVICE:
        check_id(name, "service account")
    for what, text, longest, wanted in (
        ("name", name, 128, True),
        ("e-mail", email, 256, False),
        ("issuer", issuer, 512, bool(subject)),
        ("subject", subject, 256, bool(issuer)),
    ):
        _check(text, what, longest, wanted=wanted)
    account = Account(new_id(), kind, name, email, issuer, subject, tuple(provider_groups), project.wall.now())
    with project.audit.together():
        project.accounts.add(account)
        audit(project, "accounts.add", f"{kind}/{account.id}", f"{name} {email}".strip(), who=who)
    return account


def find_account(project: Project, kind: Kind, text: str) -> Account:
    """Return the account with an id, e-mail or name.

    Raises:
        NotFound: There is none.
        Invalid: There are several: give the id.
    """
    known = [account for account in project.accounts.all() if account.kind is kind]
    found = [account for account in known if text and text in (account.id, account.email, account.name)]
    if not found:
        raise NotFound(f"There is no {kind} account {text!r}.", fix=f"run `{_LISTS[kind]}`.")
    if len(found) > 1:  # also where one has as name what is another's e-mail or id
        ids = ", ".join(account.id for account in found)
        raise Invalid(f"{text!r} is the id, e-mail or name of several accounts: {ids}.", fix="give the id of one.")
    return found[0]


def parse_account(project: Project, who: str) -> Account:
    """Return the account that a command names as `user:NAME` or `service:NAME`; raises as `find_account` does."""
    kind, _, name = who.partition(":")
    if kind not in (Kind.USER, Kind.SERVICE):
        raise Invalid(f"{who!r} names no account.", fix="write user:NAME or service:NAME.")
    return find_account(project, Kind(kind), name)


def bind_name(project: Project, account: Account, name: str, *, by: str | None = None) -> BoundName:
    """Bind a user of a machine to an account, so that what they did there is known to be this account's.

    Several accounts may have one name. It tells people apart only if it was bound by somebody else.

    Args:
        name: As records have it: `local:ana`, or `from:SIGNER:...` for an author of an imported version.
        by: Who binds it, by default the user of this process; the issuer for a provider's word.

    Raises:
        Invalid: It is not the name of a user of a machine.
    """
    _check(name, "name of a user", 256, wanted=True)
    if not name.startswith((LOCAL, IMPORTED)) or name == LOCAL:
        raise Invalid(
            f"{name[:140]!r} is not a user of a machine.", fix="write local:NAME, as `models show` prints it."
        )
    bound = BoundName(name, account.id, project.wall.now(), local_user() if by is None else by)
    with project.audit.together():
        project.accounts.bind(bound)
        audit(project, "accounts.bind", f"{account.kind}/{account.id}", name, who=by)
    return bound


def set_disabled(
    project: Project, account: Account, disabled: bool, *, who: str | None = None, directory: bool = False
) -> Account:
    """Disable an account, which voids its keys within two seconds and ends its sessions, or enable it again.

    Args:
        directory: Whether a directory asks for it. It enables only what a directory has disabled.
    """
    was, of_directory = account.disabled_at is not None, account.disabled_by.startswith(_DIRECTORY)
    if disabled == was and not (was and of_directory and not directory):
        return account
    if was and directory and not of_directory:
        return account
    at, by = None, ""
    if disabled:
        at = account.disabled_at or project.wall.now()
        by = (_DIRECTORY if directory else "") + (local_user() if who is None else who)
    with project.audit.together():
        project.accounts.set_disabled(account.id, at, by)
        if disabled:
            project.user_sessions.remove_all(account.id)
        action = "accounts.disable" if disabled else "accounts.enable"
        audit(project, action, f"{account.kind}/{account.id}", account.name, who=who)
    return replace(account, disabled_at=at, disabled_by=by)


def remove_account(project: Project, account: Account, *, who: str | None = None) -> None:
    """Remove an account with its memberships, roles and sessions; its keys are void within two seconds."""
    with project.audit.together():
        project.accounts.remove(account.id)
        project.user_sessions.remove_all(account.id)
        audit(project, "accounts.remove", f"{account.kind}/{account.id}", account.name, who=who)


def add_group(project: Project, name: str, provider_group: str = "") -> AccountGroup:
    """Add a group.

    Args:
        provider_group: Group of the OIDC provider whose holders are members too.

    Raises:
        Invalid: The name is not an id, or `provider_group` is not printable.
        Conflict: It exists.
    """
    _check(provider_group, "group of the provider", 512, wanted=False)
    group = AccountGroup(check_id(name, "group"), provider_group, project.wall.now())
    with project.audit.together():
        project.accounts.add_group(group)
        audit(project, "groups.add", f"group/{name}", provider_group)
    return group


def remove_group(project: Project, name: str) -> None:
    """Remove a group with its roles.

    Raises:
        NotFound: There is no such group.
    """
    with project.audit.together():
        project.accounts.remove_group(name)
        audit(project, "groups.remove", f"group/{name}")


def set_member(project: Project, group: str, account: Account, *, member: bool) -> None:
    """Add an account to a group, or remove it.

    Raises:
        NotFound: There is no such group, or the account to remove is not a member.
    """
    change = project.accounts.add_member if member else project.accounts.remove_member
    with project.audit.together():
        change(group, account.id)
        audit(project, "groups.add-member" if member else "groups.remove-member", f"group/{group}", _named(account))


def parse_grant(project: Project, role: str, who: str, resource: str = PROJECT) -> Grant:
    """Return the grant that a command names.

    Args:
        who: `user:`, `service:` or `group:`, and an id or name of one.
        resource: `project`, or a kind of `GRANTED_ON` and a name: `model/late-arrival`.

    Raises:
        Invalid: One of the three is malformed.
        NotFound: There is no such account or group.
    """
    kind, _, name = who.partition(":")
    if kind != GROUP:
        name = parse_account(project, who).id
    kinds, _, of = resource.partition("/")
    if resource != PROJECT:
        if kinds not in GRANTED_ON:
            near = get_close_matches(kinds.lower(), (*GRANTED_ON, PROJECT), 1)
            whole = [each if each == PROJECT else f"{each}/{of or 'NAME'}" for each in near]
            guess = f"did you mean {whole[0]!r}? " if whole else ""
            raise Invalid(
                f"A role cannot be granted on {resource!r}.",
                fix=f"{guess}write project, or one of {', '.join(GRANTED_ON)} and a name: model/late-arrival.",
            )
        check_id(of, kinds)
    return Grant(kind, name, Role(role), resource, project.wall.now(), local_user())


def undeclared(project: Project, resource: str) -> str:
    """Return a warning where a grant's resource is of a name that neither the project declares nor the registry has;
    empty where it is, or where nobody can tell."""
    kind, _, name = resource.partition("/")
    try:
        known = _known(project, kind)
    except MainspringError:  # the project's modules cannot be read now
        return ""
    if known is None or name in known:
        return ""
    return f"There is no {kind} {name!r} yet: the role counts once there is one. Otherwise {meant(name, known)}"


def _known(project: Project, kind: str) -> set[str] | None:
    """Return the names of a kind's resources; `None` where they are declared nowhere."""
    if kind not in GRANTED_ON or kind == "tenant":
        return None
    of = project.definitions
    return {
        "collection": lambda: {*of.collections},
        "endpoint": lambda: {*of.endpoints, *of.stream_endpoints, *of.answers, *of.language_models},
        "feature-view": lambda: {*of.views, *of.request_features},
        "model": lambda: {*of.models, *of.answers, *(each.model for each in project.versions.all())},
        "pipeline": lambda: {*of.pipelines},
        "table": lambda: {*of.sources, *project.lake.tables()},
    }[kind]()


def grant_role(project: Project, grant: Grant) -> None:
    """Grant a role.

    Raises:
        NotFound: There is no such account or group.
    """
    with project.audit.together():
        project.accounts.grant(grant)
        audit(project, "roles.grant", f"{grant.kind}/{grant.who}", f"{grant.role} on {grant.resource}")


def revoke_role(project: Project, grant: Grant) -> None:
    """Revoke a role for a resource.

    Raises:
        NotFound: It is not granted.
    """
    with project.audit.together():
        project.accounts.revoke(grant)
        audit(project, "roles.revoke", f"{grant.kind}/{grant.who}", f"{grant.role} on {grant.resource}")


def _named(account: Account) -> str:
    return f"{account.kind} {account.id}: {account.name}"


def _check(text: str, what: str, longest: int, *, wanted: bool) -> None:
    if not text and not wanted:
        return
    if not (0 < len(text) <= longest and text.isprintable() and text.strip()):
        raise Invalid(f"{text[:140]!r} is not a valid {what}.", fix=f"use 1 to {longest} printable characters.")
