"""Users and groups as an organisation's directory provisions them: created, changed, disabled and removed by a program.

A directory manages what it created itself, and people who signed in before it knew them, whom it takes over by their
subject at the identity provider. Its groups are groups of the provider: they count where a local group names them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.ids import new_id
from mainspring.operations.access import remove_account, set_disabled
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.security.model import Account, DirectoryGroup, DirectoryUser, Kind


@dataclass(frozen=True, slots=True)
class Person:
    """A user as a directory describes one.

    Attributes:
        external_id: Subject at the identity provider of the profile. It counts when the user is created.
        active: Whether the account is enabled; `None` leaves it, whatever changes it at the same time. An account that
            an administrator has disabled stays so.
    """

    user_name: str
    external_id: str = ""
    name: str = ""
    email: str = ""
    active: bool | None = True


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A user of the directory, and its account."""

    user: DirectoryUser
    account: Account

    @property
    def person(self) -> Person:
        account = self.account
        shown = self.user
        return Person(shown.user_name, shown.external_id, account.name, account.email, account.disabled_at is None)


def create_user(project: Project, wanted: Person, who: str) -> Provisioned:
    """Create a user, with an account that has no role; or take over the account of its subject.

    Raises:
        Invalid: A text is not valid.
        Conflict: The user name is taken, or the subject's account is in the directory.
    """
    _check(wanted)
    issuer = "" if project.settings.sign_in is None or not wanted.external_id else project.settings.sign_in.issuer.url
    found = project.accounts.of_subject(issuer, wanted.external_id) if issuer else None
    subject = wanted.external_id if issuer else ""
    account = found or Account(
        new_id(), Kind.USER, wanted.name, wanted.email, issuer, subject, created_at=project.wall.now()
    )
    with project.audit.together():
        user = DirectoryUser(account.id, wanted.user_name, wanted.external_id)
        project.directory.add_user(account, user)
        audit(project, "accounts.add", f"user/{account.id}", f"directory: {wanted.user_name}", who=who)
    return _become(project, Provisioned(user, account), wanted, who)


def find_user(project: Project, account_id: str) -> Provisioned:
    """Return a user of the directory.

    Raises:
        NotFound: There is none.
    """
    _, users = project.directory.users("id", account_id, limit=1)
    account = project.accounts.find(account_id) if users else None
    if account is None:
        raise NotFound(f"There is no user {account_id[:140]!r}.")
    return Provisioned(users[0], account)


def find_users(project: Project, attribute: str, value: str, begin: int, limit: int) -> tuple[int, list[Provisioned]]:
    """Return the number of users with a value of an attribute, or of all, and a page of them."""
    count, users = project.directory.users(attribute, value, begin=begin, limit=limit)
    known = {account.id: account for account in project.accounts.all()} if users else {}
    return count, [Provisioned(each, known[each.account_id]) for each in users if each.account_id in known]


def replace_user(project: Project, account_id: str, wanted: Person, who: str) -> Provisioned:
    """Replace what a directory says of a user. One that is not active loses sessions and keys.

    Raises:
        NotFound: There is no such user.
        Invalid: A text is not valid.
        Conflict: The user name is taken.
    """
    _check(wanted)
    found = find_user(project, account_id)
    user = replace(found.user, user_name=wanted.user_name, external_id=wanted.external_id)
    if user != found.user:
        with project.audit.together():
            project.directory.save_user(user)
            audit(project, "accounts.describe", f"user/{account_id}", f"directory: {user.user_name}", who=who)
    return _become(project, replace(found, user=user), wanted, who)


def _become(project: Project, found: Provisioned, wanted: Person, who: str) -> Provisioned:
    """Let an account be as a directory describes it."""
    account = found.account
    if (account.name, account.email) != (wanted.name, wanted.email):
        with project.audit.together():
            project.accounts.describe(account.id, wanted.name, wanted.email, account.provider_groups)
            told = f"{account.name} {account.email} -> {wanted.name} {wanted.email}"
            audit(project, "accounts.describe", f"user/{account.id}", told, who=who)
        account = replace(account, name=wanted.name, email=wanted.email)
    if wanted.active is not None:
        account = set_disabled(project, account, not wanted.active, who=who, directory=True)
    return replace(found, account=account)


def remove_user(project: Project, account_id: str, who: str) -> None:
    """Remove a user with its account, roles, sessions and keys.

    Raises:
        NotFound: There is no such user.
    """
    remove_account(project, find_user(project, account_id).account, who=who)


def find_group(project: Project, group_id: str) -> DirectoryGroup:
    """Return a group of the directory.

    Raises:
        NotFound: There is none.
    """
    _, groups = project.directory.groups("id", group_id, limit=1)
    if not groups:
        raise NotFound(f"There is no group {group_id[:140]!r}.")
    return groups[0]


def create_group(project: Project, wanted: DirectoryGroup, who: str) -> DirectoryGroup:
    """Create a group. Raises as `replace_group`, or `Conflict` if the name is taken."""
    made = replace(wanted, id=new_id())
    _check_group(project, made)
    with project.audit.together():
        project.directory.add_group(made)
        audit(project, "groups.add", f"directory-group/{made.id}", _told(made), who=who)
    return made


def replace_group(project: Project, wanted: DirectoryGroup, who: str) -> DirectoryGroup:
    """Replace a group's name, external id and members.

    Raises:
        NotFound: There is no such group.
        Invalid: The name is not valid, or a member is no user of the directory.
        Conflict: The name is taken.
    """
    before = find_group(project, wanted.id)
    if wanted != before:
        _check_group(project, wanted, before.members)
        with project.audit.together():
            project.directory.save_group(wanted)
            audit(project, "groups.change", f"directory-group/{wanted.id}", _told(wanted, before), who=who)
    return wanted


def remove_group(project: Project, group_id: str, who: str) -> None:
    """Remove a group.

    Raises:
        NotFound: There is no such group.
    """
    group = find_group(project, group_id)
    with project.audit.together():
        project.directory.remove_group(group_id)
        audit(project, "groups.remove", f"directory-group/{group_id}", group.name, who=who)


def _told(group: DirectoryGroup, before: DirectoryGroup | None = None) -> str:
    old = frozenset() if before is None else before.members
    more, fewer = sorted(group.members - old), sorted(old - group.members)
    parts = (f"added {' '.join(more)}" if more else "", f"removed {' '.join(fewer)}" if fewer else "")
    return "; ".join([group.name, *filter(None, parts)])[:2_000]


def _check_group(project: Project, group: DirectoryGroup, known: frozenset[str] = frozenset()) -> None:
    _check_text(group.name, "displayName", 256, wanted=True)
    _check_text(group.external_id, "externalId", 256)
    for member in sorted(group.members - known):
        if not project.directory.users("id", member, limit=1)[1]:
            raise Invalid(f"There is no user {member[:140]!r} in the directory.")


def _check(person: Person) -> None:
    _check_text(person.user_name, "userName", 256, wanted=True)
    _check_text(person.external_id, "externalId", 256)
    _check_text(person.name, "displayName", 128, wanted=True)
    _check_text(person.email, "email", 254)


def _check_text(text: str, what: str, longest: int, *, wanted: bool = False) -> None:
    if (wanted and not text.strip()) or len(text) > longest or not text.isprintable():
        raise Invalid(f"{what} is not a text of at most {longest} printable characters.")
