"""OpenAI's responses against a gateway, and answers that have to follow a schema."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.language_gateway import language_gateway, language_model
from kit.later import later
from kit.scripted_upstream import WORDS, Script, Upstream, scripted
from mainspring.core.settings import UpstreamServer
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.protocol.reading import InvalidField
from mainspring.llm.schemas import validator_of

openai = later("openai")

TOOL: Any = {"type": "function", "name": "timetable", "parameters": {"type": "object"}, "strict": True}
SHAPE = {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"], "additionalProperties": False}
ASKED: list[Any] = [{"role": "user", "content": "When?"}]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with scripted() as found:
        yield found


@asynccontextmanager
async def asking(upstream: Upstream, *models: LanguageModel) -> AsyncIterator[openai.AsyncOpenAI]:
    async with language_gateway({"local": UpstreamServer("local", upstream.url)}, *models) as gateway:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(
            api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http
        ) as client:
            yield client


def test_a_response_and_its_stream_say_the_same(upstream: Upstream) -> None:
    script = Script(calls={"timetable": '{"city": "Ulm"}', "weather": "{}"}, reasoning="Let me see.")
    upstream.then(script, script)

    async def body() -> None:
        async with asking(upstream) as client:
            picture = {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low"}
            how: dict[str, Any] = {
                "model": "assistant",
                "instructions": "Be short.",
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "Look"}, picture]},
                    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                    {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c1", "output": "9:00"},
                ],
                "tools": [TOOL],
                "tool_choice": {"type": "function", "name": "timetable"},
                "max_output_tokens": 50,
                "reasoning": {"effort": "low"},
            }  # fmt: skip
            told = await client.responses.create(**how)
            async with client.responses.stream(**how) as stream:
                kinds = [event.type async for event in stream]
                streamed = await stream.get_final_response()
        for response in (told, streamed):
            assert (response.status, response.output_text) == ("completed", "".join(WORDS))
            calls: list[Any] = [each for each in response.output if each.type == "function_call"]
            assert [(each.name, json.loads(each.arguments)) for each in calls] == [
                ("timetable", {"city": "Ulm"}),
                ("weather", {}),
            ]
            assert [each.type for each in response.output] == ["reasoning", "message", "function_call", "function_call"]
            assert response.usage is not None
            assert (response.usage.input_tokens, response.usage.output_tokens) == (11, 5)
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert kinds.count("response.output_text.delta") == len(WORDS)

    asyncio.run(body())
    heard = upstream.heard[0].json
    asked = [
        {"id": name, "type": "function", "function": {"name": function, "arguments": "{}"}}
        for name, function in (("c1", "f"), ("c2", "g"))
    ]
    image = {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}}
    assert heard["messages"] == [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
        {"role": "assistant", "content": None, "tool_calls": asked},
        {"role": "tool", "tool_call_id": "c1", "content": "9:00"},
    ]
    assert (heard["max_tokens"], heard["reasoning_effort"]) == (50, "low")
    assert heard["tool_choice"] == {"type": "function", "function": {"name": "timetable"}}


def test_an_answer_that_was_cut_is_incomplete_and_a_stream_that_breaks_is_an_error(upstream: Upstream) -> None:
    async def read(client: openai.AsyncOpenAI) -> list[Any]:
        return [each async for each in await client.responses.create(model="assistant", input="When?", stream=True)]

    async def body() -> None:
        async with asking(upstream) as client:
            upstream.then(Script(finish="length"), Script(breaks_after=3), Script(status=429))
            cut = await client.responses.create(model="assistant", input="When?")
            assert cut.incomplete_details is not None
            assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
            *events, last = await read(client)  # this client gives the error as an event
            assert "closed the connection" in last.message
            assert last.type == "error"
            assert "response.completed" not in [event.type for event in events]
            with pytest.raises(openai.RateLimitError):
                await read(client)

    asyncio.run(body())


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "a"}]}]}, "input[0].content[0]"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ],
)
def test_what_is_not_kept_or_not_known_is_refused_by_name(upstream: Upstream, asked: Any, param: str) -> None:
    async def body() -> None:
        async with asking(upstream) as client:
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(**{"model": "assistant", "input": "When?", **asked})
            assert caught.value.param == param

    asyncio.run(body())
    assert upstream.heard == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (('{"at"', ": 9}"), ""),
        (("nine",), "no JSON"),
        (('{"at": "secret"}',), "'answer.at'"),
        (('{"at": 9, "b": 1}',), "additionalProperties"),
        (("[" * 5000,), "no JSON"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_follows_the_schema_or_is_an_error(
    upstream: Upstream, words: tuple[str, ...], named: str, stream: bool
) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "time", "schema": SHAPE, "strict": True}}
    upstream.then(Script(words=words), Script(words=(), calls={"f": "{}"}))

    async def ask(client: openai.AsyncOpenAI, model: str) -> str:
        told: Any = await client.chat.completions.create(
            model=model, messages=ASKED, response_format=shape, stream=stream
        )
        if not stream:
            return told.choices[0].message.content or ""
        return "".join([chunk.choices[0].delta.content or "" async for chunk in told if chunk.choices])

    async def body() -> None:
        async with asking(upstream, language_model(checks_schema=True), language_model("free")) as client:
            if named:
                with pytest.raises(openai.APIError, match=named) as caught:
                    await ask(client, "assistant")
                assert "secret" not in str(caught.value)
            else:
                assert json.loads(await ask(client, "assistant")) == {"at": 9}
            assert await ask(client, "assistant") == ""  # a call of a tool is no answer yet
            upstream.then(Script(words=words))
            assert await ask(client, "free") == "".join(words)
            assert upstream.heard[-1].json["response_format"] == shape

    asyncio.run(body())


@pytest.mark.parametrize(
    "schema", [{"type": 3}, {"$ref": "http://127.0.0.1:1/a"}, {"$ref": "file:///etc/passwd"}, {"pattern": "(?=a)"}]
)
def test_a_schema_that_is_none_or_is_elsewhere_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidField, match="response_format"):
        validator_of(schema)


def test_a_pattern_takes_no_longer_than_its_text() -> None:
    assert not validator_of({"type": "string", "pattern": "^(a+)+$"}).is_valid("a" * 100_000 + "b")
