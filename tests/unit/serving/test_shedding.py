"""Shedding: the share holds, the least important requests go first, a retry is refused again, and it ends by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import Shed as Refused
from mainspring.core.time import MINUTE, SECOND, ManualClock
from mainspring.serving.model import Shed
from mainspring.serving.plane.lane import LAST
from mainspring.serving.plane.shedding import Shedder

ASKED = 4_000


def shedder(share: float, clock: ManualClock | None = None) -> Shedder:
    return Shedder(Shed(share=share, until=MINUTE, salt="incident"), clock or ManualClock(0))


def is_refused(of: Shedder, priority: int = LAST, unit: str = "") -> bool:
    try:
        of.check(priority, unit)
    except Refused:
        return True
    return False


def shares(of: Shedder, priority: Callable[[int], int]) -> tuple[float, dict[int, float]]:
    """Return the share of requests that are refused, of all and by priority; without the first."""
    asked: Counter[int] = Counter()
    refused: Counter[int] = Counter()
    for number in range(ASKED):
        each = priority(number)
        gone = is_refused(of, each, f"{number}")
        if number >= ASKED // 4:
            asked[each] += 1
            refused[each] += gone
    return sum(refused.values()) / sum(asked.values()), {each: refused[each] / asked[each] for each in asked}


@given(share=st.floats(0.05, 1.0))
@settings(max_examples=examples(gate=5, deep=60), deadline=None)
def test_the_share_holds_whatever_ids_requests_have(share: float) -> None:
    found, _ = shares(shedder(share), lambda _: LAST)
    assert found == pytest.approx(share, abs=0.05)


def test_requests_without_a_priority_go_first_and_the_most_important_last() -> None:
    def mixed(number: int) -> int:
        return (LAST, LAST, 3, 1)[number % 4]

    for share, by_priority in ((0.25, (0.5, 0, 0)), (0.625, (1, 0.5, 0)), (0.9, (1, 1, 0.6)), (1.0, (1, 1, 1))):
        found, by = shares(shedder(share), mixed)
        assert found == pytest.approx(share, abs=0.05)
        assert [by[each] for each in (LAST, 3, 1)] == pytest.approx(list(by_priority), abs=0.1)


def test_a_retry_is_refused_again_and_another_shed_draws_again() -> None:
    of, other = shedder(0.5), Shedder(Shed(share=0.5, until=MINUTE, salt="another"), ManualClock(0))
    drawn = [is_refused(of, unit=f"{number}") for number in range(64)]
    assert drawn == [is_refused(of, unit=f"{number}") for number in range(64)]
    assert drawn != [is_refused(other, unit=f"{number}") for number in range(64)]
    assert {True, False} == set(drawn)


def test_it_says_when_to_come_back_and_ends_by_itself() -> None:
    clock = ManualClock(0)
    of = shedder(1.0, clock)
    assert of.share == 1.0
    with pytest.raises(Refused, match="on purpose") as refused:
        of.check(1, "")
    assert refused.value.retry_after_ms == 60_000
    clock.set(MINUTE - SECOND)
    with pytest.raises(Refused) as refused:
        of.check(1, "")
    assert refused.value.retry_after_ms == 1_000
    clock.set(MINUTE)
    of.check(LAST, "")
    assert of.share == 0.0
