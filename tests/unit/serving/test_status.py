"""Errors at the HTTP edge: every kind has a status, and nothing of ours is told."""

import pytest

from mainspring.core import errors
from mainspring.core.errors import (
    Corrupt,
    DeadlineExceeded,
    Denied,
    Invalid,
    MainspringError,
    NotFound,
    Overloaded,
    StorageFull,
    Unavailable,
)
from mainspring.serving.http.message import refusal
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.status import STATUS, TooLarge, TooSlow, WrongEncoding, WrongHost, WrongMethod, status_of

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
    assert status_of(error) == CASES[error]


def test_a_kind_stands_before_the_kind_it_derives_from() -> None:
    kinds = list(STATUS)
    for place, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[place + 1 :])


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
