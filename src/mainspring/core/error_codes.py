"""The one table of error codes: kind -> exit code, HTTP status, gRPC status. Every edge uses it."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core import errors


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes of one kind; `grpc` is a name of `grpc.StatusCode`."""

    exit: int
    http: int
    grpc: str


# The first kind that matches is used, so a kind precedes the kind it derives from.
CODES: dict[type[errors.MainspringError], Codes] = {
    errors.TooLarge: Codes(2, 413, "RESOURCE_EXHAUSTED"),  # as gRPC itself reports it
    errors.WrongMethod: Codes(2, 405, "UNIMPLEMENTED"),
    errors.WrongEncoding: Codes(2, 415, "INVALID_ARGUMENT"),
    errors.InvalidData: Codes(5, 400, "INVALID_ARGUMENT"),
    errors.Invalid: Codes(2, 400, "INVALID_ARGUMENT"),
    errors.NotFound: Codes(4, 404, "NOT_FOUND"),
    errors.Conflict: Codes(6, 409, "FAILED_PRECONDITION"),
    errors.Corrupt: Codes(7, 500, "INTERNAL"),
    errors.StorageFull: Codes(8, 507, "RESOURCE_EXHAUSTED"),
    errors.LimitReached: Codes(8, 409, "FAILED_PRECONDITION"),
    errors.WrongHost: Codes(9, 403, "PERMISSION_DENIED"),
    errors.Denied: Codes(9, 401, "UNAUTHENTICATED"),
    errors.NoRoom: Codes(10, 503, "RESOURCE_EXHAUSTED"),
    errors.Shed: Codes(10, 503, "RESOURCE_EXHAUSTED"),
    errors.Overloaded: Codes(10, 429, "RESOURCE_EXHAUSTED"),
    errors.DeadlineExceeded: Codes(10, 503, "DEADLINE_EXCEEDED"),
    errors.TooSlow: Codes(10, 408, "DEADLINE_EXCEEDED"),
    errors.Unavailable: Codes(10, 503, "UNAVAILABLE"),
    errors.MissingExtra: Codes(11, 500, "INTERNAL"),
    errors.NotConvertible: Codes(12, 500, "INTERNAL"),
}
_INTERNAL = Codes(1, 500, "INTERNAL")
_FORBIDDEN = Codes(9, 403, "PERMISSION_DENIED")
_known: dict[type[BaseException], Codes] = {}


def codes_of(error: BaseException) -> Codes:
    """Return the codes for an error; those of an internal error for a kind that is not in the table."""
    if isinstance(error, errors.Denied) and error.authenticated:
        return _FORBIDDEN
    kind = type(error)
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = next((codes for each, codes in CODES.items() if issubclass(kind, each)), _INTERNAL)
    return found
