"""Errors as gRPC carries them: status code, details, trailing metadata."""

from __future__ import annotations

import grpc

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import MainspringError
from mainspring.serving.plane.status import public_text, retry_after_s

MAX_DETAILS = 600  # characters; percent-encoded, up to twelve bytes each, and clients take 8 KiB of metadata
SOMETHING = "Something went wrong here."


def code_of(error: Exception) -> grpc.StatusCode:
    """Return the code for an error; INTERNAL for a kind that should not get this far."""
    return grpc.StatusCode[codes_of(error).grpc]


def details_of(error: Exception) -> str:
    """Return the error text for the caller; of an internal error nothing but that it is one."""
    text = public_text(error) if isinstance(error, MainspringError) else SOMETHING
    return text if len(text) <= MAX_DETAILS else f"{text[: MAX_DETAILS - 3]}..."


def trailers_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata: when to try again, where that helps."""
    after = retry_after_s(error) if isinstance(error, MainspringError) else None
    return () if after is None else (("retry-after", str(after)),)
