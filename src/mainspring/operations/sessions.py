"""Console sessions of people who signed in at the identity provider: list and end them.

Sessions of API keys are not stored: revoking the key ends them.
"""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import Invalid, NotFound
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.security.model import Account, UserSession


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that is open. Instants are UTC epoch microseconds.

    Attributes:
        checked_at: When the provider last said that the person is there.
    """

    id: str
    account_id: str
    name: str
    opened_at: int
    expires_at: int
    checked_at: int


def open_sessions(project: Project, account: Account | None = None) -> list[OpenSession]:
    """Return the open sessions of an account, by default of all, oldest first."""
    names = {each.id: each.name for each in project.accounts.all()}
    found = project.user_sessions.all() if account is None else project.user_sessions.of(account.id)
    now = project.wall.now()
    return [_opened(each, names) for each in found if each.expires_at > now]


def end_session(project: Project, session_id: str, reason: str, *, who: str | None = None) -> OpenSession:
    """End a session: its next request is refused.

    Args:
        reason: Stored in the audit log.
        who: By default the user of this process.

    Raises:
        NotFound: There is no such session, or it has ended.
        Invalid: There is no reason.
    """
    _expect_reason(reason)
    found = project.user_sessions.find(session_id)
    with project.audit.together():
        if found is None or not project.user_sessions.remove(session_id):
            raise NotFound(f"There is no open session {session_id[:140]!r}.", fix="run `mainspring sessions list`.")
        audit(project, "sessions.end", f"user/{found.account_id}", f"session {session_id}: {reason}", who=who)
    return _opened(found, {each.id: each.name for each in project.accounts.all()})


def end_sessions(project: Project, account: Account, reason: str, *, who: str | None = None) -> int:
    """End all sessions of an account; return how many there were. Raises as `end_session` does.

    Raises:
        Invalid: There is no reason.
    """
    _expect_reason(reason)
    with project.audit.together():
        count = project.user_sessions.remove_all(account.id)
        audit(project, "sessions.end", f"user/{account.id}", f"{count} sessions: {reason}", who=who)
    return count


def _expect_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > 500 or not reason.isprintable():
        raise Invalid("The reason is missing or not valid.", fix="give 1 to 500 printable characters.")


def _opened(session: UserSession, names: dict[str, str]) -> OpenSession:
    name = names.get(session.account_id, session.account_id)
    return OpenSession(session.id, session.account_id, name, session.opened_at, session.expires_at, session.checked_at)
