"""What is sent again, when, and what never is: the talk itself, in a time of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from mainspring.client.failures import ServerFailed
from mainspring.client.retrying import Retries, exchange
from mainspring.client.talk import Answer, Loss, Lost, Pause, Send
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

OK = Answer(200, {}, b"{}")
REFUSED = Lost(Loss.UNSENT, "refused")
BROKEN = Lost(Loss.BROKEN, "broken")
LATE = Lost(Loss.LATE, "late")


def told(status: int, said: str = '{"error": "No. Fix: do so."}', **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, said.encode())


@dataclass
class Told:
    """What came of a talk with a server that says one thing after another."""

    sent: int = 0
    waits: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)


def talk(
    answers: Sequence[Answer | Lost],
    *,
    most: int = 4,
    timeout_s: float = 10.0,
    harmless: bool = False,
    took_s: float = 0,
) -> tuple[Answer | MainspringError, Told]:
    now = [100.0]
    retries = Retries(most=most, first_s=1.0, longest_s=3.0, chance=lambda: 1.0, monotonic=lambda: now[0])
    found = Told()

    def make(left_s: float) -> Send:
        found.left.append(left_s)
        return Send("POST", "/", {}, b"", left_s)

    talking = exchange(make, retries, timeout_s=timeout_s, url="http://x", harmless=harmless)
    heard: Answer | Lost | None = None
    try:
        while True:
            step = talking.send(heard)
            if isinstance(step, Pause):
                found.waits.append(step.seconds)
                now[0] += step.seconds
                heard = None
            else:
                heard = answers[found.sent]
                found.sent += 1
                now[0] += took_s
    except StopIteration as end:
        return end.value, found
    except MainspringError as error:
        return error, found


def test_refused_connections_and_servers_that_did_nothing_are_asked_again() -> None:
    answers = [REFUSED, told(429, retry_after="2"), told(503, retry_after="0"), OK]
    answer, found = talk(answers, timeout_s=60)
    assert answer is OK
    assert found.waits == [1.0, 2.0 + 2.0, 3.0]  # twice as long each time, up to the longest; Retry-After on top
    assert found.left[0] == 60
    assert found.left[-1] == pytest.approx(60 - sum(found.waits))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (BROKEN, Unavailable),
        (LATE, DeadlineExceeded),
        (told(400), Invalid),
        (told(401), Denied),
        (told(403), Denied),
        (told(404), NotFound),
        (told(413), Invalid),
        (told(408), DeadlineExceeded),
        (told(429), Overloaded),
        (told(500, retry_after="1"), ServerFailed),
        (told(503), Unavailable),
        (told(507), StorageFull),
        (told(302), ServerFailed),
    ],
)
def test_what_may_have_been_done_is_not_asked_again(answer: Answer | Lost, kind: type[MainspringError]) -> None:
    error, found = talk([answer])
    assert isinstance(error, kind)
    assert (found.sent, found.waits) == (1, [])


def test_a_harmless_question_is_asked_again_when_its_connection_broke() -> None:
    answer, found = talk([BROKEN, OK], harmless=True)
    assert (answer, found.sent) == (OK, 2)


def test_no_more_attempts_than_allowed() -> None:
    error, found = talk([REFUSED] * 9, most=2)
    assert isinstance(error, Unavailable)
    assert found.sent == 3
    error, found = talk([told(429, retry_after="1")] * 9, most=0)
    assert isinstance(error, Overloaded)
    assert (error.retry_after_ms, found.sent) == (1000, 1)


def test_nobody_waits_for_what_comes_too_late() -> None:
    error, found = talk([told(503, retry_after="30"), OK], timeout_s=5)
    assert isinstance(error, Unavailable)
    assert (found.sent, found.waits) == (1, [])
    # The time that answers took counts as well.
    error, found = talk([REFUSED, REFUSED, OK], timeout_s=5, took_s=2.0)
    assert isinstance(error, Unavailable)
    assert found.sent == 2


def test_errors_carry_the_servers_words() -> None:
    error, _ = talk([told(404)])
    assert isinstance(error, NotFound)
    assert (error.what, error.fix) == ("No.", "do so.")
    error, _ = talk([told(401, '{"error": "No key."}')])
    assert isinstance(error, Denied)
    assert not error.authenticated
    assert "mainspring keys create" in str(error)
    error, _ = talk([told(502, "<html>")])
    assert "502" in str(error)
    error, _ = talk([BROKEN])
    assert "may have been made" in str(error)
    error, _ = talk([told(500, '{"error": 5}')])
    assert "answered 500" in str(error)
