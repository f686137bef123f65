"""Answers whose text leaves while the model writes it: for clients, behind guards, cut, and as they are recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest

from kit.answer_gateway import Asked, Library, answer_gateway
from kit.later import later
from kit.scripted_upstream import Script, Upstream, scripted
from mainspring.core.settings import UpstreamServer
from mainspring.ledger.model import Log, Selection
from mainspring.llm.answering import assemble
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.answers.recording import recorded_answer
from mainspring.llm.declaring import LanguageModel, UpstreamModel
from mainspring.llm.guarding.answering import Guarded
from mainspring.llm.guarding.declaring import Guard

anthropic = later("anthropic")
openai = later("openai")

ASKED = "Refunds are paid within two weeks to the card."
MESSAGES: Any = [{"role": "user", "content": ASKED}]
PAUSE_S = 0.06
# Without a citation nothing leaves; the mark of no passage never does.
SLOW = Script(
    words=("Within ", "two", " weeks", " [1", "].", " To ", "the card", " [7]", ".", " Not ", "later ", "[2]."),
    usage=(200, 0, 12, 0), between_s=PAUSE_S,
)  # fmt: skip
TEXT = "Within two weeks [1]. To the card. Not later [2]."


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def guarded(model: LanguageModel, upstreams: Any) -> Any:
    inner = assemble(model, upstreams)
    if model.guard is None:
        return inner
    return Guarded(inner, model.name, model.guard, key=bytes(32), permits=lambda _: False)


@asynccontextmanager
async def asking(
    upstream: Upstream, *, guard: Guard | None = None, **more: Any
) -> AsyncIterator[tuple[Asked, Library, str]]:
    """Serve the chain `help`, and yield a key that may ask it."""
    books = Library()
    books.land()
    books.build()
    model = LanguageModel("assistant", upstreams=[UpstreamModel("local", "tiny")], guard=guard, **more.pop("model", {}))
    books.models = [model]
    retriever = Retriever("nearest", collection=books.collection, k=2, **more.pop("retriever", {}))
    books.chains = [Answers("help", retriever=retriever, model=model, **more)]
    async with answer_gateway(books, {"LOCAL": UpstreamServer("local", upstream.url)}, guarded) as asked:
        yield asked, books, asked.key("endpoint/help", "tenant/a")


async def events_of(asked: Asked, key: str, **body: Any) -> list[tuple[str, Any, float]]:
    """Return the name, the data and the time of each event of an answer."""
    loop, found, name = asyncio.get_running_loop(), list[tuple[str, Any, float]](), ""
    headers = {"authorization": f"Bearer {key}"}
    question = {"question": ASKED, "stream": True, **body}
    url = f"{asked.gateway.url}/answers/help"
    async with asked.http.stream("POST", url, json=question, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            name = line.removeprefix("event: ") if line.startswith("event: ") else name
            if line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: ")), loop.time()))
    return found


def logged(books: Library) -> list[Any]:
    books.prediction_log.compact()
    kept = [books.prediction_log.revealed(each) for part in books.prediction_log.scan(Selection()) for each in part]
    return [recorded_answer(each).answer for each in kept]


def said(events: list[tuple[str, Any, float]]) -> str:
    return "".join(data["text"] for name, data, _ in events if name == "text")


@on_a_loop
async def test_words_leave_while_the_model_writes_them_and_the_last_event_has_the_whole() -> None:
    with scripted() as upstream:
        upstream.usual = SLOW
        async with asking(upstream) as (asked, books, key):
            events = await events_of(asked, key)
        assert events[0][0] == "retrieved"
        assert events[-1][0] == "answer"
        assert {name for name, *_ in events[1:-1]} == {"text"}
        texts = [(data["text"], at) for name, data, at in events if name == "text"]
        assert texts[0][0] == "Within two weeks [1]."  # once it is certain to be an answer
        assert texts[-1][1] - texts[0][1] > 5 * PAUSE_S
        last = events[-1][1]
        assert said(events) == last["text"] == TEXT
        assert (last["found"], last["unknown_citations"], [each["number"] for each in last["citations"]]) == (
            True, 1, [1, 2],
        )  # fmt: skip
        assert {data["id"] for name, data, _ in events if name != "text"} == {last["id"]}
        (kept,) = logged(books)
        assert (kept.id, kept.text, kept.usage.total) == (last["id"], TEXT, 212)


@on_a_loop
async def test_the_clients_of_openai_and_anthropic_get_the_same_words_as_they_come() -> None:
    loop = asyncio.get_running_loop()
    with scripted() as upstream:
        upstream.usual = replace(SLOW, between_s=0.05)
        async with asking(upstream) as (asked, books, key):
            http = openai.DefaultAsyncHttpxClient(trust_env=False)
            async with openai.AsyncOpenAI(api_key=key, base_url=asked.gateway.url, http_client=http) as ai:
                chunks, times = list[Any](), list[float]()
                stream = await ai.chat.completions.create(
                    model="help", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
                )
                async for chunk in stream:
                    chunks.append(chunk)
                    if chunk.choices and chunk.choices[0].delta.content:
                        times.append(loop.time())
                assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == TEXT
                assert times[-1] - times[0] > 0.2
                assert chunks[0].choices[0].delta.role == "assistant"
                assert chunks[0].mainspring["step"] == "retrieved"
                assert chunks[0].mainspring["passages"][0]["source"] == "refunds"
                assert len({(each.id, each.created, each.model) for each in chunks}) == 1
                ended = chunks[-2]
                assert (ended.choices[0].finish_reason, ended.mainspring["text"]) == ("stop", TEXT)
                assert [each["index"] for each in map(_file, ended.choices[0].delta.annotations)] == [17, 45]
                assert chunks[-1].usage.total_tokens == 212
                pieces = []
                async with ai.responses.stream(model="help", input=ASKED) as events:
                    async for event in events:
                        if event.type == "response.output_text.delta":
                            pieces.append(event.delta)
                    assert (await events.get_final_response()).output_text == "".join(pieces) == TEXT
                assert len(pieces) > 3
            plain = anthropic.DefaultAsyncHttpxClient(trust_env=False)
            root = asked.gateway.url.removesuffix("/v1")
            async with anthropic.AsyncAnthropic(auth_token=key, base_url=root, http_client=plain) as claude:
                pieces = []
                async with claude.messages.stream(model="help", max_tokens=100, messages=MESSAGES) as message:
                    async for text in message.text_stream:
                        pieces.append(text)
                assert len(pieces) > 3
                assert "".join(pieces) == TEXT
        assert [each.text for each in logged(books)] == [TEXT] * 3


def _file(annotation: Any) -> Any:
    return annotation["file_citation"]


@on_a_loop
async def test_of_an_answer_that_is_none_no_word_of_the_models_leaves() -> None:
    with scripted() as upstream:
        async with asking(upstream, not_found="Nobody knows.") as (asked, books, key):
            for words, reason in (
                (("NOT", " FOUND", "."), "declined"),
                (("NOT FOUND", " [1]"), "declined"),
                (("They ", "are ", "free."), "nothing cited"),
                (("They ", "are ", "free [12]."), "nothing cited"),
            ):
                upstream.then(Script(words=words, between_s=0.01))
                events = await events_of(asked, key)
                assert [name for name, *_ in events] == ["retrieved", "text", "answer"]
                assert said(events) == "Nobody knows."
                assert (events[-1][1]["found"], events[-1][1]["reason"]) == (False, reason)
        assert {each.text for each in logged(books)} == {"Nobody knows."}


@on_a_loop
async def test_a_guard_holds_its_window_back_and_what_it_refuses_ends_the_text() -> None:
    words = ("Ask [1]", " ana@", "x.o", "rg or ", "bob@x.org", " [2].")
    with scripted() as upstream:
        async with asking(upstream, guard=Guard(personal={"email": "redact"})) as (asked, books, key):
            upstream.usual = Script(words=words, between_s=0.05)
            events = await events_of(asked, key)
            assert "ana" not in str(events)
            assert "bob" not in str(events)
            assert said(events) == events[-1][1]["text"]
        assert "ana" not in logged(books)[0].text
        async with asking(upstream, guard=Guard(personal={"email": "refuse"})) as (asked, books, key):
            events = await events_of(asked, key)
            last = events[-1][1]
            assert "ana" not in str(events)
            assert (last["finish_reason"], said(events)) == ("content_filter", last["text"])
            assert last["text"].startswith("Ask [1]")
        assert logged(books)[0].text == last["text"]


@on_a_loop
async def test_an_upstream_that_breaks_off_ends_the_stream_with_an_error_and_what_was_said_is_logged() -> None:
    with scripted() as upstream:
        async with asking(upstream) as (asked, books, key):
            for script in (replace(SLOW, between_s=0.01, breaks_after=7), replace(SLOW, between_s=0.01, error_after=7)):
                upstream.then(script)
                events = await events_of(asked, key)
                assert [events[0][0], events[-1][0]] == ["retrieved", "error"]
                assert "answer" not in [name for name, *_ in events]
                assert events[-1][1]["error"]["message"]
                assert said(events).startswith("Within two weeks [1].")
                assert TEXT.startswith(said(events))
                assert logged(books)[-1].text == said(events)
            http = openai.DefaultAsyncHttpxClient(trust_env=False)
            async with openai.AsyncOpenAI(
                api_key=key, base_url=asked.gateway.url, http_client=http, max_retries=0
            ) as ai:
                upstream.then(replace(SLOW, between_s=0.01, breaks_after=7))
                stream = await ai.chat.completions.create(model="help", messages=MESSAGES, stream=True)
                with pytest.raises(openai.APIError):
                    async for _ in stream:
                        pass
            upstream.then(replace(SLOW, between_s=0.01, breaks_after=2))  # before anything left
            events = await events_of(asked, key)
            assert [name for name, *_ in events] == ["retrieved", "error"]
        kept = logged(books)
        assert [each.finish for each in kept] == ["cut"] * 3
        assert all(each.found and each.usage.completion for each in kept)


@on_a_loop
async def test_a_chain_whose_log_is_synchronous_says_nothing_before_its_record() -> None:
    with scripted() as upstream:
        upstream.usual = replace(SLOW, between_s=0.02)
        async with asking(upstream, log=Log(sync=True)) as (asked, _, key):
            events = await events_of(asked, key)
            assert [name for name, *_ in events] == ["retrieved", "text", "answer"]
            assert said(events) == TEXT


@on_a_loop
async def test_the_steps_of_a_question_are_told_before_its_text() -> None:
    with scripted() as upstream:
        more = {"rewrite": True, "retriever": {"rerank": "words"}}
        async with asking(upstream, **more) as (asked, _, key):
            upstream.then(Script(words=("When are refunds paid?",)), replace(SLOW, between_s=0.0))
            before = [{"role": "user", "content": "Refunds?"}, {"role": "assistant", "content": "Yes."}]
            events = await events_of(asked, key, question="When?", conversation=before)
            assert [name for name, *_ in events][:3] == ["rewritten", "retrieved", "reranked"]
            assert events[0][1]["query"] == events[1][1]["query"] == "When are refunds paid?"
            assert events[2][1]["failed"] is False
            assert events[2][1]["index"].startswith(events[1][1]["index"])
            assert events[-1][1]["text"] == TEXT
            refused = await asked.post("/answers/help", {"question": "", "stream": True}, key)
            assert refused.status_code == 400  # until the search is over an error has a status
