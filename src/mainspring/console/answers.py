"""JSON over HTTP: answers, errors with a status, and the bodies of requests."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from fastapi import Request
from fastapi.responses import JSONResponse

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.json_content import decoded

_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class Json(JSONResponse):
    """Dataclasses and structs as JSON; not-a-number and infinity as null."""

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


LATER: dict[int | str, dict[str, Any]] = {202: {"description": "It is being computed: ask again."}}
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


class Body(Generic[_Kind]):
    """Dependency of a handler: the JSON body of its request; an empty one has no fields.

    Raises:
        Invalid: It is no JSON, lacks a field, or has one that `kind` does not know.
    """

    def __init__(self, kind: type[_Kind]) -> None:
        self.kind = kind

    async def __call__(self, request: Request) -> _Kind:
        try:
            return decoded(await request.body() or b"{}", self.kind)
        except msgspec.MsgspecError as error:
            names = ", ".join(f'"{name}"' for name in self.kind.__struct_fields__)
            raise Invalid(f"The request is not valid: {error}.", fix=f"send {{{names}}}.") from None
