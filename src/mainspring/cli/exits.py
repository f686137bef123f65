"""Which exit code each kind of error has. Documented in docs/reference/exit-codes.md."""

from __future__ import annotations

from mainspring.core import errors

OK = 0
INTERNAL = 1
USAGE = 2
GATE = 3
NOT_FOUND = 4
DATA = 5
CONFLICT = 6
CORRUPT = 7
FULL = 8
DENIED = 9
UNAVAILABLE = 10
MISSING_EXTRA = 11
NOT_CONVERTIBLE = 12
UNHEALTHY = 13
INTERRUPTED = 130

_CODES: tuple[tuple[type[errors.MainspringError], int], ...] = (
    (errors.InvalidData, DATA),
    (errors.Invalid, USAGE),
    (errors.NotFound, NOT_FOUND),
    (errors.Conflict, CONFLICT),
    (errors.Corrupt, CORRUPT),
    (errors.StorageFull, FULL),
    (errors.Denied, DENIED),
    (errors.Overloaded, UNAVAILABLE),
    (errors.DeadlineExceeded, UNAVAILABLE),
    (errors.Unavailable, UNAVAILABLE),
    (errors.MissingExtra, MISSING_EXTRA),
    (errors.NotConvertible, NOT_CONVERTIBLE),
)


def exit_code(error: errors.MainspringError) -> int:
    """Return the exit code of an error's kind."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL)
