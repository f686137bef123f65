"""Budgets against a model of them: what is reserved and spent by processes that share counts, some of which die."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.serving import NOW
from mainspring.core.errors import Invalid, QuotaExceeded
from mainspring.core.time import DAY, ManualClock
from mainspring.llm.budgets import Budgets, Reservation, Spend
from mainspring.security.model import KeyScope, Principal
from mainspring.serving.model import Endpoint
from mainspring.serving.plane.counts import Counts
from mainspring.serving.quota import Quota

LIMIT = 1000
ALL = (Quota("team", per="day", tokens=LIMIT, by="all"),)


def caller(id: str = "k1", **given: Any) -> Principal:
    return Principal(id, given.pop("name", "test"), frozenset(KeyScope), **given)


def budgets(clock: ManualClock | None = None) -> Budgets:
    return Budgets(Counts(), Counts(held=True), clock=clock or ManualClock(NOW))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 2), st.integers(0, 600)),
        st.tuples(st.sampled_from(["grow", "note", "settle"]), st.integers(0, 50), st.integers(0, 700)),
        st.tuples(st.just("release"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 2), st.just(0)),
    ),
    min_size=20,
    max_size=80,
)


@settings(max_examples=examples(gate=3, deep=1000), deadline=None)
@given(steps)
def test_a_call_passes_exactly_if_its_most_fits_beside_what_is_spent_and_reserved(history) -> None:
    with tempfile.TemporaryDirectory() as folder:
        processes = [Budgets.within(Path(folder), ManualClock(NOW), lease_s=0) for _ in range(3)]
        alive: list[list[Any]] = []  # process, reservation, most, used
        spent = 0
        for kind, number, amount in history:
            held = sum(max(0, most - used) for *_, most, used in alive)
            if kind == "reserve":
                fits = spent + held + amount <= LIMIT
                try:
                    made = processes[number].reserve(ALL, caller(), "m", Spend(amount))
                except QuotaExceeded:
                    assert not fits
                else:
                    assert fits
                    alive.append([number, made, amount, 0])
            elif kind == "kill":
                processes[number].close()
                processes[number] = Budgets.within(Path(folder), ManualClock(NOW), lease_s=0)
                alive = [each for each in alive if each[0] != number]
            elif alive:
                each = alive[number % len(alive)]
                made, most, used = each[1:]
                if kind == "grow":
                    fits = spent + held + max(0, amount - most) <= LIMIT
                    try:
                        made.grow(Spend(amount))
                    except QuotaExceeded:
                        assert not fits
                    else:
                        assert fits or amount <= most
                        each[2] = max(most, amount)
                elif kind == "note" and amount >= used:
                    made.note(Spend(amount))
                    spent, each[3] = spent + amount - used, amount
                elif kind == "settle" and amount >= used:
                    made.settle(Spend(amount))
                    spent += amount - used
                    alive.remove(each)
                elif kind == "release":
                    made.settle()
                    alive.remove(each)
        held = sum(max(0, most - used) for *_, most, used in alive)
        left = processes[0].left(ALL, caller(), "m")
        for each in processes:
            each.close()
        assert left["tokens"] <= max(0, LIMIT - spent - held)  # less by what was reserved by killed ones


def test_all_quotas_hold_or_none_is_reserved() -> None:
    of = budgets()
    both = (Quota("calls", per="minute", requests=2), Quota("money", per="month", cost=1.0, by="owner"))
    first = of.reserve(both, caller(), "m", Spend(10, 400_000))
    assert first.fields[0][1].startswith('"calls";r=1;t=60, "money";r=0;t=')
    with pytest.raises(QuotaExceeded, match="reserved by calls under way") as refused:
        of.reserve(both, caller(), "m", Spend(10, 700_000))
    assert refused.value.retry_after_ms == 1000
    assert of.left(both, caller(), "m") == {"requests": 1, "cost": 600_000}
    first.settle(Spend(10, 900_000))
    with pytest.raises(QuotaExceeded, match="1 of money a month is spent") as refused:
        of.reserve(both, caller(), "m", Spend(10, 200_000))
    assert refused.value.retry_after_ms > DAY // 1000
    assert [name for name, _ in refused.value.fields] == ["ratelimit-policy", "ratelimit"]
    with pytest.raises(Invalid, match="may use 2 of money"):
        of.reserve(both, caller(), "m", Spend(10, 2_000_000))
    assert of.left(both, caller(), "m") == {"requests": 1, "cost": 100_000}


def test_a_call_that_fails_costs_nothing_and_one_that_broke_costs_what_was_noted() -> None:
    of = budgets()

    def call(used: int) -> None:
        with of.reserve(ALL, caller(), "m", Spend(800)) as reserved:
            if used:
                reserved.note(Spend(used))
            raise ConnectionError

    for used, left in ((0, LIMIT), (300, LIMIT - 300)):
        with pytest.raises(ConnectionError):
            call(used)
        assert of.left(ALL, caller(), "m") == {"tokens": left}


def test_a_stream_grows_until_the_budget_ends_and_what_it_used_is_charged() -> None:
    of = budgets()
    other = of.reserve(ALL, caller("k2"), "m", Spend(500))
    stream = of.reserve(ALL, caller(), "m", Spend(100))
    with stream:
        for used in (100, 200, 300, 400, 500):
            stream.grow(Spend(used))
            stream.note(Spend(used))
        with pytest.raises(QuotaExceeded):
            stream.grow(Spend(600))
    other.settle(Spend(0))
    assert of.left(ALL, caller(), "m") == {"tokens": 500}
    stream.settle(Spend(900))  # it was settled before
    assert of.left(ALL, caller(), "m") == {"tokens": 500}


def test_what_an_upstream_used_beyond_the_reservation_is_charged_too() -> None:
    of = budgets()
    of.reserve(ALL, caller(), "m", Spend(100)).settle(Spend(990))
    assert of.left(ALL, caller(), "m") == {"tokens": 10}


def test_counts_are_by_key_owner_model_or_all_and_only_for_who_is_named() -> None:
    of, left = budgets(), Counter[str]()
    ana, bob = caller("k1", owner="o1", groups=frozenset({"team"})), caller("k2", owner="o1")
    for by in ("key", "owner", "endpoint", "all"):
        quotas = (Quota(by, tokens=LIMIT, by=by),)  # type: ignore[arg-type]
        of.reserve(quotas, ana, "m", Spend(400)).settle(Spend(400))
        left[by] = of.left(quotas, bob, "other")["tokens"]
    assert left == {"key": LIMIT, "owner": LIMIT - 400, "endpoint": LIMIT, "all": LIMIT - 400}
    team = (Quota("team", tokens=10, only=["group:team"]),)  # type: ignore[arg-type]
    assert of.left(team, bob, "m") == {}
    of.reserve(team, bob, "m", Spend(1000)).settle()
    with pytest.raises(Invalid):
        of.reserve(team, ana, "m", Spend(11))


def test_a_new_period_begins_empty_and_a_call_of_the_old_one_does_not_touch_it() -> None:
    clock = ManualClock(NOW)
    of = budgets(clock)
    old: list[Reservation] = [of.reserve(ALL, caller(), "m", Spend(500)) for _ in range(2)]
    clock.advance(DAY)
    assert of.left(ALL, caller(), "m") == {"tokens": LIMIT}
    old[0].settle(Spend(500))
    old[1].note(Spend(100))
    old[1].grow(Spend(700))
    old[1].settle()
    assert of.left(ALL, caller(), "m") == {"tokens": LIMIT}
    of.reserve(ALL, caller(), "m", Spend(LIMIT)).settle(Spend(1))


def test_an_endpoint_has_no_tokens() -> None:
    with pytest.raises(Invalid, match="quota of tokens"):
        Endpoint("e", model="m@1", quotas=[Quota("q", tokens=1)])
