"""HTTP responses: JSON, and errors with a status."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi.responses import JSONResponse

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import MainspringError


class Json(JSONResponse):
    """Dataclasses and structs as JSON; not-a-number and infinity as null."""

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


UNITS = {"instants": "UTC epoch microseconds", "durations": "microseconds, where the name says no other unit"}


class Answer(Json):
    """A document of the API, with the units of its times."""

    def render(self, content: Any) -> bytes:
        built = content if isinstance(content, dict) else msgspec.to_builtins(content)
        return super().render({**built, "units": UNITS} if isinstance(built, dict) else built)


def error_json(error: MainspringError) -> Json:
    """Return the error as the API states it: `{"error": ..., "fix": ..., "retryable": ...}`."""
    status = codes_of(error).http
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return Json({"error": error.what, "fix": error.fix, "retryable": error.retryable}, status, headers)
