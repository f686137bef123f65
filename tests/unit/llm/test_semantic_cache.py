"""The semantic cache, and how often it is wrong by labelled pairs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.scripted_upstreams import ScriptedUpstream, Step, asked, call
from kit.virtual_time import now
from mainspring.core.errors import Invalid
from mainspring.llm.caching import Answers, Cached, SemanticCache, wrong_hits
from mainspring.llm.declaring import TokenPrice
from mainspring.llm.failover import Candidate, Failover
from mainspring.llm.limits import AnswerCache, Fallback
from mainspring.llm.model import Message, Sampling, Text
from mainspring.security.model import KeyScope, Principal

COLD = Sampling(temperature=0.0)


class Letters:
    """Counts of letters, of length 1."""

    dimension, digest = 26, "letters"
    most_tokens: int | None = None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def encode(self, texts: Sequence[str]) -> Any:
        counts = np.array([[text.lower().count(chr(97 + each)) for each in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_similar_questions_after_the_same_conversation_get_one_answer_each_account_apart() -> None:
    async def main() -> None:
        upstream: Any = ScriptedUpstream("a", Step)
        inner = Failover([Candidate("a", "tiny", upstream, TokenPrice(), Fallback().breaker)], Fallback(), now)
        of = Cached(inner, AnswerCache(), "1", now, SemanticCache(Letters, 0.95))
        abouts = []

        async def ask(text: str, **given: Any) -> str:
            before = given.pop("before", ())
            request = asked(sampling=COLD)
            messages = (*before, Message(role="user", content=(Text(text),)))
            abouts.append(call(**given))
            await of.chat(msgspec.structs.replace(request, messages=messages), abouts[-1])
            return abouts[-1].outcome.cached

        assert await ask("When does the train leave?") == ""
        assert await ask("when does the train leave") == "semantic"
        assert await ask("When does the train leave?") == "exact"
        assert await ask("zzz") == ""
        system = Message(role="system", content=(Text("Be short."),))
        assert await ask("When does the train leave?", before=(system,)) == ""
        other = Principal("k2", "other", frozenset(KeyScope))
        assert await ask("when does the train leave", caller=other) == ""
        assert upstream.asked == 4
        assert of.erase("k1") == 3
        assert await ask("When does the train leave?") == ""
        assert len(of.answers) == 2

    asyncio.run(main())


def test_an_erasure_ends_all_earlier_answers_and_keeps_none_that_was_under_way() -> None:
    async def main() -> None:
        mark, begun, go = "", asyncio.Event(), asyncio.Event()

        class Slow(ScriptedUpstream):
            async def chat(self, request: Any, of: Any) -> Any:
                begun.set()
                await go.wait()
                return await super().chat(request, of)

        upstream: Any = Slow("a", Step)
        inner = Failover([Candidate("a", "tiny", upstream, TokenPrice(), Fallback().breaker)], Fallback(), now)
        of = Cached(inner, AnswerCache(), "1", now, SemanticCache(Letters, 0.95), lambda: mark)

        async def ask(text: str) -> str:
            given, message = call(), Message(role="user", content=(Text(text),))
            await of.chat(msgspec.structs.replace(asked(sampling=COLD), messages=(message,)), given)
            return given.outcome.cached

        go.set()
        assert [await ask("Who is Ana?"), await ask("Who is Ana?"), await ask("who is ana")] == [
            "",
            "exact",
            "semantic",
        ]
        mark = "1"
        assert await ask("who is ana") == ""
        assert [await ask("who is ana"), len(of.answers)] == ["exact", 1]
        go.clear()
        begun.clear()
        under_way = asyncio.create_task(ask("And Ben?"))
        await begun.wait()
        mark = "2"
        go.set()
        assert await under_way == ""
        assert len(of.answers) == 0
        assert await ask("And Ben?") == ""

    asyncio.run(main())


def test_wrong_hits_are_counted_with_their_interval() -> None:
    pairs = [("abc", "bca", True), ("abc", "abcd", True), ("abc", "abcabc", False), ("abc", "xyz", False)]
    low, high = wrong_hits(Letters(), pairs, [0.8, 0.99])
    assert (low.hits, low.wrong, low.missed, low.rate) == (3, 1, 0, pytest.approx(1 / 3))
    assert (high.hits, high.wrong, high.missed, high.rate) == (2, 1, 1, 0.5)
    assert high.low is not None
    assert high.high is not None
    assert 0 < high.low < 0.5 < high.high < 1
    none = wrong_hits(Letters(), pairs[3:], [0.5])[0]
    assert (none.hits, none.rate, none.low) == (0, None, None)
    with pytest.raises(Invalid):
        wrong_hits(Letters(), [], [0.5])


def test_the_cache_is_bounded_in_bytes_and_time_and_forgets_an_owner() -> None:
    clock = 0
    of = Answers(most_bytes=3 * 612, ttl_us=10, now=lambda: clock)
    for number in range(4):
        of.put(bytes([number]), "ana" if number % 2 else "bob", number, 100)
        of.get(b"\1")
    assert [of.get(bytes([number])) for number in range(4)] == [None, 1, 2, 3]
    assert of.nbytes == 3 * 612
    of.put(b"large", "ana", "x", 2000)
    assert of.get(b"large") is None
    assert of.erase("ana") == 2
    assert of.get(b"\2") == 2
    clock = 10
    assert of.get(b"\2") is None
    assert (len(of), of.nbytes) == (0, 0)
