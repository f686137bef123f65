"""Shedding: the share holds, the least important requests go first, a retry is refused again, and it ends by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.serving import bundle
from mainspring.core.errors import Shed as Refused
from mainspring.core.time import HOUR, MINUTE, SECOND, ManualClock, SystemClock
from mainspring.security.model import KeyScope, Principal
from mainspring.serving.model import Shed
from mainspring.serving.plane.inference import infer
from mainspring.serving.plane.lane import LAST, monotonic_us
from mainspring.serving.plane.shedding import Shedder
from mainspring.serving.protocol.asked import Asked
from unit.serving.test_plane import features, on_a_loop, served

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


@on_a_loop
async def test_a_teams_shed_refuses_its_callers_alone() -> None:
    of_all = Shed(share=1.0, until=1, salt="over")  # long ago
    of_team = Shed(share=1.0, until=SystemClock().now() + HOUR, salt="incident", team="risk")
    with ThreadPoolExecutor(2) as threads:
        behind = served(threads, bundle())
        (lane,) = behind.lanes.values()
        shedding = replace(behind, shedders=tuple(Shedder(each, SystemClock()) for each in (of_all, of_team)))
        assert shedding.shed_share == 0.0, "of all requests, nothing is refused"

        async def ask(*groups: str) -> None:
            caller = Principal("k1", "acme", frozenset(KeyScope), groups=frozenset(groups))
            asked, now = Asked(None, features()), monotonic_us()
            await infer(asked, shedding, version="", principal=caller.id, received_us=now, caller=caller)

        for _ in range(2):
            await ask()
            await ask("web")
            with pytest.raises(Refused, match="of the group 'risk' on purpose"):
                await ask("risk", "web")
        assert lane.metrics.rejections["shed"] == 2
