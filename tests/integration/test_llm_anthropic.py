"""The `anthropic` client against a gateway, whatever protocol its upstream speaks; and OpenAI's before Anthropic's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.language_gateway import LanguageGateway, language_gateway
from kit.later import later
from kit.scripted_upstream import WORDS, Script, Upstream, scripted
from kit.waiting import wait_until_async
from mainspring.core.settings import UpstreamServer
from mainspring.security.model import KeyScope

anthropic = later("anthropic")
openai = later("openai")

ASKED: list[Any] = [{"role": "user", "content": "When does it leave?"}]
TOOLS: list[Any] = [{"name": "timetable", "description": "Times", "input_schema": {"type": "object"}}]
PROTOCOLS = ("anthropic", "openai")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with scripted() as found:
        yield found


@asynccontextmanager
async def asking(upstream: Upstream, protocol: str) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, LanguageGateway]]:
    servers = {"local": UpstreamServer("local", upstream.url, key="up-key", protocol=protocol)}
    async with language_gateway(servers) as gateway:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        url = gateway.url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(
            api_key=gateway.key, base_url=url, max_retries=0, http_client=http
        ) as client:
            yield client, gateway


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_and_a_stream_are_the_same_from_either_upstream(upstream: Upstream, protocol: str) -> None:
    script = Script(calls={"timetable": '{"city": "Ulm"}'}, reasoning="Let me see.")
    upstream.then(script, script)

    async def body() -> None:
        async with asking(upstream, protocol) as (client, _):
            how: dict[str, Any] = {"model": "assistant", "max_tokens": 90, "messages": ASKED, "tools": TOOLS}
            told = await client.messages.create(
                **how, system="Be short.", stop_sequences=["\n"], extra_body={"temperature": 0.5}
            )
            async with client.messages.stream(**how) as stream:
                streamed = await stream.get_final_message()
        for message in (told, streamed):
            thinking, text, call = message.content
            assert (thinking.type, text.type, call.type) == ("thinking", "text", "tool_use")
            assert thinking.type == "thinking" and thinking.thinking == "Let me see."  # noqa: PT018
            assert text.type == "text" and text.text == "".join(WORDS)  # noqa: PT018
            assert call.type == "tool_use" and (call.name, call.input) == ("timetable", {"city": "Ulm"})  # noqa: PT018
            assert message.stop_reason == "tool_use"
            usage = message.usage
            assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (8, 3, 5)

    asyncio.run(body())
    heard = upstream.heard[0]
    if protocol == "anthropic":
        assert heard.headers["x-api-key"] == "up-key"
        assert heard.headers["anthropic-version"] == "2023-06-01"
        assert heard.json == {
            "model": "tiny",
            "max_tokens": 90,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "When does it leave?"}]}],
            "system": [{"type": "text", "text": "Be short."}],
            "tools": TOOLS,
            "stop_sequences": ["\n"],
            "temperature": 0.5,
        }
    else:
        function = {"name": "timetable", "description": "Times", "parameters": {"type": "object"}}
        assert heard.json == {
            "model": "tiny",
            "max_tokens": 90,
            "messages": [{"role": "system", "content": "Be short."}, *ASKED],
            "tools": [{"type": "function", "function": function}],
            "stop": ["\n"],
            "temperature": 0.5,
        }


def _text(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def _use(id_: str, name: str, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": name, "input": given}


def _result(id_: str, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, "content": [_text(text)], **more}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "c2ln"}
CONVERSATION: list[Any] = [
    {"role": "user", "content": [_text("Look", cache_control={"type": "ephemeral"}), IMAGE]},
    {
        "role": "assistant",
        "content": [THOUGHT, _text("I ask."), _use("t1", "timetable", {"a": 1}), _use("t2", "weather", {})],
    },
    {"role": "user", "content": [_result("t1", "9:00"), _result("t2", "down", is_error=True), _text("And?")]},
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_conversation_with_tools_goes_there_whole(upstream: Upstream, protocol: str) -> None:
    async def body() -> None:
        async with asking(upstream, protocol) as (client, _):
            how: dict[str, Any] = {"tools": TOOLS, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
            more: dict[str, Any] = {"metadata": {"user_id": "ana"}, "extra_body": {"top_k": 7}}
            await client.messages.create(model="assistant", max_tokens=9, messages=CONVERSATION, **how, **more)

    asyncio.run(body())
    heard = upstream.heard[0].json
    if protocol == "anthropic":
        assert heard["messages"] == CONVERSATION
        assert (heard["metadata"], heard["top_k"]) == ({"user_id": "ana"}, 7)
        assert heard["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
        return
    calls = [
        {"id": name, "type": "function", "function": {"name": tool, "arguments": arguments}}
        for name, tool, arguments in (("t1", "timetable", '{"a":1}'), ("t2", "weather", "{}"))
    ]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert heard["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
        {"role": "assistant", "content": "I ask.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "t1", "content": "9:00"},
        {"role": "tool", "tool_call_id": "t2", "content": "down"},
        {"role": "user", "content": "And?"},
    ]
    assert (heard["user"], heard["top_k"]) == ("ana", 7)
    assert (heard["tool_choice"], heard["parallel_tool_calls"]) == ("required", False)


@pytest.mark.parametrize(
    ("script", "raised"),
    [
        (Script(status=400, error="Too long."), "BadRequestError"),
        (Script(status=429, headers={"retry-after": "7"}), "RateLimitError"),
        (Script(status=529), "RateLimitError"),
        (Script(status=500), "InternalServerError"),
        (Script(body=b"{}"), "InternalServerError"),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_errors_are_those_of_the_client(upstream: Upstream, script: Script, raised: str, protocol: str) -> None:
    async def body() -> None:
        async with asking(upstream, protocol) as (client, gateway):
            for stream in (False, True):
                upstream.then(script)
                with pytest.raises(anthropic.APIStatusError) as caught:
                    await client.messages.create(model="assistant", max_tokens=9, messages=ASKED, stream=stream)
                if script.body is None or not stream:
                    assert type(caught.value).__name__ == raised
                assert "up-key" not in str(caught.value)
            for key, kind in (
                ("msp_no", anthropic.AuthenticationError),
                (gateway.kit.key(KeyScope.SCRAPE).removeprefix("Bearer "), anthropic.PermissionDeniedError),
            ):
                with pytest.raises(kind):
                    await client.with_options(api_key=key).messages.create(
                        model="assistant", max_tokens=9, messages=ASKED
                    )
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(model="none", max_tokens=9, messages=ASKED)
            with pytest.raises(anthropic.BadRequestError, match="role"):
                await client.messages.create(
                    model="assistant",
                    max_tokens=9,
                    messages=[{"role": "owner", "content": "a"}],  # type: ignore[typeddict-item]
                )
            assert [each.id async for each in client.models.list()] == ["assistant", "embedder"]

    asyncio.run(body())


@pytest.mark.parametrize("script", [Script(breaks_after=4), Script(error_after=2), Script(done=False)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_that_breaks_ends_with_an_error(upstream: Upstream, script: Script, protocol: str) -> None:
    async def read(client: anthropic.AsyncAnthropic) -> None:
        async with client.messages.stream(model="assistant", max_tokens=9, messages=ASKED) as stream:
            async for _ in stream.text_stream:
                pass

    async def body() -> None:
        upstream.then(script)
        async with asking(upstream, protocol) as (client, _):
            with pytest.raises(anthropic.APIStatusError):
                await read(client)

    asyncio.run(body())


def test_a_caller_that_leaves_ends_the_upstreams_work(upstream: Upstream) -> None:
    async def body() -> None:
        upstream.then(Script(endless=True, between_s=0.01))
        async with asking(upstream, "anthropic") as (client, _):
            async with client.messages.stream(model="assistant", max_tokens=9, messages=ASKED) as stream:
                async for _ in stream.text_stream:
                    break
            await wait_until_async(upstream.heard[0].left.is_set, "the upstream to be left")

    asyncio.run(body())


def test_openais_client_before_anthropics_upstream(upstream: Upstream) -> None:
    script = Script(calls={"timetable": '{"city": "Ulm"}'})
    upstream.then(script, script)

    async def body() -> None:
        async with asking(upstream, "anthropic") as (_, gateway):
            http = openai.DefaultAsyncHttpxClient(trust_env=False)
            async with openai.AsyncOpenAI(
                api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http
            ) as client:
                how: dict[str, Any] = {
                    "model": "assistant",
                    "messages": [
                        {"role": "system", "content": "Be short."},
                        *ASKED,
                        {
                            "role": "assistant",
                            "tool_calls": [
                                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
                            ],
                        },
                        {"role": "tool", "tool_call_id": "c", "content": "9:00"},
                    ],
                    "tools": [{"type": "function", "function": {"name": "timetable", "parameters": {}}}],
                }
                told = await client.chat.completions.create(**how, user="ana", tool_choice="required")
                async with client.chat.completions.stream(**how, stream_options={"include_usage": True}) as stream:
                    streamed = await stream.get_final_completion()
                for found in (told, streamed):
                    choice = found.choices[0]
                    assert (choice.message.content, choice.finish_reason) == ("".join(WORDS), "tool_calls")
                    (call,) = choice.message.tool_calls or ()
                    assert call.type == "function"
                    assert json.loads(call.function.arguments) == {"city": "Ulm"}
                    assert found.usage is not None
                    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (11, 5)
                shape = {"type": "json_object"}
                for field in ({"seed": 3}, {"n": 2}, {"logit_bias": {"3": 1}}, {"response_format": shape}):
                    with pytest.raises(openai.BadRequestError) as caught:
                        await client.chat.completions.create(model="assistant", messages=ASKED, **field)  # type: ignore[call-overload]
                    assert caught.value.param == next(iter(field))
                with pytest.raises(openai.BadRequestError):
                    await client.embeddings.create(model="embedder", input="a")

    asyncio.run(body())
    heard = upstream.heard[0].json
    assert heard["messages"] == [
        {"role": "user", "content": [_text("When does it leave?")]},
        {"role": "assistant", "content": [_use("c", "f", {"a": 1})]},
        {"role": "user", "content": [_result("c", "9:00")]},
    ]
    assert heard["max_tokens"] == 4096
    assert heard["metadata"] == {"user_id": "ana"}
    assert heard["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tokens_are_counted_by_the_upstream_or_the_count_says_that_it_is_an_estimate(
    upstream: Upstream, protocol: str
) -> None:
    told: dict[str, Any] = {"model": "assistant", "system": "Be short.", "tools": TOOLS, "messages": ASKED}

    async def body() -> None:
        async with asking(upstream, protocol) as (client, _):
            count: Any = await client.messages.count_tokens(**told)
            if protocol == "anthropic":
                assert (count.input_tokens, count.estimated) == (17, False)
                heard = upstream.heard[-1]
                assert heard.path.endswith("/v1/messages/count_tokens")
                assert (heard.json["model"], heard.json["system"][0]["text"]) == ("tiny", "Be short.")
                assert "max_tokens" not in heard.json
                upstream.then(Script(status=404), Script(body=b'{"input_tokens": -1}'), Script(status=500))
            for _ in range(3):
                count = await client.messages.count_tokens(**told)
                assert count.estimated is True
                assert 20 < count.input_tokens < 100
            longer = await client.messages.count_tokens(**{**told, "system": "Be short. " * 100})
            assert protocol == "anthropic" or longer.input_tokens > count.input_tokens + 300
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.count_tokens(**{**told, "model": "other"})
            with pytest.raises(anthropic.BadRequestError, match="no messages"):
                await client.messages.count_tokens(**{**told, "model": "embedder"})

    asyncio.run(body())
