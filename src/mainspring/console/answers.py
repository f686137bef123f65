"""What goes back over HTTP: JSON, and errors with a status."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi.responses import JSONResponse

from mainspring.core.errors import (
    Conflict,
    Corrupt,
    Denied,
    Invalid,
    MainspringError,
    NotFound,
    Overloaded,
    StorageFull,
    Unavailable,
)
from mainspring.security.hosts import Foreign


class TooLarge(Invalid):
    """A request's body is over the limit."""


_STATUSES: tuple[tuple[type[MainspringError], int], ...] = (
    (Foreign, 403),  # not about a key: another one would not help
    (Denied, 401),  # nobody we know; 403 where it is somebody
    (TooLarge, 413),
    (Invalid, 400),
    (NotFound, 404),
    (Conflict, 409),
    (Overloaded, 503),
    (Unavailable, 503),
    (StorageFull, 507),
    (Corrupt, 500),
)


class Json(JSONResponse):
    """Dataclasses and structs as JSON; not-a-number and infinity as null."""

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


UNITS = {"instants": "UTC epoch microseconds", "durations": "microseconds, where the name says no other unit"}


class Answer(Json):
    """A document of the API, which says in what units its numbers of time are."""

    def render(self, content: Any) -> bytes:
        built = content if isinstance(content, dict) else msgspec.to_builtins(content)
        return super().render({**built, "units": UNITS} if isinstance(built, dict) else built)


def status_of(error: MainspringError) -> int:
    """Return the HTTP status that says what kind of error this is."""
    if isinstance(error, Denied) and error.authenticated:
        return 403
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def error_json(error: MainspringError) -> Json:
    """Return the error as the API states it: `{"error": ..., "fix": ..., "retryable": ...}`."""
    status = status_of(error)
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return Json({"error": error.what, "fix": error.fix, "retryable": error.retryable}, status, headers)
