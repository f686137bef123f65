"""Budgets against a model of them: what is reserved and spent by processes that share counts, some of which die."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.servers import RedisServer
from kit.serving import NOW
from mainspring.core.errors import Invalid, QuotaExceeded, Unavailable
from mainspring.core.ids import new_id
from mainspring.core.time import DAY, ManualClock
from mainspring.llm.adapters.redis_budgets import RedisBudgets, spent_of
from mainspring.llm.budgets import Budgets, Reservation, Spend
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import ALL as EVERYBODY
from mainspring.security.quota import ENDPOINT, KEY, OWNER, Quota
from mainspring.serving.model import Endpoint

LIMIT = 1000
ALL = (Quota("team", per="day", tokens=LIMIT, by="all"),)


def caller(id: str = "k1", **given: Any) -> Principal:
    return Principal(id, given.pop("name", "test"), frozenset(KeyScope), **given)


class Machine:
    """Budgets of processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, clock: ManualClock) -> Budgets:
        return MachineBudgets.within(self._folder, clock, lease_s=0)

    async def charged(self, of: Any) -> None:
        pass


class Everywhere:
    """Budgets of processes of several machines."""

    def __init__(self, server: RedisServer) -> None:
        self._server, self._project = server, new_id()

    def open(self, clock: ManualClock) -> Budgets:
        return RedisBudgets(self._server.url, self._project, clock, lease_s=0)

    async def charged(self, of: Any) -> None:
        await of.charged()


