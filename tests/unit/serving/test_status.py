"""Errors at the HTTP edge: every kind has a status, and nothing of ours is told."""

import pytest

from mainspring.core import errors
from mainspring.core.error_codes import codes_of
from mainspring.core.errors import (
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
    WrongEncoding,
    WrongHost,
    WrongMethod,
)
from mainspring.serving.http.message import refusal
from mainspring.serving.plane.executor import ModelFailed

CASES = {
    Invalid("x"): 400,
    errors.InvalidData("x"): 400,
    Denied("x"): 401,
    Denied("x", authenticated=True): 403,
    WrongHost("x"): 403,
    NotFound("x"): 404,
    WrongMethod("x"): 405,
    TooSlow("x"): 408,
    TooLarge("x"): 413,
    WrongEncoding("x"): 415,
    Overloaded("x", retry_after_ms=1): 429,
    Corrupt("x"): 500,
    ModelFailed("x"): 500,
    MainspringError("x"): 500,
    DeadlineExceeded("x"): 503,
    Unavailable("x"): 503,
    StorageFull("x"): 507,
}


@pytest.mark.parametrize("error", CASES, ids=lambda error: type(error).__name__)
def test_each_kind_has_its_status(error: MainspringError) -> None:
    assert codes_of(error).http == CASES[error]


@pytest.mark.parametrize("kind", [Corrupt, Unavailable, StorageFull, ModelFailed, MainspringError])
def test_what_is_ours_is_not_told(kind: type[MainspringError]) -> None:
    reply = refusal(kind("/home/us/state.db did not answer."))
    assert b"/home/us" not in reply.body


def test_what_to_do_is_told() -> None:
    assert b"Fix: use less." in refusal(Invalid("Too much.", fix="use less.")).body


def test_headers_say_how_to_go_on() -> None:
    assert dict(refusal(Denied("x")).headers)["www-authenticate"].startswith("Bearer")
    assert dict(refusal(Overloaded("x", retry_after_ms=1500)).headers)["retry-after"] == "2"
    assert dict(refusal(DeadlineExceeded("x")).headers)["retry-after"] == "1"
    assert "retry-after" not in dict(refusal(Invalid("x")).headers)
