from __future__ import annotations

import threading

import pytest

from mainspring.console.background_cache import Looking, Shared
from mainspring.core.errors import Corrupt, Overloaded


@pytest.fixture
def looking():
    made = Looking(kept=2, waiting=3)
    yield made
    made.close()


def test_what_was_made_is_kept(looking) -> None:
    made = []
    for _ in range(3):
        assert looking.at("a", lambda: made.append(1) or "answer", 30) == (True, "answer")
    assert made == [1]


def test_what_takes_long_is_there_later(looking) -> None:
    go = threading.Event()
    assert looking.at("slow", lambda: go.wait(30), 0.01) == (False, None)
    assert looking.at("slow", lambda: pytest.fail("made twice"), 0.01) == (False, None)
    go.set()
    assert looking.at("slow", lambda: pytest.fail("made twice"), 30) == (True, True)


def test_a_failure_is_told_and_not_kept(looking) -> None:
    def fail() -> None:
        raise Corrupt("It is damaged.")

    with pytest.raises(Corrupt):
        looking.at("a", fail, 30)
    assert looking.at("a", lambda: "well", 30) == (True, "well")


def test_too_many_at_once_are_refused(looking) -> None:
    go = threading.Event()
    for name in "abc":
        looking.at(name, lambda: go.wait(30), 0)
    with pytest.raises(Overloaded):
        looking.at("d", lambda: None, 0)
    assert looking.at("a", lambda: None, 0) == (False, None)  # whoever waits already goes on waiting
    go.set()
    assert looking.at("c", lambda: None, 30) == (True, True)
    assert looking.at("d", lambda: "now", 30) == (True, "now")


def test_the_oldest_is_forgotten(looking) -> None:
    made = []
    for name in ("a", "b", "a", "c", "b"):
        looking.at(name, lambda name=name: made.append(name), 30)
    assert made == ["a", "b", "c", "b"]


def test_one_is_made_at_a_time(looking) -> None:
    running, most, lock = [], [], threading.Lock()

    def make() -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        with lock:
            running.pop()

    for name in "abc":
        looking.at(name, make, 0)
    looking.at("c", make, 30)
    assert set(most) == {1}


def test_a_shared_value_is_read_once_a_second() -> None:
    now, read = [0.0], []
    shared = Shared(lambda: read.append(now[0]) or len(read), clock=lambda: now[0])
    assert [shared.get(), shared.get()] == [1, 1]
    now[0] = 0.99
    assert shared.get() == 1
    now[0] = 1.0
    assert [shared.get(), shared.get(), len(read)] == [2, 2, 2]


def test_a_shared_value_that_cannot_be_read_is_read_again() -> None:
    answers = iter([Corrupt("It is damaged."), 3])

    def read() -> int:
        answer = next(answers)
        if isinstance(answer, Corrupt):
            raise answer
        return answer

    shared = Shared(read, clock=lambda: 0.0)
    with pytest.raises(Corrupt):
        shared.get()
    assert shared.get() == 3