@pytest.fixture(params=["machine", "redis"])
def place(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    if request.param == "machine":
        return Machine
    server = request.getfixturevalue("redis_server")
    return lambda _: Everywhere(server)


def run(place: Callable[[Path], Any], body: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(body(place(Path(folder))))


@asynccontextmanager
async def opened(at: Any, clock: ManualClock | None = None) -> AsyncIterator[Any]:
    of = at.open(clock or ManualClock(NOW))
    try:
        yield of
    finally:
        await of.close()


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


async def lived(at: Any, history: Any) -> None:
    """Follow a history of three processes, and compare each step with the model."""
    processes = [at.open(ManualClock(NOW)) for _ in range(3)]
    alive: list[list[Any]] = []  # process, reservation, most, used
    spent = 0
    for kind, number, amount in history:
        held = sum(max(0, most - used) for *_, most, used in alive)
        if kind == "reserve":
            fits = not amount or spent + held + amount <= LIMIT
            try:
                made = await processes[number].reserve(ALL, caller(), "m", Spend(amount))
            except QuotaExceeded:
                assert not fits
            else:
                assert fits
                alive.append([number, made, amount, 0])
        elif kind == "kill":
            await processes[number].close()  # that settles nothing
            processes[number] = at.open(ManualClock(NOW))
            spent += sum(max(0, most - used) for of, _, most, used in alive if of == number)
            alive = [each for each in alive if each[0] != number]
        elif alive:
            each = alive[number % len(alive)]
            made, most, used = each[1:]
            if kind == "grow":
                fits = spent + held + max(0, amount - max(most, used)) <= LIMIT
                try:
                    await made.grow(Spend(amount))
                except QuotaExceeded:
                    assert not fits
                else:
                    assert fits or amount <= max(most, used)
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
            await at.charged(processes[each[0]])
    held = sum(max(0, most - used) for *_, most, used in alive)
    left = await processes[0].left(ALL, caller(), "m")
    assert left["tokens"] == max(0, LIMIT - spent - held)
    free = max(0, LIMIT - spent - held)
    if free:
        await processes[0].reserve(ALL, caller(), "m", Spend(free))
    with pytest.raises(QuotaExceeded):
        await processes[1].reserve(ALL, caller(), "m", Spend(1))
    for each in processes:
        await each.close()


def test_a_call_passes_exactly_if_its_most_fits_beside_what_is_spent_and_reserved(place) -> None:
    @settings(max_examples=examples(gate=3, deep=1000), deadline=None)
    @given(steps)
    def property_(history: Any) -> None:
        run(place, lambda at: lived(at, history))

    property_()


def test_all_quotas_hold_or_none_is_reserved(place) -> None:
    async def body(at: Any) -> None:
        both = (Quota("calls", per="minute", requests=2), Quota("money", per="month", cost=1.0, by="owner"))
        async with opened(at) as of:
            first = await of.reserve(both, caller(), "m", Spend(10, 400_000))
            assert first.fields[0][1].startswith('"calls";r=1;t=60, "money";r=0;t=')
            with pytest.raises(QuotaExceeded, match="reserved by calls under way") as refused:
                await of.reserve(both, caller(), "m", Spend(10, 700_000))
            assert refused.value.retry_after_ms == 1000
            assert await of.left(both, caller(), "m") == {"requests": 1, "cost": 600_000}
            first.settle(Spend(10, 900_000))
            await at.charged(of)
            with pytest.raises(QuotaExceeded, match="1 of money a month is spent") as refused:
                await of.reserve(both, caller(), "m", Spend(10, 200_000))
            assert refused.value.retry_after_ms > DAY // 1000
            assert [name for name, _ in refused.value.fields] == ["ratelimit-policy", "ratelimit"]
            with pytest.raises(Invalid, match="may use 2 of money"):
                await of.reserve(both, caller(), "m", Spend(10, 2_000_000))
            assert await of.left(both, caller(), "m") == {"requests": 1, "cost": 100_000}

    run(place, body)


def test_a_call_that_fails_costs_nothing_and_one_that_broke_costs_what_was_noted(place) -> None:
    async def body(at: Any) -> None:
        async with opened(at) as of:

            async def call(used: int) -> None:
                with await of.reserve(ALL, caller(), "m", Spend(800)) as reserved:
                    if used:
                        reserved.note(Spend(used))
                    raise ConnectionError

            for used, left in ((0, LIMIT), (300, LIMIT - 300)):
                with pytest.raises(ConnectionError):
                    await call(used)
                await at.charged(of)
                assert await of.left(ALL, caller(), "m") == {"tokens": left}

    run(place, body)


def test_a_stream_grows_until_the_budget_ends_and_what_it_used_is_charged(place) -> None:
    async def body(at: Any) -> None:
        async with opened(at) as of:
            other = await of.reserve(ALL, caller("k2"), "m", Spend(500))
            stream = await of.reserve(ALL, caller(), "m", Spend(100))
            with stream:
                for used in (100, 200, 300, 400, 500):
                    await stream.grow(Spend(used))
                    stream.note(Spend(used))
                with pytest.raises(QuotaExceeded):
                    await stream.grow(Spend(600))
            other.settle(Spend(0))
            await at.charged(of)
            assert await of.left(ALL, caller(), "m") == {"tokens": 500}
            stream.settle(Spend(900))  # it was settled before
            await at.charged(of)
            assert await of.left(ALL, caller(), "m") == {"tokens": 500}

    run(place, body)


def test_what_an_upstream_used_beyond_the_reservation_is_charged_too(place) -> None:
    async def body(at: Any) -> None:
        async with opened(at) as of:
            (await of.reserve(ALL, caller(), "m", Spend(100))).settle(Spend(990))
            await at.charged(of)
            assert await of.left(ALL, caller(), "m") == {"tokens": 10}

    run(place, body)


def test_counts_are_by_key_owner_model_or_all_and_only_for_who_is_named(place) -> None:
    async def body(at: Any) -> None:
        left = Counter[str]()
        ana, bob = caller("k1", owner="o1", groups=frozenset({"team"})), caller("k2", owner="o1")
        async with opened(at) as of:
            for by in (KEY, OWNER, ENDPOINT, EVERYBODY):
                quotas = (Quota(by, tokens=LIMIT, by=by),)
                (await of.reserve(quotas, ana, "m", Spend(400))).settle(Spend(400))
                await at.charged(of)
                left[by] = (await of.left(quotas, bob, "other"))["tokens"]
            assert left == {"key": LIMIT, "owner": LIMIT - 400, "endpoint": LIMIT, "all": LIMIT - 400}
            team = (Quota("team", tokens=10, only=("group:team",)),)
            assert await of.left(team, bob, "m") == {}
            (await of.reserve(team, bob, "m", Spend(1000))).settle()
            with pytest.raises(Invalid):
                await of.reserve(team, ana, "m", Spend(11))

    run(place, body)


def test_a_new_period_begins_empty_and_a_call_of_the_old_one_does_not_touch_it(place) -> None:
    async def body(at: Any) -> None:
        clock = ManualClock(NOW)
        async with opened(at, clock) as of:
            old: list[Reservation] = [await of.reserve(ALL, caller(), "m", Spend(500)) for _ in range(2)]
            clock.advance(DAY)
            assert await of.left(ALL, caller(), "m") == {"tokens": LIMIT}
            old[0].settle(Spend(500))
            old[1].note(Spend(100))
            await old[1].grow(Spend(700))
            old[1].settle()
            await at.charged(of)
            assert await of.left(ALL, caller(), "m") == {"tokens": LIMIT}
            (await of.reserve(ALL, caller(), "m", Spend(LIMIT))).settle(Spend(1))

    run(place, body)


def test_large_amounts_are_exact(place) -> None:
    async def body(at: Any) -> None:
        huge = (Quota("huge", per="day", tokens=2**50, by="all"),)
        async with opened(at) as of:
            (await of.reserve(huge, caller(), "m", Spend(2**50 - 3))).settle(Spend(2**50 - 5))
            await at.charged(of)
            assert await of.left(huge, caller(), "m") == {"tokens": 5}
            (await of.reserve(huge, caller(), "m", Spend(5))).settle(Spend(5))
            with pytest.raises(QuotaExceeded):
                await of.reserve(huge, caller(), "m", Spend(1))

    run(place, body)


def test_while_another_process_holds_the_counts_the_loop_goes_on(tmp_path: Path) -> None:
    async def body() -> None:
        of, other = (MachineBudgets.within(tmp_path, ManualClock(NOW)) for _ in range(2))
        (await of.reserve(ALL, caller(), "m", Spend(1))).settle()
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        loop = asyncio.create_task(turning())
        async with other.alone():
            waiting = asyncio.create_task(of.reserve(ALL, caller(), "m", Spend(1)))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        (await waiting).settle()
        async with other.alone():
            with pytest.raises(Unavailable, match="in use"):
                await of.reserve(ALL, caller(), "m", Spend(1))
        assert turns > 1000
        loop.cancel()
        await of.close()
        await other.close()

    asyncio.run(body())


def spent_of_team(server: RedisServer, project: str) -> int:
    ((name, spent),) = spent_of(server.url, project, NOW)
    assert name.startswith("team\0")
    return spent


def test_what_a_dead_process_had_reserved_is_charged_once_whoever_looks(place) -> None:
    async def body(at: Any) -> None:
        many = [at.open(ManualClock(NOW)) for _ in range(4)]
        stream = await many[0].reserve(ALL, caller(), "m", Spend(300))
        stream.note(Spend(100))
        await many[1].reserve(ALL, caller(), "m", Spend(50))
        await at.charged(many[0])
        for each in many[:2]:
            await each.close()  # that settles nothing
        for _ in range(2):
            looks = [await each.reserve(ALL, caller(), "m", Spend(1)) for each in many[2:]]
            for each in looks:
                each.settle()
            for each in many[2:]:
                await at.charged(each)
        again = at.open(ManualClock(NOW))
        (await again.reserve(ALL, caller(), "m", Spend(LIMIT - 350))).settle(Spend(0))
        await at.charged(again)
        assert await again.left(ALL, caller(), "m") == {"tokens": LIMIT - 350}
        for each in (*many[2:], again):
            await each.close()

    run(place, body)


def test_charges_made_while_the_server_is_away_are_charged_once_when_it_is_back(redis_server: RedisServer) -> None:
    async def body() -> None:
        of = RedisBudgets(redis_server.url, project := new_id(), ManualClock(NOW))
        first, second, third = [await of.reserve(ALL, caller(), "m", Spend(100)) for _ in range(3)]
        redis_server.pause()
        try:
            first.settle(Spend(70))
            second.note(Spend(20))
            with pytest.raises(Unavailable, match="do not respond"):
                await of.reserve(ALL, caller(), "m", Spend(1))
            growing = asyncio.create_task(third.grow(Spend(300)))
            await asyncio.sleep(0.1)
            growing.cancel()
            await asyncio.wait([growing])
            third.settle(Spend(0))  # before the server has seen that it should grow
            await asyncio.sleep(1.5)  # charges are sent more than once
        finally:
            redis_server.resume()
        await of.charged()
        second.settle(Spend(30))
        await of.charged()
        assert await of.left(ALL, caller(), "m") == {"tokens": LIMIT - 100}  # the refused call holds nothing
        assert spent_of_team(redis_server, project) == 100
        await of.close()

    asyncio.run(body())


def test_a_process_that_only_seemed_dead_is_charged_what_it_used(redis_server: RedisServer) -> None:
    async def body() -> None:
        project = new_id()
        of, other = (RedisBudgets(redis_server.url, project, ManualClock(NOW), lease_s=0) for _ in range(2))
        noted, grown = [await of.reserve(ALL, caller(), "m", Spend(200)) for _ in range(2)]
        noted.note(Spend(100))
        await of.charged()
        await of.vanish()
        taken = await other.reserve(ALL, caller(), "m", Spend(600))
        taken.settle(Spend(200))
        await other.charged()
        assert spent_of_team(redis_server, project) == 200 + 2 * 200  # all that it had reserved
        noted.settle(Spend(150))
        await grown.grow(Spend(250))
        grown.settle(Spend(50))
        await of.charged()
        assert await other.left(ALL, caller(), "m") == {"tokens": LIMIT - 200 - 150 - 50}
        assert spent_of_team(redis_server, project) == 200 + 150 + 50
        await of.close()
        await other.close()

    asyncio.run(body())


def test_an_endpoint_has_no_tokens() -> None:
    with pytest.raises(Invalid, match="quota of tokens"):
        Endpoint("e", model="m@1", quotas=[Quota("q", tokens=1)])
