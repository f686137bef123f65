"""Errors as callers of OpenAI's and Anthropic's clients know them.

Sources: https://platform.openai.com/docs/guides/error-codes, https://docs.anthropic.com/en/api/errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import MainspringError, NotFound, QuotaExceeded
from mainspring.llm.answers.rating import NoAnswer
from mainspring.llm.model import Dialect, UpstreamError
from mainspring.llm.protocol.reading import InvalidField
from mainspring.serving.plane.status import public_text, retry_after_s

# Kind of an upstream's error -> status for callers. Our own key at an upstream is none of theirs.
_STATUS: Mapping[str, int] = {
    "refused": 400,
    "denied": 502,
    "missing": 502,
    "limited": 429,
    "failed": 502,
    "unreachable": 503,
    "late": 504,
    "broken": 502,
}
_OPENAI = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded", 504: "upstream_timeout"}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class NoCollection(NotFound):
    """There is no collection of the name that a caller gives."""


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a caller is told: `retry_after_s` is `None` where no time is known."""

    status: int
    message: str
    code: str = ""
    type: str = ""
    param: str = ""
    retry_after_s: int | None = None


def told(error: Exception) -> Told:
    """Return what callers are told of an error: nothing about what is inside, of an error that is none of ours."""
    if isinstance(error, UpstreamError):
        after = None if error.retry_after_ms is None else -(-error.retry_after_ms // 1000)
        if error.kind == "refused":
            status = error.status if 400 <= error.status < 500 else 400
            return Told(status, error.what, error.code, error.type, error.param, after)
        return Told(_STATUS[error.kind], error.what, error.code, retry_after_s=after)
    if isinstance(error, InvalidField):
        return Told(400, public_text(error), param=error.param)
    if isinstance(error, NoCollection):
        return Told(404, public_text(error), "collection_not_found")
    if isinstance(error, NoAnswer):
        return Told(404, public_text(error), "answer_not_found")
    if isinstance(error, QuotaExceeded):
        spent = "insufficient_quota"
        return Told(429, public_text(error), spent, spent, retry_after_s=retry_after_s(error))
    if isinstance(error, MainspringError):
        return Told(codes_of(error).http, public_text(error), retry_after_s=retry_after_s(error))
    return Told(500, "An internal error occurred.")


def error_body(told: Told, dialect: Dialect) -> bytes:
    """Return the body of an error, which is also the data of an event that ends a stream."""
    return msgspec.json.encode(error_fields(told, dialect))


def error_fields(told: Told, dialect: Dialect) -> dict[str, Any]:
    """Return the fields of an error's body."""
    status = told.status
    if dialect == "anthropic":
        kind = _ANTHROPIC.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": told.message}}
    kind = told.type or _OPENAI.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = told.code or _CODES.get(status)
    return {"error": {"message": told.message, "type": kind, "param": told.param or None, "code": code}}
