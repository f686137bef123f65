"""A request past the gate, and what is sent back. Made for each request, so neither is frozen, which costs time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import MainspringError
from mainspring.security.model import Principal
from mainspring.serving.http.body import Headers
from mainspring.serving.plane.status import public_text, retry_after_s, status_of
from mainspring.serving.protocol.asked import Answered
from mainspring.serving.protocol.codec import ErrorResponse, encode

JSON = ("content-type", "application/json")
JSON_ONLY = (JSON,)


@dataclass(eq=False, slots=True)
class Request:
    """`model` and `version` are as in the path, empty where it has none; `received` is monotonic, µs; `id` is what the
    request is called where it is spoken of."""

    headers: Headers
    protocol: Any
    method: str
    model: str
    version: str
    received: int
    id: str
    principal: Principal | None = None
    answered: Answered | None = None  # of an `infer`


@dataclass(eq=False, slots=True)
class Reply:
    """Status, body and headers."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = JSON_ONLY


def reply(status: int, value: Any) -> Reply:
    """Return `value` as JSON."""
    return Reply(status, encode(value))


def refusal(error: MainspringError) -> Reply:
    """Return what a caller is told of an error."""
    status = status_of(error)
    headers = [JSON]
    if status == 401:
        headers.append(("www-authenticate", 'Bearer realm="mainspring"'))
    after = retry_after_s(error)
    if after is not None:
        headers.append(("retry-after", str(after)))
    return Reply(status, encode(ErrorResponse(public_text(error))), tuple(headers))
