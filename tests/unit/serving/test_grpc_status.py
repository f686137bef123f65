"""Every error has one gRPC status, and what the caller cannot have caused tells them nothing of us."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from mainspring.core.errors import (
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Denied,
    Invalid,
    MainspringError,
    NotFound,
    Overloaded,
    StorageFull,
    TooLarge,
    TooSlow,
    Unavailable,
)
from mainspring.serving.grpc.service import MAX_DETAILS, _abort, code_of, details_of, trailers_of
from mainspring.serving.plane.executor import ModelFailed

SECRET = "/srv/secret/place"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Denied("x"), "UNAUTHENTICATED"),
        (Denied("x", authenticated=True), "PERMISSION_DENIED"),
        (Invalid("x"), "INVALID_ARGUMENT"),
        (NotFound("x"), "NOT_FOUND"),
        (Conflict("x"), "FAILED_PRECONDITION"),
        (Overloaded("x", retry_after_ms=1500), "RESOURCE_EXHAUSTED"),
        (TooLarge("x"), "RESOURCE_EXHAUSTED"),
        (StorageFull(SECRET), "RESOURCE_EXHAUSTED"),
        (DeadlineExceeded("x"), "DEADLINE_EXCEEDED"),
        (TooSlow("x"), "DEADLINE_EXCEEDED"),
        (Unavailable(SECRET), "UNAVAILABLE"),
        (ModelFailed(SECRET), "INTERNAL"),
        (Corrupt(SECRET), "INTERNAL"),
        (MainspringError(SECRET), "INTERNAL"),
        (ValueError(SECRET), "INTERNAL"),
    ],
)
def test_a_code_and_details(error: Exception, code: str) -> None:
    assert code_of(error) is getattr(grpc.StatusCode, code)
    assert details_of(error)
    assert SECRET not in details_of(error)


def test_when_to_come_again_is_told_where_that_helps() -> None:
    assert trailers_of(Overloaded("x", retry_after_ms=1500)) == (("retry-after", "2"),)
    assert trailers_of(Unavailable("x")) == (("retry-after", "1"),)
    for error in (Invalid("x"), Denied("x"), ValueError("x")):
        assert trailers_of(error) == ()


def test_details_fit_into_what_clients_take_as_metadata() -> None:
    assert len(details_of(Invalid("é" * 100_000))) <= MAX_DETAILS


def test_who_cannot_be_told_is_no_failure_of_ours() -> None:
    class Over:
        async def abort(self, *_: object) -> None:
            raise grpc.aio.InternalError("the call is over")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_abort("ModelInfer", "r1", Invalid("x"), Over()))
