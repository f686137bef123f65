"""Layers before upstreams: accounts within budgets, queues by capacity, the cache; over scripted upstreams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.scripted_upstreams import CALLER, ScriptedUpstream, Step, asked, call
from kit.virtual_time import now, run
from mainspring.core.errors import Invalid, Overloaded
from mainspring.llm.answering import Shared, assemble
from mainspring.llm.budgets import Spend
from mainspring.llm.counting import credible, prompt_tokens
from mainspring.llm.declaring import LanguageModel, TokenPrice, UpstreamModel
from mainspring.llm.limits import AnswerCache, Fallback
from mainspring.llm.model import Event, Sampling, UpstreamError, Usage
from mainspring.llm.ports import Answering
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import MILLIONTHS, Quota

TOKENS = (Quota("tokens", per="month", tokens=1000, by="all"),)
BOUNDED = Sampling(max_tokens=100)


def model(*upstreams: str, price: TokenPrice | None = None, capacity: int | None = None, **given: Any) -> LanguageModel:
    of = [
        UpstreamModel(each, "tiny", price=price or TokenPrice(prompt=1.0, completion=10.0), capacity=capacity)
        for each in upstreams or ("a",)
    ]
    return LanguageModel("m", upstreams=of, **given)


def answering(of: LanguageModel, *upstreams: ScriptedUpstream, shared: Shared | None = None) -> Answering:
    known: Any = {each.name: each for each in upstreams}
    return assemble(of, known, shared or Shared(now=now))


def scripted(step: Callable[[], Step] = Step) -> ScriptedUpstream:
    return ScriptedUpstream("a", step)


async def events_of(of: Answering, request: Any, about: Any) -> list[Event]:
    return [event async for batch in of.stream(request, about) for event in batch]


async def left(shared: Shared) -> int:
    return (await shared.budgets.left(TOKENS, CALLER, "m"))["tokens"]


def test_a_call_is_charged_for_what_it_used_and_costs_what_it_is_priced() -> None:
    async def main() -> None:
        shared = Shared(now=now)
        of = answering(model(quotas=TOKENS), scripted(), shared=shared)
        about = call()
        await of.chat(asked(sampling=BOUNDED), about)
        assert about.outcome.usage == Usage(prompt=5, completion=3)
        assert about.outcome.micros == 5 + 30
        assert not about.outcome.counted
        assert about.outcome.fields[0][1].startswith('"tokens";r=')
        assert await left(shared) == 1000 - 8
        about = call()
        events = await events_of(of, asked(sampling=BOUNDED), about)
        assert "".join(event.text for event in events) == "a:0 a:1 a:2 "
        assert await left(shared) == 1000 - 16

    run(main())


def test_an_upstream_that_tells_no_usage_or_lies_is_counted_here() -> None:
    async def used(usage: Usage | None, **given: Any) -> tuple[Usage | None, bool]:
        of = answering(model(), scripted(lambda: Step(usage=usage, **given)))
        about = call()
        await of.chat(asked("x" * 300, sampling=BOUNDED), about)
        return about.outcome.usage, about.outcome.counted

    assert run(used(None)) == (Usage(prompt=104, completion=2), True)
    assert run(used(Usage(prompt=0, completion=0), events=100)) == (Usage(prompt=104, completion=67), True)
    assert run(used(Usage(prompt=90, completion=10**9))) == (Usage(prompt=90, completion=100), True)
    assert run(used(Usage(prompt=90, completion=60))) == (Usage(prompt=90, completion=60), False)
    assert credible(Usage(prompt=10, completion=500), 10, 3, None) == (Usage(prompt=10, completion=500), False)


def test_failures_cost_nothing_and_what_was_generated_before_a_break_is_charged() -> None:
    async def main(step: Step) -> int:
        shared = Shared(now=now)
        of = answering(model(quotas=TOKENS), scripted(lambda: step), shared=shared)
        with pytest.raises(UpstreamError):
            await events_of(of, asked(sampling=BOUNDED), call())
        if not step.after:
            with pytest.raises((UpstreamError, Overloaded)):
                await of.chat(asked(sampling=BOUNDED), call())
        return 1000 - await left(shared)

    assert run(main(Step(fails="failed"))) == 0
    assert run(main(Step(fails="limited"))) == 0
    assert run(main(Step(fails="broken", after=2))) == prompt_tokens(asked()) + 3


def test_a_stream_ends_as_one_that_is_too_long_when_the_budget_does() -> None:
    async def main() -> None:
        shared = Shared(now=now)
        long = scripted(lambda: Step(events=2000, usage=None))
        of = answering(model(quotas=TOKENS), long, shared=shared)
        other = await shared.budgets.reserve(TOKENS, CALLER, "m", Spend(300))
        about = call()
        events = await events_of(of, asked(sampling=Sampling(max_tokens=900)), about)
        assert events[-2].finish == "length"
        usage = events[-1].usage
        assert usage is not None
        assert usage == about.outcome.usage
        assert about.outcome.cut == "budget"
        assert 600 <= usage.total <= 700
        assert long.open == 0
        assert await left(shared) == 700 - usage.total
        other.settle()

    run(main())


def test_a_stream_that_goes_far_beyond_its_bound_is_ended() -> None:
    async def main(quotas: tuple[Quota, ...]) -> None:
        endless = scripted(lambda: Step(events=5000, usage=None))
        about = call()
        events = await events_of(
            answering(model(quotas=quotas), endless), asked(sampling=Sampling(max_tokens=20)), about
        )
        assert events[-2].finish == "length"
        assert about.outcome.cut == "length"
        assert about.outcome.usage is not None
        assert about.outcome.usage.completion < 120
        assert endless.open == 0

    run(main(()))
    run(main(TOKENS))


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_before_an_answer_pays_what_an_upstream_may_have_generated(stream: bool) -> None:
    async def main() -> None:
        shared = Shared(now=now)
        slow = scripted(lambda: Step(first_s=20))
        of = answering(model(quotas=TOKENS, capacity=300), slow, shared=shared)
        request = asked("x" * 300, sampling=BOUNDED)

        def begun() -> asyncio.Task[Any]:
            return asyncio.create_task(events_of(of, request, call()) if stream else of.chat(request, call()))  # type: ignore[arg-type]

        first, waiting = begun(), begun()
        await asyncio.sleep(1)
        assert slow.open == 1
        for task in (waiting, first):
            task.cancel()
            await asyncio.wait([task])
        unheard = 0 if stream else 100  # of a whole answer nothing is known before its end
        assert await left(shared) == 1000 - prompt_tokens(request) - unheard

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_a_hedge_that_lost_is_charged_at_its_own_price_if_there_was_room_for_it(stream: bool) -> None:
    async def main(limit: int) -> tuple[int, int, bool, list[tuple[str, int]]]:
        shared, slow = Shared(now=now), [Step()] * 20
        a = ScriptedUpstream("a", lambda: slow.pop() if slow else Step(first_s=5))
        b = ScriptedUpstream("b", Step)
        prices = {"a": TokenPrice(prompt=3.0, completion=30.0), "b": TokenPrice(prompt=1.0, completion=10.0)}
        of = answering(
            LanguageModel(
                "m", upstreams=[UpstreamModel(name, "tiny", price=price) for name, price in prices.items()],
                fallback=Fallback(hedge=1.0), quotas=(Quota("tokens", per="month", tokens=limit, by="all"),),
            ),
            a, b, shared=shared,
        )  # fmt: skip
        request = asked(sampling=BOUNDED)
        for _ in range(20):
            await of.chat(request, call())
        about = call()
        if stream:
            await events_of(of, request, about)
        else:
            await of.chat(request, about)
        quotas = (Quota("tokens", per="month", tokens=limit, by="all"),)
        spent = limit - (await shared.budgets.left(quotas, CALLER, "m"))["tokens"] - 20 * 8
        return (
            spent,
            about.outcome.micros,
            about.outcome.hedged,
            [(each.upstream, each.micros) for each in about.outcome.unheard],
        )

    prompt = prompt_tokens(asked())
    unheard = 0 if stream else 100
    lost = ("a", 3 * prompt + 30 * unheard)
    assert run(main(10_000)) == (8 + prompt + unheard, 5 + 30, True, [lost])
    if not stream:
        spent, micros, hedged, others = run(main(20 * 8 + prompt + 120))  # room for one
        assert (spent, micros, hedged, others) == (8, 15 + 90, False, [])


def test_a_request_without_a_bound_gets_what_is_left_under_a_quota() -> None:
    async def main() -> None:
        shared, seen = Shared(now=now), []
        upstream = scripted()
        chat = upstream.chat

        async def noted(request: Any, about: Any) -> Any:
            seen.append(request.sampling.max_tokens)
            return await chat(request, about)

        upstream.chat = noted  # type: ignore[method-assign]
        money = (Quota("money", per="day", cost=0.002),)
        await answering(model(), upstream).chat(asked(), call())
        await answering(model(quotas=TOKENS), upstream, shared=shared).chat(asked(), call())
        await answering(model(quotas=money), upstream, shared=shared).chat(asked(), call())
        await answering(model(quotas=TOKENS, max_tokens=50), upstream, shared=shared).chat(asked(), call())
        prompt = prompt_tokens(asked())
        assert seen[:2] == [None, 1000 - prompt]
        assert 190 <= seen[2] <= 199
        assert seen[3] == 50

    run(main())


@settings(max_examples=examples(gate=3, deep=500), deadline=None)
@given(st.integers(0, 10**6))
def test_many_calls_at_once_never_exceed_a_budget(seed) -> None:
    draw = random.Random(seed)

    async def main() -> None:
        shared, limit = Shared(now=now), 3000
        quotas = (Quota("tokens", per="month", tokens=limit, by="all"), Quota("money", per="month", cost=0.02))
        used = spent = 0

        def step() -> Step:
            kind = draw.choice(["", "", "", "failed", "broken"])
            count = draw.randint(1, 40)
            usage = Usage(prompt=draw.randint(1, prompt), completion=2 * count)
            return Step(
                first_s=draw.choice([0.01, 0.02, 0.3]),
                events=count,
                usage=draw.choice([None, usage]),
                fails=kind,
                after=draw.randint(0, count - 1) if kind else 0,
            )

        prompt = prompt_tokens(asked())
        hedged = Fallback(hedge=draw.choice([0.0, 1.0]))
        two = (ScriptedUpstream(name, step, keeps=True) for name in ("a", "b"))
        of = answering(model("a", "b", quotas=quotas, fallback=hedged), *two, shared=shared)

        async def one() -> None:
            nonlocal used, spent
            about = call()
            await asyncio.sleep(draw.random())
            request = asked(sampling=draw.choice([Sampling(), Sampling(max_tokens=draw.randint(80, 200))]))
            try:
                async with asyncio.timeout(draw.random() / 5 if draw.random() < 0.3 else None):
                    if draw.random() < 0.5:
                        await of.chat(request, about)
                    else:
                        await events_of(of, request, about)
            except (UpstreamError, Overloaded, TimeoutError):
                pass
            for each in (about.outcome, *about.outcome.unheard):
                if each.usage is not None:
                    used += each.usage.total
                    spent += each.micros
            assert used <= limit
            assert spent <= 0.02 * MILLIONTHS

        await asyncio.gather(*(one() for _ in range(60)))
        free = await shared.budgets.left(quotas, CALLER, "m")
        assert free == {"tokens": limit - used, "cost": round(0.02 * MILLIONTHS) - spent}

    run(main())


def test_calls_wait_for_room_and_are_refused_when_too_many_do() -> None:
    async def main() -> None:
        upstream = scripted(lambda: Step(first_s=1.0))
        most = prompt_tokens(asked()) + 100
        of = answering(model(capacity=2 * most, queue=1), upstream)
        abouts = [call(str(number)) for number in range(4)]
        ended = await asyncio.gather(
            *(of.chat(asked(sampling=BOUNDED), about) for about in abouts), return_exceptions=True
        )
        assert [isinstance(each, Overloaded) for each in ended] == [False, False, False, True]
        assert [about.outcome.queued_us for about in abouts[:3]] == [0, 0, pytest.approx(1e6, abs=1e5)]
        with pytest.raises(Invalid, match="takes"):
            await of.chat(asked("x" * 10_000), call())
        assert upstream.open == 0

    run(main())


def test_another_upstream_answers_where_the_queue_of_one_is_full() -> None:
    async def main() -> None:
        a, b = scripted(lambda: Step(first_s=1.0)), ScriptedUpstream("b", lambda: Step(first_s=1.0))
        most = prompt_tokens(asked()) + 100
        of = answering(model("a", "b", capacity=most, queue=1), a, b)
        abouts = [call(str(number)) for number in range(4)]
        await asyncio.gather(*(of.chat(asked(sampling=BOUNDED), about) for about in abouts))
        assert [about.outcome.upstream for about in abouts] == ["a", "a", "b", "b"]

    run(main())


COLD = Sampling(temperature=0.0)


def test_equal_requests_are_answered_once_each_account_apart() -> None:
    async def main() -> None:
        upstream = scripted()
        of = answering(model(cache=AnswerCache()), upstream)
        abouts = [call(str(number)) for number in range(5)]
        first, *others = await asyncio.gather(*(of.chat(asked(sampling=COLD), about) for about in abouts))
        assert upstream.asked == 1
        assert all(each == first for each in others)
        assert sorted(about.outcome.cached for about in abouts) == ["", *["exact"] * 4]
        assert sum(about.outcome.usage is not None for about in abouts) == 1  # one is charged
        await of.chat(asked(sampling=COLD), call())
        assert upstream.asked == 1
        other = Principal("k2", "other", frozenset(KeyScope))
        await of.chat(asked(sampling=COLD), call(caller=other))
        assert upstream.asked == 2
        await of.chat(asked("Hello", sampling=COLD), call())
        await of.chat(asked(sampling=Sampling(temperature=0.0, max_tokens=5)), call())
        assert upstream.asked == 4
        for _ in range(2):
            await of.chat(asked(), call())  # no temperature is not 0
        assert upstream.asked == 6

    run(main())


def test_streams_of_equal_requests_share_one_and_go_on_when_the_first_leaves() -> None:
    async def main() -> None:
        upstream = scripted(lambda: Step(events=5))
        of = answering(model(cache=AnswerCache()), upstream)
        first = asyncio.create_task(events_of(of, asked(sampling=COLD, stream=True), call("1")))
        await asyncio.sleep(0.015)
        second = asyncio.create_task(events_of(of, asked(sampling=COLD, stream=True), about := call("2")))
        await asyncio.sleep(0)
        first.cancel()
        got = await second
        assert "".join(event.text for event in got) == "a:0 a:1 a:2 a:3 a:4 "
        assert about.outcome.cached == "exact"
        assert await events_of(of, asked(sampling=COLD, stream=True), call("3")) == got
        assert upstream.asked == 1
        alone = asyncio.create_task(events_of(of, asked("x", sampling=COLD, stream=True), call("4")))
        await asyncio.sleep(0.015)
        alone.cancel()
        await asyncio.gather(alone, return_exceptions=True)
        assert upstream.open == 0  # nobody waits for it

    run(main())


def test_failures_are_not_kept() -> None:
    async def main() -> None:
        steps = iter([Step(fails="refused"), Step(fails="broken", after=1), Step()])
        upstream = scripted(lambda: next(steps))
        of = answering(model(cache=AnswerCache()), upstream)
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await events_of(of, asked(sampling=COLD), call())
        assert len(await events_of(of, asked(sampling=COLD), call())) == 4

    run(main())


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"quotas": [Quota("q", rows=1)]}, "of rows"),
        ({"quotas": [Quota("q", tokens=1, spent="labels")]}, "spent='labels'"),
        ({"quotas": [Quota("q", cost=1)], "price": TokenPrice()}, "no price"),
        ({"weights": {"ana": 1.0}}, "'ana'"),
        ({"weights": {"group:a": 0.0}}, "weights"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"bytes_a_token": 0.0}, "bytes_a_token"),
        ({"capacity": 0}, "capacity"),
        ({"fallback": 3}, "fallback"),
        ({"cache": True}, "cache"),
    ],
)
def test_wrong_declarations_are_refused(given, wrong) -> None:
    with pytest.raises(Invalid, match=wrong):
        model(**given)


@pytest.mark.parametrize(
    "given", [{"ttl": "0s"}, {"most_bytes": 0}, {"similar": 0.9}, {"similar": 2.0, "encoder": "e"}]
)
def test_a_wrong_cache_is_refused(given) -> None:
    with pytest.raises(Invalid):
        AnswerCache(**given)
