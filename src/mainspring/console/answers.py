"""JSON over HTTP: answers, errors with a status, and the bodies of requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from fastapi import Request
from fastapi.responses import JSONResponse

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.json_content import decoded

_Kind = TypeVar("_Kind", bound=msgspec.Struct)
_Handler = TypeVar("_Handler", bound=Callable[..., Any])


class Json(JSONResponse):
    """Dataclasses and structs as JSON; not-a-number and infinity as null."""

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


_DECLARED = "declared_answer"
LATER: dict[int | str, dict[str, Any]] = {202: {"description": "It is being computed: ask again."}}
UNITS = {"instants": "UTC epoch microseconds", "durations": "microseconds, where the name says no other unit"}


class Answer(Json):
    """A document of the API, with the units of its times."""

    def render(self, content: Any) -> bytes:
        built = content if isinstance(content, dict) else msgspec.to_builtins(content)
        return super().render({**built, "units": UNITS} if isinstance(built, dict) else built)


def answers(whole: Any = None, /, **parts: Any) -> Callable[[_Handler], _Handler]:
    """Declare the type of a handler's `Answer`, or the types of its parts by name, for the OpenAPI document."""

    def declared(handler: _Handler) -> _Handler:
        setattr(handler, _DECLARED, {"": whole} if whole is not None else parts)
        return handler

    return declared


def declared_answer(handler: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parts of a handler's `Answer` by name; with an empty name, that of the whole."""
    found: dict[str, Any] = getattr(handler, _DECLARED, {})
    return found


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
