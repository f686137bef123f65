"""Failover in virtual time: random upstreams against what must hold of every request."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.scripted_upstreams import UNSEEN, ScriptedUpstream, Step, asked, call
from kit.virtual_time import now, run
from mainspring.core.circuit_breaker import Breaker, BreakerRule
from mainspring.core.errors import Invalid, Overloaded
from mainspring.core.time import SECOND
from mainspring.llm.declaring import TokenPrice
from mainspring.llm.failover import Candidate, Failover
from mainspring.llm.latency import Latency
from mainspring.llm.limits import Fallback, repeatable
from mainspring.llm.model import Call, ChatRequest, Deadlines, Tool, UpstreamError

RULE = BreakerRule()
FIRST_S = 5.0


def failover(upstreams: list[ScriptedUpstream], *, prices: tuple[float, ...] = (), **given: Any) -> Failover:
    of = Fallback(**given)
    candidates = [
        Candidate(each.name, f"model-of-{each.name}", each, TokenPrice(prompt=price), of.breaker)
        for each, price in zip(upstreams, prices or (0.0,) * len(upstreams), strict=True)
    ]
    return Failover(candidates, of, now, random.Random(1))


async def texts(of: Failover, request: ChatRequest, about: Call) -> tuple[list[str], Exception | None]:
    """Return what a caller of a stream got, and the error at its end."""
    got: list[str] = []
    try:
        async for events in of.stream(request, about):
            got += [event.text for event in events if event.text]
    except (UpstreamError, Overloaded) as error:
        return got, error
    return got, None


FAILURES = ("", "", "", "limited", "unreachable", "failed", "late", "broken", "denied", "refused")


@settings(max_examples=examples(gate=15, deep=4000), deadline=None)
@given(st.integers(0, 10**9))
def test_whatever_upstreams_do_a_request_is_answered_by_one_and_done_once(seed) -> None:
    draw = random.Random(seed)
    repeat, hedge = draw.random() < 0.3, draw.choice([0.0, 0.0, 0.2, 1.0])
    faulty = [draw.choice([0.0, 0.2, 0.7, 1.0]) for _ in range(draw.randint(1, 4))]

    def step(share: float) -> Step:
        kind = draw.choice(FAILURES) if draw.random() < share else ""
        return Step(
            first_s=draw.choice([0.01, 0.1, 1.0, 10.0]) * draw.random(),
            fails=kind,
            after=draw.choice([0, 0, 1, 2]) if kind in ("failed", "broken", "late") else 0,
            retry_after_ms=draw.choice([None, 10, 2000]),
        )

    upstreams = [ScriptedUpstream("abcd"[n], lambda share=share: step(share)) for n, share in enumerate(faulty)]
    with_tools = asked(tools=(Tool(name="web", kind="web_search"),))

    async def main() -> None:
        of = failover(
            upstreams,
            patience=draw.choice(["0s", "3s"]),
            repeat=repeat,
            hedge=hedge,
            order=draw.choice(["declared", "price", "latency"]),
        )
        hedged = asks = 0

        async def one(number: int) -> None:
            nonlocal hedged, asks
            request = with_tools if number % 4 == 0 else asked()
            about = call(str(number), deadlines=Deadlines(first=int(FIRST_S * SECOND)))
            begun, leaves = now(), number % 7 == 6
            if leaves:
                with suppress(TimeoutError):
                    async with asyncio.timeout(draw.choice([0.001, 0.05, 0.5])):
                        await texts(of, request, about)
                return
            if number % 3:
                got, error = await texts(of, request, about)
                names = {text.partition(":")[0] for text in got}
                assert len(names) <= 1
                assert [text.partition(":")[2] for text in got] == [f"{each} " for each in range(len(got))]
                assert error is not None or len(got) == 3
                if isinstance(error, UpstreamError):
                    assert error.begun == bool(got)
            else:
                with suppress(UpstreamError, Overloaded):
                    await of.chat(request, about)
                assert now() - begun <= FIRST_S * SECOND + 10
            hedged, asks = hedged + about.outcome.hedged, asks + 1
            worked = sum(each.worked[str(number)] for each in upstreams)
            if not repeat or request is with_tools:
                assert worked <= 1 + (about.outcome.hedged and request is not with_tools)
            assert about.outcome.attempts <= 3

        for batch in range(12):
            await asyncio.gather(*(one(batch * 4 + place) for place in range(4)))
            await asyncio.sleep(draw.choice([0.0, 1.0, 20.0]))
        await asyncio.sleep(60)
        assert all(each.open == 0 for each in upstreams)
        assert hedged <= hedge * 48 + 1e-9

    run(main())


def test_a_healthy_upstream_answers_for_those_that_are_not() -> None:
    async def main() -> None:
        for kind in UNSEEN:
            bad = ScriptedUpstream("bad", lambda kind=kind: Step(fails=kind))
            good = ScriptedUpstream("good", Step)
            of = failover([bad, good])
            for number in range(40):
                about = call(str(number))
                assert (await texts(of, asked(), about))[0] == ["good:0 ", "good:1 ", "good:2 "]
                assert about.outcome.upstream == "good"
            assert good.asked == 40
            assert bad.asked <= RULE.least  # then it is left alone

    run(main())


def test_an_upstream_that_may_have_worked_is_not_doubled_unless_that_is_declared() -> None:
    async def main(kind: str, repeat: bool, request: ChatRequest) -> int:
        bad, good = ScriptedUpstream("bad", lambda: Step(fails=kind)), ScriptedUpstream("good", Step)
        of = failover([bad, good], repeat=repeat)
        with suppress(UpstreamError):
            await of.chat(request, call())
        return good.asked

    for kind in ("failed", "late", "broken"):
        assert run(main(kind, False, asked())) == 0
        assert run(main(kind, True, asked())) == 1
        assert run(main(kind, True, asked(tools=(Tool(name="web", kind="web_search"),)))) == 0
        assert run(main(kind, True, asked(extra={"store": True}))) == 0
    assert run(main("refused", True, asked())) == 0
    assert repeatable(asked(tools=(Tool(name="f"),), extra={"store": False}))


def test_an_upstream_is_asked_again_when_it_said_so_if_there_is_time() -> None:
    async def main(first_s: float, patience: str) -> tuple[int, int]:
        steps = iter([Step(fails="limited", retry_after_ms=2000), Step()])
        only = ScriptedUpstream("only", lambda: next(steps))
        begun = now()
        with suppress(UpstreamError):
            await failover([only], patience=patience).chat(
                asked(), call(deadlines=Deadlines(first=int(first_s * SECOND)))
            )
        return only.asked, now() - begun

    tries, us = run(main(10.0, "5s"))
    assert tries == 2
    assert 2 * SECOND <= us < 3 * SECOND
    for short in (main(1.0, "5s"), main(10.0, "1s"), main(10.0, "0s")):
        tries, us = run(short)
        assert tries == 1
        assert us < SECOND


def test_callers_are_told_when_to_ask_again_while_all_rest() -> None:
    async def main() -> None:
        only = ScriptedUpstream("only", lambda: Step(fails="limited", retry_after_ms=30_000))
        of = failover([only], attempts=1)
        with pytest.raises(UpstreamError):
            await of.chat(asked(), call())
        await asyncio.sleep(5)
        with pytest.raises(Overloaded) as refused:
            await of.chat(asked(), call())
        assert only.asked == 1
        assert 24_000 <= refused.value.retry_after_ms <= 25_000

    run(main())


@pytest.mark.parametrize(("order", "first"), [("declared", "a"), ("price", "c"), ("latency", "b")])
def test_the_order_is_as_declared_by_price_or_by_latency(order, first) -> None:
    async def main() -> str:
        speeds = {"a": 0.3, "b": 0.1, "c": 0.2}
        upstreams = [ScriptedUpstream(name, lambda name=name: Step(first_s=speeds[name])) for name in "abc"]
        of = failover(upstreams, prices=(3.0, 2.0, 1.0), order=order)
        for _ in range(10):
            await of.chat(asked(), about := call())
        return about.outcome.upstream

    assert run(main()) == first


def test_a_hedge_cuts_the_tail_and_stays_within_its_share() -> None:
    async def main(hedge: float) -> tuple[list[int], int, int]:
        draw = random.Random(3)
        a = ScriptedUpstream("a", lambda: Step(first_s=5.0 if draw.random() < 0.05 else 0.1 + draw.random() / 100))
        b = ScriptedUpstream("b", lambda: Step(first_s=0.2))
        of, took = failover([a, b], hedge=hedge), []
        for number in range(300):
            begun = now()
            got, error = await texts(of, asked(), call(str(number)))
            took.append(now() - begun)
            assert error is None
            assert len(got) == 3
        assert a.open == b.open == 0
        return sorted(took), b.asked, sum(a.worked.values())

    slow, asked_b, _ = run(main(0.0))
    assert asked_b == 0
    fast, asked_b, _ = run(main(0.1))
    assert 8 <= asked_b <= 31
    assert slow[296] > 5 * SECOND
    assert fast[296] < SECOND


def test_hedges_are_no_more_than_their_share_however_slow_the_first_is() -> None:
    async def main() -> int:
        steps = iter([0.1] * 40)
        a = ScriptedUpstream("a", lambda: Step(first_s=next(steps, 3.0)))
        b = ScriptedUpstream("b", Step)
        of = failover([a, b], hedge=0.05)
        for number in range(240):
            await texts(of, asked(), call(str(number)))
        return b.asked

    assert 8 <= run(main()) <= 12


def test_of_two_that_begin_at_once_one_is_closed() -> None:
    async def main() -> None:
        firsts = iter([0.5] * 30)
        a = ScriptedUpstream("a", lambda: Step(first_s=next(firsts, 1.0)))
        b = ScriptedUpstream("b", lambda: Step(first_s=0.5))
        of = failover([a, b], hedge=1.0)
        for number in range(40):
            got, _ = await texts(of, asked(), call(str(number)))
            assert len(got) == 3
            assert a.open == b.open == 0
        assert b.asked

    run(main())


@settings(max_examples=examples(gate=25, deep=5000), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["begin", "ok", "bad", "gone", "wait"]), st.integers(0, 20)), max_size=100))
def test_a_breaker_opens_by_the_share_of_a_window_and_probes_one_at_a_time(history) -> None:
    rule = BreakerRule(window=100, least=4, share=0.5, opens=40, longest=100, probes=2)
    breaker, clock, under_way, ended = Breaker(rule), 0, 0, list[tuple[int, bool]]()
    opened: int | None = None
    for kind, number in history:
        if kind == "wait":
            clock += number
        elif kind == "begin":
            before = breaker.state
            if breaker.begin(clock):
                under_way += 1
                if before != "closed":
                    assert opened is not None
                    assert clock >= opened + 40
                    assert not breaker.begin(clock)  # one probe at a time
            else:
                assert before != "closed"
        elif under_way and kind in ("ok", "bad"):
            under_way -= 1
            before = breaker.state
            (breaker.succeeded if kind == "ok" else breaker.failed)(clock)
            if before == "closed":
                ended.append((clock, kind == "bad"))
                part = 100 // 10
                recent = [bad for at, bad in ended if at // part > clock // part - 10]
                opens = kind == "bad" and len(recent) >= rule.least and sum(recent) >= rule.share * len(recent)
                assert (breaker.state != "closed") == opens
            if breaker.state != "closed" and kind == "bad":
                opened = clock if before == "closed" or opened is None else opened
                ended = []
            if breaker.state == "closed" and before != "closed":
                ended, opened = [], None
        elif under_way and kind == "gone":
            under_way -= 1
            breaker.abandoned()


def test_a_breaker_waits_longer_after_each_probe_that_fails() -> None:
    breaker, now = Breaker(BreakerRule(least=1, opens=10, longest=30, probes=1)), 0
    waits = []
    breaker.begin(now)
    breaker.failed(now)
    for _ in range(4):
        waits.append(breaker.opens_at(now) - now)
        now = breaker.opens_at(now)
        assert breaker.begin(now)
        breaker.failed(now)
    assert waits == [10, 20, 30, 30]
    now = breaker.opens_at(now)
    assert breaker.begin(now)
    breaker.succeeded(now)
    assert breaker.state == "closed"


def test_the_tail_is_that_of_recent_latencies() -> None:
    latency = Latency()
    for number in range(19):
        latency.observe(number)
    assert latency.tail_us is None
    for number in range(300):
        latency.observe(1000 + number)
    assert latency.tail_us == sorted(range(1044, 1300))[243]


@pytest.mark.parametrize("wrong", [{"order": "best"}, {"attempts": 0}, {"hedge": 1.5}])
def test_a_wrong_fallback_is_refused(wrong) -> None:
    with pytest.raises(Invalid):
        Fallback(**wrong)


def test_a_wrong_breaker_is_refused() -> None:
    with pytest.raises(Invalid):
        BreakerRule(share=0)
