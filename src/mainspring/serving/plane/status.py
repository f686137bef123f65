"""Errors of the data plane as callers see them, over every protocol."""

from __future__ import annotations

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import DeadlineExceeded, MainspringError, NotReady, Overloaded, QuotaExceeded
from mainspring.serving.plane.watch import StoreDamaged

# What the caller cannot have caused is logged here and told them only in general.
_OURS = {
    500: "The model failed.",
    503: "A part of this server does not respond.",
    507: "This server has no space left.",
}


SPENT = 430  # in the metrics only: refused for a quota, which is no overload of this server


def counted_status(error: BaseException) -> int:
    """Return the status by which a request is counted."""
    return SPENT if isinstance(error, QuotaExceeded) else codes_of(error).http


def public_text(error: MainspringError) -> str:
    """Return the error text for the caller: the message, unless it may name internals."""
    if isinstance(error, (DeadlineExceeded, NotReady, Overloaded, StoreDamaged)):
        return error.what
    return _OURS.get(codes_of(error).http) or str(error)


def retry_after_s(error: MainspringError) -> int | None:
    """Return the seconds for `Retry-After`, `None` where trying again does not help."""
    if isinstance(error, (Overloaded, DeadlineExceeded)) and error.retry_after_ms:
        return max(1, -(-error.retry_after_ms // 1000))
    return 1 if error.retryable else None
