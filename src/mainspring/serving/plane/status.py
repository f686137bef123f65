"""The one table from what went wrong to an HTTP status, and the kinds that only the edges know."""

from __future__ import annotations

from mainspring.core.errors import (
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Denied,
    Invalid,
    MainspringError,
    NotFound,
    Overloaded,
    StorageFull,
    Unavailable,
)
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.watch import StoreDamaged


class TooLarge(Invalid):
    """The body is larger than this server takes."""


class TooSlow(MainspringError):
    """The body did not arrive in time."""


class NoRoom(Overloaded):
    """The bodies that are arriving take all the memory that they may."""


class WrongMethod(Invalid):
    """The path exists, not for this method."""


class WrongEncoding(Invalid):
    """The body is encoded in a way this server does not read."""


class WrongHost(Denied):
    """The request was sent to a name that this server does not answer to."""


# The first kind that fits counts, so a kind stands before the kind it derives from.
STATUS: dict[type[MainspringError], int] = {
    TooLarge: 413,
    WrongMethod: 405,
    WrongEncoding: 415,
    WrongHost: 403,
    TooSlow: 408,
    Invalid: 400,
    NotFound: 404,
    Conflict: 409,
    NoRoom: 503,
    Overloaded: 429,
    DeadlineExceeded: 503,
    Unavailable: 503,
    StorageFull: 507,
    ModelFailed: 500,
    Corrupt: 500,
}
_found: dict[type[MainspringError], int] = {}
# What the caller cannot have caused is logged here and told them only in general.
_OURS = {500: "The model failed.", 503: "A part of this server does not answer.", 507: "This server has no space left."}


def status_of(error: MainspringError) -> int:
    """Return the status for an error; 500 for a kind that should not get this far."""
    if isinstance(error, Denied) and not isinstance(error, WrongHost):
        return 403 if error.authenticated else 401
    kind = type(error)
    found = _found.get(kind)
    if found is None:
        found = _found[kind] = next((status for each, status in STATUS.items() if issubclass(kind, each)), 500)
    return found


def public_text(error: MainspringError) -> str:
    """Return what the caller is told: the message, unless it may name something of ours."""
    if isinstance(error, (DeadlineExceeded, Overloaded, StoreDamaged)):
        return error.what
    return _OURS.get(status_of(error)) or str(error)


def retry_after_s(error: MainspringError) -> int | None:
    """Return the seconds for `Retry-After`, `None` where trying again does not help."""
    if isinstance(error, (Overloaded, DeadlineExceeded)) and error.retry_after_ms:
        return max(1, -(-error.retry_after_ms // 1000))
    return 1 if error.retryable else None
