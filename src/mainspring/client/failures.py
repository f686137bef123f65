"""Translation of error responses and lost requests into `MainspringError` kinds, which say what the caller can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mainspring.client.talk import Answer, Loss, Lost
from mainspring.core.errors import (
    DeadlineExceeded,
    Denied,
    Invalid,
    MainspringError,
    NotFound,
    Overloaded,
    StorageFull,
    Unavailable,
)

_KEY = "create a key with `mainspring keys create NAME --scope predict` and give it to the client as `key`."
_RETRY_AFTER_S = 1.0  # if a 429 has no Retry-After


class ServerFailed(MainspringError):
    """The server or its model failed; the request may be at fault, or not."""


def refusal(answer: Answer) -> MainspringError:
    """Return the error for an answer that is not a success, with the server's words."""
    what, _, fix = _said(answer).partition(" Fix: ")
    return _KINDS.get(answer.status, _failed)(answer, what, fix or None)


def lost(found: Lost, url: str, *, sent_twice: bool) -> MainspringError:
    """Return the error for a request without a response; `sent_twice`: whether it can be sent again safely."""
    told = f"{url}: {found.loss.value} ({found.why})."
    if found.loss is Loss.LATE:
        return DeadlineExceeded(told)
    if found.loss is Loss.UNSENT:
        return Unavailable(told, fix="check that the gateway runs (`mainspring up`) and that the address is right.")
    if found.loss is Loss.DISTRUSTED:
        return Denied(told, fix="give the client the server's authority: tls=Certificates(ca=FILE).")
    if found.loss is Loss.UNKNOWN:
        return Denied(told, fix="give the client a certificate: tls=Certificates(cert=FILE, key=FILE).")
    if sent_twice:
        return Unavailable(told)
    return Unavailable(f"{told} The prediction may have been made and logged, so the request was not repeated.")


def retry_after_s(answer: Answer) -> float | None:
    """Return the seconds in `Retry-After`, `None` without one: then a retry does not help."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _said(answer: Answer) -> str:
    try:
        body: Any = json.loads(answer.body)
    except ValueError:
        body = None
    said = body.get("error") if isinstance(body, dict) else None
    if isinstance(said, str) and said:
        return said
    return f"The server answered {answer.status}: {answer.body[:200].decode(errors='replace') or 'nothing else'}"


def _failed(answer: Answer, what: str, fix: str | None) -> MainspringError:
    return ServerFailed(what, fix=fix, retryable=retry_after_s(answer) is not None)


_KINDS: dict[int, Callable[[Answer, str, str | None], MainspringError]] = {
    400: lambda _, what, fix: Invalid(what, fix=fix),
    401: lambda _, what, fix: Denied(what, fix=fix or _KEY),
    403: lambda _, what, fix: Denied(what, authenticated=True, fix=fix),
    404: lambda _, what, fix: NotFound(what, fix=fix),
    405: lambda _, what, fix: Invalid(what, fix=fix),
    408: lambda _, what, __: DeadlineExceeded(what),
    413: lambda _, what, fix: Invalid(what, fix=fix or "send fewer rows in a request."),
    415: lambda _, what, fix: Invalid(what, fix=fix),
    422: lambda _, what, fix: Invalid(what, fix=fix),
    429: lambda answer, what, _: Overloaded(what, retry_after_ms=int(1000 * (retry_after_s(answer) or _RETRY_AFTER_S))),
    503: lambda _, what, fix: Unavailable(what, fix=fix),
    504: lambda _, what, __: DeadlineExceeded(what),
    507: lambda _, what, fix: StorageFull(what, fix=fix),
}
