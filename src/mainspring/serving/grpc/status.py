"""The one table from what went wrong to a gRPC status, as `serving.plane.status` is for HTTP."""

from __future__ import annotations

import grpc

from mainspring.core.errors import (
    Conflict,
    DeadlineExceeded,
    Denied,
    Invalid,
    MainspringError,
    NotFound,
    Overloaded,
    StorageFull,
    Unavailable,
)
from mainspring.serving.plane.status import TooLarge, TooSlow, public_text, retry_after_s

# The first kind that fits counts, so a kind stands before the kind it derives from.
CODES: dict[type[MainspringError], grpc.StatusCode] = {
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,  # as gRPC itself says it
    TooSlow: grpc.StatusCode.DEADLINE_EXCEEDED,
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    StorageFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
MAX_DETAILS = 600  # characters; percent-encoded, up to twelve bytes each, and clients take 8 KiB of metadata
SOMETHING = "Something went wrong here."


def code_of(error: Exception) -> grpc.StatusCode:
    """Return the code for an error; INTERNAL for a kind that should not get this far."""
    if isinstance(error, Denied):
        return grpc.StatusCode.PERMISSION_DENIED if error.authenticated else grpc.StatusCode.UNAUTHENTICATED
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def details_of(error: Exception) -> str:
    """Return what the caller is told; of what they cannot have caused, nothing but that."""
    text = public_text(error) if isinstance(error, MainspringError) else SOMETHING
    return text if len(text) <= MAX_DETAILS else f"{text[: MAX_DETAILS - 3]}..."


def trailers_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata: when to try again, where that helps."""
    after = retry_after_s(error) if isinstance(error, MainspringError) else None
    return () if after is None else (("retry-after", str(after)),)
