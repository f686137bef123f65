"""How long a store that does not answer is asked, by a clock that goes on only by waiting."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from mainspring.core.errors import Unavailable
from mainspring.features.adapters.patience import READ_BUDGET_S, REST_S, WRITE_BUDGET_S, Patience


class Store:
    """Fails for a passing reason until `back`, in seconds, and counts how often it was asked."""

    def __init__(self, back: float = float("inf"), chance: float = 0.0) -> None:
        self.now = 0.0
        self.asked: list[float] = []
        self.back = back
        self.patience = Patience(
            "The store",
            lambda error: isinstance(error, OSError),
            clock=lambda: self.now,
            sleep=self._sleep,
            chance=lambda: chance,
        )

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def answer(self) -> str:
        self.asked.append(self.now)
        if self.now < self.back:
            raise OSError("it is away.")
        return "here"


def test_the_first_answer_costs_no_wait() -> None:
    store = Store(back=0.0)
    assert [store.patience.read(store.answer), store.patience.write(store.answer)] == ["here", "here"]
    assert (store.now, len(store.asked)) == (0.0, 2)


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_pauses_double_and_end_within_the_budget(chance: float) -> None:
    for way, budget in (("read", READ_BUDGET_S), ("write", WRITE_BUDGET_S)):
        store = Store(chance=chance)
        with pytest.raises(Unavailable, match="The store did not respond: it is away"):
            getattr(store.patience, way)(store.answer)
        pauses = [round(after - before, 9) for before, after in pairwise(store.asked)]
        assert store.asked[-1] < budget
        assert len(pauses) >= 3
        assert pauses == sorted(pauses)
        assert all(0.0025 <= pause <= 0.5 for pause in pauses)


def test_who_comes_back_in_time_is_heard() -> None:
    store = Store(back=1.0)
    assert store.patience.write(store.answer) == "here"
    assert store.asked[-1] >= 1.0


def test_after_a_budget_spent_in_vain_reads_are_refused_at_once_for_a_while() -> None:
    store = Store(back=READ_BUDGET_S + 0.2)
    with pytest.raises(Unavailable):
        store.patience.read(store.answer)
    asked = len(store.asked)
    store.now += 0.9 * REST_S
    with pytest.raises(Unavailable, match="a moment ago"):
        store.patience.read(store.answer)
    assert len(store.asked) == asked
    store.now += REST_S
    assert store.patience.read(store.answer) == "here"
    assert store.patience.read(store.answer) == "here"


def test_a_write_that_succeeds_lets_reads_through_again() -> None:
    store = Store(back=READ_BUDGET_S)
    with pytest.raises(Unavailable):
        store.patience.read(store.answer)
    store.now = store.back
    assert store.patience.write(store.answer) == "here"
    assert store.patience.read(store.answer) == "here"


def test_what_must_not_run_twice_does_not() -> None:
    store = Store()
    with pytest.raises(Unavailable):
        store.patience.once(store.answer)
    assert store.asked == [0.0]


@pytest.mark.parametrize("way", ["read", "write", "once"])
def test_what_is_no_passing_reason_is_not_repeated(way: str) -> None:
    store = Store()
    asked = []

    def wrong() -> None:
        asked.append(1)
        raise ValueError("wrong")

    ask: Callable[[Callable[[], None]], None] = getattr(store.patience, way)
    with pytest.raises(ValueError, match="wrong"):
        ask(wrong)
    assert asked == [1]
    assert store.patience.write(lambda: "still asked") == "still asked"
