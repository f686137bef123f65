"""Management of API keys, with each change in the audit log.

A change raises `Corrupt`, and is not made, where the audit log would take no event.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from mainspring.core.time import DAY, MINUTE
from mainspring.operations.auditing import audit
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security import keys
from mainspring.security.model import KeyScope
from mainspring.security.sessions import LIFETIME, Sessions, session_secret

ADMINISTRATOR = "administrator"
_ADMINISTRATOR_LIFETIME = 365 * DAY
_CONSOLE = "console of "  # begins the names of keys behind log-in links, which nobody ever sees


def create_key(
    project: Project,
    name: str,
    scopes: Iterable[str],
    lifetime_us: int,
    *,
    created_by: str | None = None,
    owner: str = "",
) -> str:
    """Create a key and return its token, which cannot be shown again.

    Args:
        created_by: Creator of the key, by default the user of this process. A key cannot approve versions of this
            person.
        owner: Id of the account whose roles it has; empty for a key with every role.
    """
    allowed = [KeyScope(scope) for scope in scopes]
    with project.audit.together():
        token = keys.issue(
            project.key_store,
            name=name,
            scopes=allowed,
            lifetime_us=lifetime_us,
            clock=project.wall,
            pepper=project.pepper,
            created_by=local_user() if created_by is None else created_by,
            owner=owner,
        )
        audit(project, "keys.create", f"key/{token.split('_')[1]}", f"{name}: {' '.join(sorted(allowed))}")
    return token


def first_key(project: Project) -> str | None:
    """Create the administrator's key if no key with the scope manage ever existed; return its token, else `None`."""
    with project.locks.hold("first-key"):
        if any(KeyScope.MANAGE in key.scopes and not key.name.startswith(_CONSOLE) for key in project.key_store.all()):
            return None
        return create_key(project, ADMINISTRATOR, list(KeyScope), _ADMINISTRATOR_LIFETIME)


def console_link(project: Project, path: str = "/") -> str:
    """Return an address that logs a person into the console once, within ten minutes, without a key.

    The session has all scopes, and its key, which nobody sees, lives twelve hours. Whoever may read the project's state
    may make such a link.

    Args:
        path: The page to show.
    """
    user, now = local_user(), project.wall.now()
    name = f"{_CONSOLE}{user}"[:128]
    known = (key for key in project.key_store.all() if key.name == name and key.created_by == user)
    valid = [key.id for key in known if key.revoked_at is None and key.expires_at > now + LIFETIME // 2]
    key_id = valid[-1] if valid else create_key(project, name, list(KeyScope), LIFETIME).split("_")[1]
    ticket = Sessions(session_secret(project.pepper), project.wall, project.ended_sessions).ticket(key_id)
    query = urlencode({"ticket": ticket} if path == "/" else {"ticket": ticket, "next": path})
    return f"{project.settings.control.here.url}/login?{query}"


def brief_key(project: Project, name: str, lifetime_us: int = MINUTE) -> str:
    """Create a short-lived key for predictions by this machine itself."""
    return create_key(project, name, [KeyScope.PREDICT], lifetime_us)


def revoke_key(project: Project, key_id: str) -> None:
    """Revoke a key.

    Raises:
        NotFound: There is no such key.
    """
    with project.audit.together():
        project.key_store.revoke(key_id, project.wall.now())
        audit(project, "keys.revoke", f"key/{key_id}")
