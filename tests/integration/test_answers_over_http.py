"""Answers and searches over HTTP: the routes, the `openai` client, tenants, failures and the log."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.answer_gateway import BODIES, PAGES, Asked, Library, answer_gateway, sources
from kit.encoders import WordEncoder
from kit.later import later
from kit.rerank_server import rerank_server, score
from kit.scripted_upstream import Script, Upstream, scripted
from kit.waiting import free_port, wait_until_async
from mainspring.core.errors import Denied
from mainspring.core.settings import UpstreamServer
from mainspring.ledger.model import Log, Selection
from mainspring.llm.answering import assemble
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.answers.recording import recorded_answer
from mainspring.llm.declaring import LanguageModel, TokenPrice, UpstreamModel
from mainspring.llm.guarding.answering import Guarded
from mainspring.llm.guarding.declaring import Guard
from mainspring.llm.limits import AnswerCache
from mainspring.security.model import KeyScope
from mainspring.security.policy import CedarAuthoriser, Policies
from mainspring.security.quota import Quota
from mainspring.vectors.adapters.cross_service import ServiceCrossEncoder
from mainspring.vectors.adapters.embedded import EmbeddedVectorStore
from mainspring.vectors.adapters.encoder_service import ServiceEncoder
from mainspring.vectors.adapters.tantivy import TantivyTextStore
from mainspring.vectors.declaring import Reranker

openai = later("openai")

REFUNDS = "Refunds are paid within two weeks to the card."
CITED = Script(words=("Within ", "two weeks ", "[1]."), usage=(200, 0, 5, 0))


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def library(**more: Any) -> Library:
    """Return a library of one tenant each, with chains: `quoted` without a model, `help` with one."""
    made = Library(**more)
    made.land()
    made.build()
    model = LanguageModel(
        "assistant",
        upstreams=[UpstreamModel("local", "tiny", price=TokenPrice(prompt=2.0, completion=10.0))],
        quotas=[Quota("daily", tokens=5_000, per="day")],
        cache=AnswerCache(ttl="1h", similar=0.2, encoder="words"),
        deadline="3s", first_event="2s", between_events="2s",
    )  # fmt: skip
    retriever = Retriever("nearest", collection=made.collection, k=2)
    made.models = [model]
    made.chains = [
        Answers("help", retriever=retriever, model=model, keys="customer", log=Log(sync=True)),
        Answers("quoted", retriever=retriever),
    ]
    return made


def logged(books: Library) -> list[Any]:
    """Return all records of the prediction log, decrypted."""
    books.prediction_log.compact()
    return [books.prediction_log.revealed(each) for part in books.prediction_log.scan(Selection()) for each in part]


def local(upstream: Upstream) -> dict[str, UpstreamServer]:
    return {"LOCAL": UpstreamServer("local", upstream.url)}


def client(asked: Asked, key: str) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(api_key=key, base_url=asked.gateway.url, max_retries=0, http_client=http)


async def body_of(asked: Asked, path: str, key: str, **body: Any) -> Any:
    answer = await asked.post(path, body, key)
    assert answer.status_code == 200, answer.text
    return answer.json()


@on_a_loop
async def test_a_chain_is_reranked_and_one_whose_reranker_stalls_answers_in_time_and_says_so() -> None:
    books = library()
    judge = Reranker("judge", service="judge", timeout="500ms")
    retriever = Retriever("judged", collection=books.collection, k=1, mode="vectors", rerank=judge)
    books.chains = [Answers("judged", retriever=retriever, log=Log(sync=True))]
    with rerank_server() as server:
        books.judge = ServiceCrossEncoder(server.upstream, str, "judge")
        async with answer_gateway(books) as asked:
            key = asked.key("endpoint/judged", "tenant/a")
            await body_of(asked, "/answers/judged", key, question=REFUNDS)
            server.wait_s = 30.0
            began = time.monotonic()
            answer = await body_of(asked, "/answers/judged", key, question=REFUNDS)
            assert time.monotonic() - began < 10
            assert answer["citations"][0]["source"] == "refunds"  # the nearest, as it was found
    best = max(BODIES["a"], key=lambda page: score(REFUNDS, BODIES["a"][page]))
    first, second = (recorded_answer(each).answer for each in logged(books))
    assert ([each.document for each in first.passages], first.rerank_failure) == ([best], "")
    assert second.rerank_failure == "The service 'judge' of reranker model 'judge' does not answer within 0.5 s."
    assert first.index == f"{second.index}+{books.judge.digest[:12]}"


@on_a_loop
async def test_a_chain_is_asked_on_its_own_route_and_by_the_openai_client() -> None:
    books = library()
    with scripted() as upstream:
        upstream.usual = CITED
        async with answer_gateway(books, local(upstream)) as asked:
            key = asked.key("endpoint/help", "tenant/a")
            beside: Any = {"keys": {"customer": "c1"}}
            answer = await body_of(asked, "/answers/help", key, question=REFUNDS, **beside)
            assert (answer["text"], answer["found"], answer["reason"]) == ("Within two weeks [1].", True, None)
            (cited,) = answer["citations"]
            assert (cited["source"], cited["text"], cited["at"]) == ("refunds", REFUNDS, [17])
            assert BODIES["a"]["refunds"][cited["start"] : cited["end"]] == cited["text"]
            assert (answer["usage"]["total_tokens"], answer["cost"]) == (205, (200 * 2 + 5 * 10) / 1e6)

            async with client(asked, key) as ai:
                within: Any = {"mainspring": beside}
                assert [each.id async for each in ai.models.list()] == ["help"]
                again = await ai.chat.completions.create(
                    model="help", messages=[{"role": "user", "content": REFUNDS}], extra_body=within
                )
                said: Any = again.choices[0].message
                assert said.content == answer["text"]
                (annotation,) = said.annotations
                assert annotation.type == "file_citation"
                assert annotation.file_citation["file_id"] == "refunds"
                assert annotation.chunk == cited["chunk"]
                assert again.id != answer["id"]
                stream = await ai.chat.completions.create(
                    model="help", messages=[{"role": "user", "content": REFUNDS}], stream=True, extra_body=within,
                    stream_options={"include_usage": True},
                )  # fmt: skip
                chunks: list[Any] = [each async for each in stream]
                text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
                assert text == answer["text"]
                assert [each.choices[0].finish_reason for each in chunks if each.choices][-1] == "stop"
                assert chunks[-1].usage is not None
                in_words = await ai.responses.create(model="help", input=REFUNDS, extra_body=within)
                assert in_words.output_text == answer["text"]
                with pytest.raises(openai.BadRequestError, match="takes none"):
                    await ai.chat.completions.create(
                        model="help",
                        messages=[{"role": "user", "content": "x"}],
                        response_format={"type": "json_object"},
                    )
                with pytest.raises(openai.BadRequestError, match="no vectors"):
                    await ai.embeddings.create(model="help", input="x")
            events = await asked.post("/answers/help", {"question": REFUNDS, "stream": True, **beside}, key)
            names = [line[7:] for line in events.text.splitlines() if line.startswith("event: ")]
            assert names == ["retrieved", "text", "answer"]
            scraper = {"authorization": asked.gateway.kit.key(KeyScope.SCRAPE)}
            scraped = (await asked.http.get(asked.gateway.url.replace("/v1", "/metrics"), headers=scraper)).text
            assert 'mainspring_answers_total{answers="help",outcome="found"} 5.0' in scraped
            last = json.loads(events.text.split("event: answer\ndata: ")[1].split("\n")[0])
            assert last["text"] == answer["text"]
    kept = logged(books)
    told = {recorded_answer(each).answer.id: recorded_answer(each) for each in kept}
    assert len(kept) == len(told) == 5, "each answer once"
    assert {answer["id"], again.id, chunks[0].id, last["id"]} < told.keys()
    assert told[answer["id"]].question.tenant == "a"
    assert told[answer["id"]].answer.cost_micros == 450
    assert told[again.id].answer.cost_micros == 0, "the second came from the cache of the model"
    assert {each.principal for each in kept} == {key.split("_")[1]}


@on_a_loop
async def test_searches_are_batched_filtered_and_by_vectors_and_words() -> None:
    books = library(tenant=False)
    async with answer_gateway(books) as asked:
        found = await asked.search(query=["refunds card", "weekday"], k=1)
        assert sources(found) == [["refunds"], [sources(await asked.search(query="weekday", k=1))[0][0]]]
        books.words.asked.clear()
        await asked.search(query=["one", "two", "three"])
        assert books.words.asked == ["one", "two", "three"]
        vector = books.words.encode([BODIES["b"]["merger"]])[0].tolist()
        (hits,) = await asked.search(vector=vector, k=1)
        assert (hits[0]["source"], hits[0]["text"]) == ("merger", BODIES["b"]["merger"])
        assert hits[0]["fields"] == {"path": "merger", "section": "m", "stars": 6}, "no author: it is personal"
        (hits,) = await asked.search(query="Zebra", mode="words")
        assert [each["source"] for each in hits] == ["merger"]
        (hits,) = await asked.search(query="the merger with Zebra", mode="hybrid", k=2)
        assert hits[0]["places"].keys() == {"vectors", "words"}
        some = {"type": "or", "filters": [{"type": "eq", "key": "section", "value": "h"},
                {"type": "and", "filters": [{"type": "gte", "key": "stars", "value": 8},
                                            {"type": "nin", "key": "section", "value": ["r"]}]}]}  # fmt: skip
        (hits,) = await asked.search(query="anything", filter=some)
        assert {each["source"] for each in hits} == {"hours", "shipping", "salaries"}


NO_SEARCHES: list[tuple[dict[str, Any], str]] = [
    ({}, "either query or vector"),
    ({"query": "x", "vector": [1.0]}, "either query or vector"),
    ({"query": ""}, "no words"),
    ({"query": []}, "1 to 100"),
    ({"query": ["x"] * 101}, "1 to 100"),
    ({"query": "x", "k": 0}, "1 to 1,000"),
    ({"query": "x", "k": 1001}, "1 to 1,000"),
    ({"query": ["x"] * 100, "k": 1000}, "2,000"),
    ({"query": "x", "path": "/etc/passwd"}, "no such field"),
    ({"query": "x", "mode": "magic"}, "mode: 'magic' is none of vectors, words, hybrid."),
    ({"vector": [1.0, 2.0]}, "dimensions"),
    ({"vector": [[1.0], [1.0, 2.0]]}, "different lengths"),
    ({"vector": [0.0] * 64}, "zeros"),
    ({"vector": [1e39] * 64}, "finite"),
    ({"vector": [1.0] * 64, "mode": "words"}, "no words"),
    ({"query": "x", "tenant": "a"}, "no tenants"),
    ({"query": "x", "filter": {"type": "eq", "key": "author", "value": "a"}}, "names the field"),
    ({"query": "x", "filter": {"type": "eq", "key": "chunk_text", "value": "a"}}, "names the field"),
    ({"query": "x", "filter": {"type": "eq", "key": "stars", "value": "5"}}, "no value of"),
    ({"query": "x", "filter": {"type": "eq", "key": "stars", "value": 1 << 70}}, "no value of"),
    ({"query": "x", "filter": {"type": "call", "key": "stars", "value": 1}}, "has the type"),
    ({"query": "x", "filter": {"type": "and", "filters": []}}, "no list"),
    ({"query": "x", "filter": ["a"]}, "filter"),
    ({"query": "x\ud800"}, ""),
]


@on_a_loop
async def test_a_search_that_is_none_is_refused_with_the_reason() -> None:
    async with answer_gateway(library(tenant=False)) as asked:
        for body, says in NO_SEARCHES:
            answer = await asked.http.post(
                f"{asked.gateway.url}/collections/docs/search",
                content=json.dumps(body).encode(),
                headers={"authorization": f"Bearer {asked.gateway.key}"},
            )
            assert answer.status_code == 400, (body, answer.text)
            assert says in answer.json()["error"]["message"], body
        unknown = await asked.post("/collections/other/search", {"query": "x"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "collection_not_found")
        wrong: list[dict[str, Any]] = [
            {}, {"question": ""}, {"question": "x" * 30_000}, {"question": "x", "url": "http://169.254.169.254/"},
            {"question": "x", "keys": {"customer": "c"}},
        ]  # fmt: skip
        for body in wrong:
            assert (await asked.post("/answers/quoted", body)).status_code == 400, body
        assert (await asked.post("/answers/other", {"question": "x"})).status_code == 404


@on_a_loop
async def test_a_key_of_ours_that_the_encoders_service_refuses_is_no_fault_of_the_callers() -> None:
    class Refused(WordEncoder):
        def encode(self, texts: Sequence[str]) -> Any:
            raise Denied("The service 'provider' refuses texts.", fix="check the key of the upstream.")

    books = library(tenant=False)
    books.words = Refused(books.words.dimension)
    async with answer_gateway(books) as asked:
        search = await asked.post("/collections/docs/search", {"query": "x"})
        answer = await asked.post("/answers/quoted", {"question": "When are refunds paid?"})
        for each in (search, answer):
            assert each.status_code == 503, each.text
            assert "provider" not in each.text


@on_a_loop
async def test_an_encoders_service_that_is_away_or_wrong_is_said_soon() -> None:
    with scripted() as upstream:
        server = UpstreamServer("provider", f"{upstream.url}/v1")

        class Elsewhere(WordEncoder):
            def encode(self, texts: Sequence[str]) -> Any:
                return ServiceEncoder(server, str, "small", self.dimension, within_s=3.0).encode(texts)

        books = library(tenant=False)
        books.words = Elsewhere(books.words.dimension)
        async with answer_gateway(books) as asked:
            for script in (Script(status=404, error="No model small."), Script(status=400, error="Bad format.")):
                upstream.then(script)
                wrong = await asked.post("/collections/docs/search", {"query": "x"})
                assert (wrong.status_code, wrong.headers["retry-after"]) == (503, "1"), wrong.text
                said = wrong.json()["error"]["message"]
                assert said == "The encoder of collection 'docs' gives no vectors now."
            upstream.then(Script(status=400, error="The maximum context length is 512 tokens."))
            long = await asked.post("/collections/docs/search", {"query": "x"})
            assert long.status_code == 400
            assert "512 tokens" in long.json()["error"]["message"]
            server = UpstreamServer("provider", f"http://127.0.0.1:{free_port()}/v1")
            began = time.monotonic()
            search = await asked.post("/collections/docs/search", {"query": "x"})
            answer = await asked.post("/answers/quoted", {"question": "When are refunds paid?"})
            assert time.monotonic() - began < 15
            for each in (search, answer):
                assert (each.status_code, each.headers["retry-after"]) == (503, "1"), each.text
                assert "gives no vectors now" in each.text
                assert "127.0.0.1" not in each.text
            assert books.opened_for_queries[-2:] == [True, True]


@on_a_loop
async def test_a_silent_encoder_leaves_the_threads_to_searches_by_words() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:  # it lets in, and says nothing
        server = UpstreamServer("provider", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        service = ServiceEncoder(server, str, "small", 64, within_s=0.5)

        class Elsewhere(WordEncoder):
            def encode(self, texts: Sequence[str]) -> Any:
                return service.encode(texts)

        books = library(tenant=False)
        books.words = Elsewhere(books.words.dimension)
        async with answer_gateway(books) as asked:
            other = asked.key("collection/docs")
            by_vectors = [
                asyncio.ensure_future(asked.post("/collections/docs/search", {"query": "x"})) for _ in "x" * 30
            ]
            await asyncio.sleep(0.1)
            assert await asked.search(other, query="refunds card", mode="words", k=1)
            for each in by_vectors:
                answer = await each
                assert (answer.status_code, "gives no vectors now" in answer.text) == (503, True)
        assert waiting_at(silent) < 15, "most of the 30 searches know that it is silent"


def waiting_at(server: socket.socket) -> int:
    """Number of connections that nobody has accepted."""
    server.setblocking(False)
    found = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            found += 1
    return found


# Tenants


@on_a_loop
async def test_a_tenant_never_sees_counts_or_is_answered_from_anothers_chunks() -> None:
    books = library()
    with scripted() as upstream:
        upstream.usual = CITED
        async with answer_gateway(books, local(upstream)) as asked:
            a = asked.key("endpoint/help", "endpoint/quoted", "collection/docs", "tenant/a")
            b = asked.key("endpoint/help", "collection/docs", "tenant/b")
            secret = "the merger with Zebra closes in March"
            tricks: list[Any] = [
                None,
                {"type": "in", "key": "section", "value": ["m", "s", "r", "h"]},
                {"type": "or", "filters": [{"type": "eq", "key": "path", "value": "merger"},
                                           {"type": "ne", "key": "path", "value": "merger"}]},
                {"type": "nin", "key": "path", "value": ["refunds"]},
            ]  # fmt: skip
            for mode in ("vectors", "words", "hybrid"):
                for trick in tricks:
                    (hits,) = await asked.search(a, query=secret, k=100, filter=trick, mode=mode)
                    assert {hit["source"] for hit in hits} <= BODIES["a"].keys(), (mode, trick)
            (hits,) = await asked.search(b, query=secret, k=100)
            assert {hit["source"] for hit in hits} == BODIES["b"].keys()
            # Naming another tenant is refused as naming one that does not exist.
            refusals = []
            for other in ("b", "nobody", "a' OR '1'='1", "*", "project"):
                for path, body in (
                    ("/collections/docs/search", {"query": "x"}),
                    ("/answers/quoted", {"question": "x"}),
                ):
                    answer = await asked.post(path, {**body, "tenant": other}, a)
                    refusals.append((answer.status_code, answer.json()["error"]["message"].replace(f"/{other}", "/T")))
            assert len({status for status, _ in refusals}) == 1
            assert len({text for _, text in refusals}) == 1
            assert refusals[0][0] == 403
            # A question that is cached for one is not for the other; both of one account's tenants are apart too.
            both = asked.key("endpoint/help", "tenant/a", "tenant/b")
            for key, tenant in ((a, None), (b, None), (both, "a"), (both, "b")):
                body: dict[str, Any] = {"question": "How are refunds paid?", "keys": {"customer": "c"}}
                answer = await asked.post("/answers/help", body if tenant is None else {**body, "tenant": tenant}, key)
                assert answer.status_code == 200, answer.text
                mine = BODIES["b" if key == b or tenant == "b" else "a"]
                assert {each["source"] for each in answer.json()["citations"]} <= mine.keys()
                sent = json.dumps(upstream.heard[-1].json)
                others = BODIES["a" if mine is BODIES["b"] else "b"]
                assert not any(text in sent for text in others.values())
            assert len(upstream.heard) == 4, "none was answered from another's cache"
            alike = {"question": "How are the refunds paid?", "keys": {"customer": "c"}}
            assert (await asked.post("/answers/help", alike, a)).status_code == 200
            assert len(upstream.heard) == 5, "nor from an answer to a question that is alike: its sources are others"
            answer = await asked.post("/answers/help", {"question": REFUNDS, "keys": {"customer": "c"}}, both)
            assert (answer.status_code, "several tenants" in answer.text) == (400, True)
            none = asked.key("endpoint/help", "collection/docs")
            answer = await asked.post("/collections/docs/search", {"query": "x"}, none)
            assert answer.status_code == 403
            chat = {"model": "help", "messages": [{"role": "user", "content": secret}]}
            refused = await asked.post("/chat/completions", {**chat, "mainspring": {"tenant": "b"}}, a)
            assert refused.status_code == 403
            # Without a right on the chain or the collection, a role for the tenant is not enough.
            for path, told in (("/answers/help", {"question": "x"}), ("/collections/docs/search", {"query": "x"})):
                assert (await asked.post(path, told, asked.key("tenant/a"))).status_code == 403
            everything = await asked.post("/collections/docs/search", {"query": "x", "tenant": "b"}, asked.gateway.key)
            assert everything.status_code == 200, "a key with every role names the tenant"


@on_a_loop
async def test_scores_by_words_say_nothing_of_another_tenants_chunks() -> None:
    alone, beside = library(), Library()
    alone.land({"a": BODIES["a"]})
    more = {"b": {f"b{number}": f"Refunds and cards, page {number}." for number in range(40)}}
    beside.land({"a": BODIES["a"], **more})
    beside.build()
    told = []
    for books in (alone, beside):
        async with answer_gateway(books) as asked:
            key = asked.key("collection/docs", "tenant/a")
            for mode in ("words", "hybrid"):
                told.append(await asked.search(key, query=["refunds card weekdays"], mode=mode))
    assert told[:2] == told[2:]


@on_a_loop
async def test_a_policy_of_the_project_may_permit_a_tenant_to_a_group_and_forbid_it() -> None:
    text = """
        @id("team-b")
        permit (principal in Group::"b", action == Action::"tenant.search", resource == Tenant::"b");
        @id("closed")
        forbid (principal, action == Action::"tenant.search", resource == Tenant::"a");
    """
    policies = Policies({"own.cedar": text})
    own = SimpleNamespace(current=lambda: policies)
    async with answer_gateway(library(), authoriser=CedarAuthoriser(own=own)) as asked:
        member = asked.key("collection/docs", group="b")
        assert (await asked.post("/collections/docs/search", {"query": "x"}, member)).status_code == 403
        (hits,) = await asked.search(member, query="x", tenant="b")
        assert {hit["source"] for hit in hits} == BODIES["b"].keys()
        granted = asked.key("collection/docs", "tenant/a")
        for body in ({"query": "x"}, {"query": "x", "tenant": "a"}):
            assert (await asked.post("/collections/docs/search", body, granted)).status_code == 403


@on_a_loop
async def test_what_identifies_a_person_is_withheld_and_a_text_that_does_only_for_those_who_may_see_it() -> None:
    by_name = library(tenant=False, source=replace(PAGES, pii=["path", "author"]))
    async with answer_gateway(by_name) as asked:
        (hit, *_) = (await asked.search(query=REFUNDS, k=1))[0]
        assert (hit["source"], hit["chunk"], hit["text"]) == (None, None, REFUNDS)
        assert hit["fields"] == {"section": "r", "stars": 7}
        events = await asked.post("/answers/quoted", {"question": REFUNDS, "stream": True})
        assert ("event: answer" in events.text, '"refunds"' in events.text) == (True, False)
        chat = {"model": "quoted", "messages": [{"role": "user", "content": REFUNDS}]}
        assert '"refunds"' not in (await asked.post("/chat/completions", chat)).text
    letters = library(tenant=False, source=replace(PAGES, pii=["body"]))
    async with answer_gateway(letters) as asked:
        told = set()
        for words in ("refunds card", "zebra"):
            for path, body in (
                ("/collections/docs/search", {"query": words}),
                ("/answers/quoted", {"question": words}),
                ("/chat/completions", {"model": "quoted", "messages": [{"role": "user", "content": words}]}),
            ):
                answer = await asked.post(path, body)
                told.add((path, answer.status_code, answer.text))
        assert len(told) == 3
        assert {status for _, status, _ in told} == {403}
        revealing = asked.gateway.kit.key(*KeyScope).removeprefix("Bearer ")
        assert (await asked.post("/answers/quoted", {"question": REFUNDS}, revealing)).status_code == 200


# What fails


@on_a_loop
async def test_failures_of_the_upstream_have_a_status_and_no_record() -> None:
    books = library(tenant=False)
    with scripted() as upstream:
        body = {"question": REFUNDS, "keys": {"customer": "c"}}
        async with answer_gateway(
            books, {"LOCAL": UpstreamServer("local", f"http://127.0.0.1:{free_port()}/v1")}
        ) as asked:
            away = await asked.post("/answers/help", body)
            assert (away.status_code, "'local'" in away.json()["error"]["message"]) == (503, True)
        async with answer_gateway(books) as asked:
            none = await asked.post("/answers/help", body)
            assert (none.status_code, "none of the upstreams" in none.text) == (503, True)
        async with answer_gateway(books, local(upstream)) as asked:
            for script, status in ((Script(before_s=9), 504), (Script(breaks_after=9), 502), (Script(body=b"{}"), 502)):
                upstream.then(*[script] * 3)
                answer = await asked.post("/answers/help", body)
                assert answer.status_code == status, answer.text
                upstream._scripts.clear()
            upstream.then(*[Script(breaks_after=9)] * 3)
            events = await asked.post("/answers/help", {**body, "stream": True})
            assert (events.status_code, "event: error" in events.text) == (200, True)
            assert "event: answer" not in events.text
            upstream._scripts.clear()
            # A caller who hangs up frees the upstream at once.
            upstream.then(Script(before_s=60))
            count = len(upstream.heard)
            leaving = asyncio.ensure_future(asked.post("/answers/help", {**body, "question": "shipped abroad?"}))
            await wait_until_async(lambda: len(upstream.heard) > count, "the question")
            leaving.cancel()
            await wait_until_async(upstream.heard[-1].left.is_set, "the upstream to be freed")
    assert logged(books) == []


def guarded(model: LanguageModel, upstreams: Any) -> Guarded:
    assert model.guard is not None
    return Guarded(assemble(model, upstreams), model.name, model.guard, key=bytes(32), permits=lambda _: False)


@on_a_loop
async def test_budgets_and_guards_of_the_model_hold_for_its_chain() -> None:
    books = library(tenant=False)
    (model,) = books.models
    books.models = [
        replace(model, quotas=[Quota("few", requests=1, per="day")], guard=Guard(personal={"email": "redact"}))
    ]
    with scripted() as upstream:
        upstream.usual = Script(words=("Ask ana@", "x.org ", "[1]."), usage=(300, 0, 5, 0))
        async with answer_gateway(books, local(upstream), guarded) as asked:
            body = {"question": REFUNDS, "keys": {"customer": "c"}}
            first = await asked.post("/answers/help", body)
            assert (first.status_code, "ana@" in first.text) == (200, False)
            spent = await asked.post("/answers/help", {**body, "question": "Are parcels shipped?"})
            assert (spent.status_code, spent.json()["error"]["code"]) == (429, "insufficient_quota")
    assert len(logged(books)) == 1


@on_a_loop
async def test_a_collection_without_a_build_says_so_and_one_that_is_built_anew_is_searched_on(tmp_path: Path) -> None:
    books = Library(tenant=False, vectors=EmbeddedVectorStore(tmp_path / "vectors"))
    books.texts = TantivyTextStore(tmp_path / "texts")
    books.land()
    books.chains = [Answers("quoted", retriever=Retriever("nearest", collection=books.collection))]
    async with answer_gateway(books) as asked:
        for path, body in (("/collections/docs/search", {"query": "x"}), ("/answers/quoted", {"question": "x"})):
            answer = await asked.post(path, body)
            assert (answer.status_code, "has no build yet" in answer.text) == (503, True)
        books.build()
        await wait_until_async(lambda: "docs" in asked.models.collections()["docs"].builds(), "the build")
        assert await asked.search(query="refunds card", k=1)
        former = books.builds.get("docs")
        asked.freeze()  # the gateway does not hear of the next build until it looks
        books.words = WordEncoder(64, seed=5)
        newer = books.build()
        assert former is not None
        assert newer.index != former.index
        assert books.vectors.names() == [newer.index], "the former index is gone"
        assert sources(await asked.search(query="refunds card", k=1)) == [["refunds"]]
        assert len(asked.looks) == 1
        books.vectors.drop(newer.index)
        asked.away.append(True)
        lost = await asked.post("/collections/docs/search", {"query": "refunds card"})
        assert (lost.status_code, "being built anew" in lost.text) == (503, True)
        assert books.vectors.names() == [], "of a build that may be an old one no index is made"
        asked.away.clear()
        assert sources(await asked.search(query="refunds card", k=1)) == [["refunds"]], "made again from its chunks"


@on_a_loop
async def test_a_slow_encoder_holds_neither_the_loop_nor_other_collections_and_has_a_bounded_queue() -> None:
    books, release = library(tenant=False), threading.Event()
    inner = books.words

    class Slow(WordEncoder):
        def encode(self, texts: Sequence[str]) -> Any:
            if "slow" in texts:
                release.wait(20)
            return inner.encode(texts)

    books.words = Slow(64)
    async with answer_gateway(books) as asked:
        waiting = [asyncio.ensure_future(asked.post("/collections/docs/search", {"query": "slow"})) for _ in range(80)]
        try:
            await wait_until_async(lambda: any(each.done() for each in waiting), "a refusal")
            refused = {each.result().status_code for each in waiting if each.done()}
            assert refused == {429}
            began = time.monotonic()
            listed = await asked.http.get(
                f"{asked.gateway.url}/models", headers={"authorization": f"Bearer {asked.gateway.key}"}
            )
            assert (listed.status_code, time.monotonic() - began < 10) == (200, True)
            for each in waiting[:40]:  # hang up: those that have not begun never run
                each.cancel()
        finally:
            release.set()
        statuses = [(await each).status_code for each in waiting[40:]]
        assert set(statuses) <= {200, 429}


@on_a_loop
async def test_quotas_bind_chains_without_a_model_and_searches_by_key_and_are_of_no_refused_request() -> None:
    books = library()
    few, searches = Quota("few", requests=2, per="day"), Quota("searches", requests=2, per="day", by="owner")
    books.collection = replace(books.collection, quotas=[searches])
    retriever = Retriever("nearest", collection=books.collection, k=2)
    books.chains = [Answers("quoted", retriever=retriever, quotas=[few])]
    async with answer_gateway(books) as asked:
        places = ("endpoint/quoted", "collection/docs", "tenant/a")
        one, other = asked.key(*places), asked.key(*places)
        assert (await asked.post("/answers/quoted", {"question": ""}, one)).status_code == 400  # counts: it was made
        first = await asked.post("/answers/quoted", {"question": REFUNDS}, one)
        assert (first.status_code, first.headers["ratelimit"][:11]) == (200, '"few";r=0;t')
        for path, body, kind in (
            ("/answers/quoted", {"question": REFUNDS}, "error"),
            ("/answers/quoted", {"question": REFUNDS, "stream": True}, "error"),
            ("/chat/completions", {"model": "quoted", "messages": [{"role": "user", "content": REFUNDS}]}, "error"),
            ("/messages", {"model": "quoted", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}, "type"),
        ):
            spent = await asked.post(path, body, one)
            assert (spent.status_code, kind in spent.json()) == (429, True), spent.text
            assert 0 < int(spent.headers["retry-after"]) <= 86_400
            assert spent.headers["ratelimit-policy"] == '"few";q=2;w=86400'
        async with client(asked, one) as ai:
            with pytest.raises(openai.RateLimitError, match="2 requests a day is spent"):
                await ai.chat.completions.create(model="quoted", messages=[{"role": "user", "content": REFUNDS}])
        assert (await asked.post("/answers/quoted", {"question": REFUNDS}, other)).status_code == 200
        for _ in range(2):
            assert (await asked.post("/collections/docs/search", {"query": REFUNDS}, one)).status_code == 200
        refused = await asked.post("/collections/docs/search", {"query": REFUNDS}, one)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert (await asked.post("/collections/docs/search", {"query": REFUNDS}, other)).status_code == 200
        assert (await asked.post("/collections/docs/search", {"query": ""}, other)).status_code == 400  # counts, too
        assert (await asked.post("/collections/docs/search", {"query": REFUNDS}, other)).status_code == 429


@on_a_loop
async def test_requests_that_wait_in_vain_count_in_no_quota() -> None:
    books = library()
    books.collection = replace(books.collection, quotas=[Quota("searches", requests=1, per="day")])
    books.chains = []
    async with answer_gateway(books) as asked:
        key = asked.key("collection/docs", "tenant/a")
        (served,) = asked.models.collections().values()
        full, served.threads._most = served.threads._most, 0
        assert (await asked.post("/collections/docs/search", {"query": REFUNDS}, key)).json()["error"]["code"] == (
            "rate_limit_exceeded"
        )
        served.threads._most = full
        assert (await asked.post("/collections/docs/search", {"query": REFUNDS}, key)).status_code == 200
