"""The `openai` client against a gateway, and a gateway against upstreams of every behaviour."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import httpx
import pytest

from kit.language_gateway import LanguageGateway, language_gateway, language_model
from kit.later import later
from kit.scripted_upstream import WORDS, Script, Upstream, scripted
from kit.serving import Kit
from kit.waiting import free_port, wait_until_async
from mainspring.core.settings import Limits, UpstreamServer
from mainspring.security.model import KeyScope

openai = later("openai")

ASKED: list[Any] = [{"role": "user", "content": "When does it leave?"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "timetable", "description": "Times", "parameters": {"type": "object"}, "strict": True},
}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with scripted() as found:
        yield found


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@asynccontextmanager
async def asking(upstream: Upstream, **more: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, LanguageGateway]]:
    servers = {"local": UpstreamServer("local", upstream.url, key="up-key")}
    async with language_gateway(servers, *more.pop("models", ()), **more) as gateway:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(
            api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http
        ) as client:
            yield client, gateway


async def _read(answer: Awaitable[Any]) -> list[Any]:
    found = await answer
    return [chunk async for chunk in found] if isinstance(found, openai.AsyncStream) else [found]


async def _ready(value: Any) -> Any:
    return value


async def error_of(call: Awaitable[Any]) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        await call
    return caught.value


@on_a_loop
async def test_an_answer_and_what_the_upstream_was_asked(upstream: Upstream) -> None:
    async with asking(upstream) as (client, _):
        told = await client.chat.completions.create(
            model="assistant",
            messages=[{"role": "developer", "content": "Be short."}, *ASKED],
            temperature=0.5,
            max_completion_tokens=50,
            stop="\n",
            user="ana",
            extra_body={"top_k": 7, "stream_options": {"include_obfuscation": False}},
        )
    assert told.choices[0].message.content == "".join(WORDS)
    assert told.system_fingerprint == "fp_1"  # the upstream's own bytes
    assert told.usage is not None
    assert (told.usage.prompt_tokens, told.usage.completion_tokens) == (11, 5)
    (heard,) = upstream.heard
    assert heard.headers["authorization"] == "Bearer up-key"
    assert heard.json == {
        "model": "tiny",
        "messages": [{"role": "developer", "content": "Be short."}, *ASKED],
        "temperature": 0.5,
        "max_completion_tokens": 50,
        "stop": ["\n"],
        "user": "ana",
        "top_k": 7,
    }


@on_a_loop
async def test_a_stream_comes_as_the_upstream_gave_it_with_usage_only_if_it_was_asked_for(upstream: Upstream) -> None:
    async with asking(upstream) as (client, _):
        for wanted in (False, True):
            more: Any = {"stream_options": {"include_usage": True}} if wanted else {}
            stream = await client.chat.completions.create(model="assistant", messages=ASKED, stream=True, **more)
            chunks = [chunk async for chunk in stream]
            words = [
                chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content
            ]
            assert words == list(WORDS)
            assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
            assert [chunk.usage.prompt_tokens for chunk in chunks if chunk.usage] == ([11] if wanted else [])
            assert upstream.heard[-1].json["stream_options"] == {"include_usage": True}
    assert upstream.connections == 1  # it is kept


@on_a_loop
async def test_tools_go_there_and_their_calls_come_back(upstream: Upstream) -> None:
    script = Script(words=(), calls={"timetable": '{"city": "Ulm"}', "weather": "{}"})
    upstream.then(script, script)
    asked: list[Any] = [
        *ASKED,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "timetable", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "9:00"}]},
    ]
    async with asking(upstream) as (client, _):
        how: dict[str, Any] = {"model": "assistant", "messages": asked, "tools": [TOOL], "tool_choice": "required"}
        told = await client.chat.completions.create(**how, parallel_tool_calls=False)
        calls = told.choices[0].message.tool_calls or []
        assert [(call.id, call.function.name) for call in calls if call.type == "function"] == [
            ("call_0", "timetable"),
            ("call_1", "weather"),
        ]
        async with client.chat.completions.stream(**how) as stream:
            final = await stream.get_final_completion()
    assert [json.loads(each.function.arguments) for each in final.choices[0].message.tool_calls or []] == [
        {"city": "Ulm"},
        {},
    ]
    heard = upstream.heard[0].json
    assert heard["messages"][1:] == [
        asked[1],
        {"role": "tool", "tool_call_id": "c", "content": "9:00"},
    ]
    assert (heard["tools"], heard["tool_choice"], heard["parallel_tool_calls"]) == ([TOOL], "required", False)


@on_a_loop
async def test_the_synchronous_client_is_answered_as_well(upstream: Upstream) -> None:
    def ask(gateway: LanguageGateway) -> tuple[str, str, list[str]]:
        http = openai.DefaultHttpxClient(trust_env=False)
        with openai.OpenAI(api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http) as client:
            whole = client.chat.completions.create(model="assistant", messages=ASKED)
            stream = client.chat.completions.create(model="assistant", messages=ASKED, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            return whole.choices[0].message.content or "", text, [each.id for each in client.models.list()]

    async with asking(upstream) as (_, gateway):
        whole, text, models = await asyncio.to_thread(ask, gateway)
    assert whole == text == "".join(WORDS)
    assert models == ["assistant", "embedder"]


@on_a_loop
async def test_vectors_of_texts_in_both_encodings(upstream: Upstream) -> None:
    async with asking(upstream) as (client, _):
        for encoding in ("float", "base64"):
            told = await client.embeddings.create(
                model="embedder",
                input=["ab", "abcd"],
                encoding_format=encoding,
                dimensions=3,  # type: ignore[arg-type]
            )
            assert sorted((each.index, tuple(each.embedding)) for each in told.data) == [
                (0, (2.0, 0.5, -1.0)),
                (1, (4.0, 0.5, -1.0)),
            ]
        assert upstream.heard[-1].json["dimensions"] == 3
        assert (await error_of(client.embeddings.create(model="assistant", input="a"))).status_code == 400
        assert (await error_of(client.embeddings.create(model="embedder", input=[]))).status_code == 400


@pytest.mark.parametrize(
    ("script", "raised", "names"),
    [
        (Script(status=400, error="Too long."), "BadRequestError", "Too long."),
        (Script(status=422, error="No."), "UnprocessableEntityError", "No."),
        (Script(status=401, error="Bad key up-key."), "InternalServerError", "status 401"),
        (Script(status=404), "InternalServerError", "status 404"),
        (Script(status=429, headers={"retry-after": "7"}), "RateLimitError", "status 429"),
        (Script(status=500, error="Secret host x."), "InternalServerError", "status 500"),
        (Script(body=b"{no json"), "InternalServerError", "no valid answer"),
        (Script(body=b"[]"), "InternalServerError", "no valid answer"),
        (Script(body=b'{"choices": 3}'), "InternalServerError", "no valid answer"),
        (Script(body=b'{"error": {"message": "CUDA", "code": 500}}'), "InternalServerError", "status 500"),
        (Script(breaks_after=9), "InternalServerError", "closed the connection"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_of_an_upstream_are_those_of_the_client(
    upstream: Upstream, script: Script, raised: str, names: str, stream: bool
) -> None:
    if stream and script.breaks_after:
        script = Script(before_s=0.0, body=b"", done=False)  # a stream without an event
        names = "in the middle"
    elif stream and script.body is not None:
        script = Script(body=b"data: " + script.body + b"\n\n")

    async def body() -> None:
        upstream.then(script)
        async with asking(upstream) as (client, _):
            error = await error_of(client.chat.completions.create(model="assistant", messages=ASKED, stream=stream))
            assert type(error).__name__ == raised
            assert names in error.message
            for secret in ("up-key", "Secret", "CUDA"):
                assert secret not in str(error.response.content)
            if script.status == 429:
                assert error.response.headers["retry-after"] == "7"
                again = await error_of(client.chat.completions.create(model="assistant", messages=ASKED))
                assert type(again).__name__ == raised  # without a look at the upstream, which wants to be left alone
                assert len(upstream.heard) == 1
                return
            if script.status == 400:
                assert (error.code, error.param, error.type) == ("some_code", "model", "some_error")
            whole = await client.chat.completions.create(model="assistant", messages=ASKED)
            assert whole.choices[0].finish_reason == "stop"  # nothing of the failure is left

    asyncio.run(body())


@pytest.mark.parametrize(
    ("script", "names"),
    [
        (Script(breaks_after=3), "closed the connection"),
        (Script(error_after=2), "status 500"),
        (Script(done=False), "in the middle"),
        (Script(between_s=5.0), "did not go on"),
        (Script(endless=True, between_s=0.02), "did not go on"),
        (
            Script(body=b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: {"choices": 3}\n\n'),
            "no valid",
        ),
    ],
)
@on_a_loop
async def test_a_stream_that_breaks_ends_with_an_error(upstream: Upstream, script: Script, names: str) -> None:
    upstream.then(script)
    limits = dict.fromkeys(("between_events", "first_event", "deadline"), "1500ms" if script.endless else "20s")
    if script.between_s and not script.endless:
        limits["between_events"] = "300ms"
    heard = []

    async def read() -> None:
        async for chunk in await client.chat.completions.create(model="assistant", messages=ASKED, stream=True):
            heard.append(chunk)

    async with asking(upstream, models=(language_model(**limits),)) as (client, _):
        with pytest.raises(openai.APIError, match=names):
            await read()
        assert heard
        if script.between_s:
            await wait_until_async(upstream.heard[0].left.is_set, "the upstream to be left")


@pytest.mark.parametrize("script", [Script(before_s=5.0), Script(first_s=5.0)])
@pytest.mark.parametrize("stream", [False, True])
@on_a_loop
async def test_a_first_token_that_is_late_is_an_error_and_the_upstream_is_left(
    upstream: Upstream, script: Script, stream: bool
) -> None:
    upstream.then(Script(before_s=5.0) if not stream else script)
    models = (language_model(between_events="300ms", first_event="300ms", deadline="600ms"),)
    async with asking(upstream, models=models) as (client, _):
        with pytest.raises(openai.APIError) as caught:
            await _read(client.chat.completions.create(model="assistant", messages=ASKED, stream=stream))
        if script.before_s or not stream:  # else the head of the stream, which is an event, was there in time
            assert isinstance(caught.value, openai.APIStatusError)
            assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
        assert "did not go on" in caught.value.message
        await wait_until_async(upstream.heard[0].left.is_set, "the upstream to be left")


@on_a_loop
async def test_an_upstream_that_is_not_there_is_said_to_be_unreachable() -> None:
    servers = {"local": UpstreamServer("local", f"http://127.0.0.1:{free_port()}/v1")}
    async with language_gateway(servers) as gateway, httpx.AsyncClient(trust_env=False) as plain:
        error = await plain.post(
            f"{gateway.url}/chat/completions",
            json={"model": "assistant", "messages": ASKED},
            headers={"authorization": f"Bearer {gateway.key}"},
        )
    assert error.status_code == 503
    assert "127.0.0.1" not in error.text


@on_a_loop
async def test_a_caller_that_leaves_ends_the_upstreams_work(upstream: Upstream) -> None:
    upstream.then(Script(endless=True, between_s=0.01), Script(before_s=30.0))
    async with asking(upstream) as (client, gateway):
        stream = await client.chat.completions.create(model="assistant", messages=ASKED, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await wait_until_async(upstream.heard[0].left.is_set, "the upstream to be left")
        waiting = asyncio.create_task(client.chat.completions.create(model="assistant", messages=ASKED))
        await wait_until_async(lambda: len(upstream.heard) == 2, "the second request")
        waiting.cancel()
        await wait_until_async(upstream.heard[1].left.is_set, "the upstream to be left again")
        assert len(gateway.kit.surface._streams) == 0


@on_a_loop
async def test_who_asks_and_for_what_is_checked_before_anything_else(upstream: Upstream) -> None:
    async with asking(upstream) as (client, gateway):
        for key, raised in (
            ("msp_nobody", openai.AuthenticationError),
            (gateway.kit.key(KeyScope.SCRAPE).removeprefix("Bearer "), openai.PermissionDeniedError),
        ):
            other = client.with_options(api_key=key)
            for call in (
                other.chat.completions.create(model="assistant", messages=ASKED),
                other.chat.completions.create(model="none", messages=ASKED, stream=True),
                other.embeddings.create(model="embedder", input="a"),
            ):
                error = await error_of(call)
                assert type(error) is raised
                assert error.code == ("invalid_api_key" if raised is openai.AuthenticationError else None)
        assert (
            type(await error_of(client.chat.completions.create(model="none", messages=ASKED))) is openai.NotFoundError
        )
        assert (await client.models.retrieve("assistant")).id == "assistant"
        assert type(await error_of(client.models.retrieve("none"))) is openai.NotFoundError
        async with httpx.AsyncClient(trust_env=False) as plain:
            assert (await plain.get(f"{gateway.url}/models")).json()["error"]["type"] == "authentication_error"
            named = await plain.get(f"{gateway.url}/models", headers={"x-api-key": gateway.key})
            assert [each["id"] for each in named.json()["data"]] == ["assistant", "embedder"]
            other_route = await plain.get(f"{gateway.url}/../v2", headers={"x-api-key": gateway.key})
            assert other_route.status_code == 401  # only where clients cannot send another header
    assert upstream.heard == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[]", None),
        (b'{"model": "assistant"}', None),
        (b'{"model": "assistant", "messages": []}', "messages"),
        (b'{"model": 3, "messages": [{"role": "user"}]}', "model"),
        (b'{"model": "assistant", "messages": [{"role": "owner"}]}', "messages[0].role"),
        (
            b'{"model": "assistant", "messages": [{"role": "user", "content": [{"type": 1}]}]}',
            "messages[0].content[0].type",
        ),
        (
            b'{"model": "assistant", "messages": [{"role": "user"}], "tools": [{"type": "function"}]}',
            "tools[0].function",
        ),
        (b'{"model": "assistant", "messages": [{"role": "user"}], "temperature": "hot"}', "temperature"),
        (b'{"model": "assistant", "messages": [{"role": "user", "content": "\xff"}]}', None),
        (b'{"model": "assistant", "messages": ' + b"[" * 5000, None),
    ],
)
@on_a_loop
async def test_a_body_that_is_wrong_is_refused_by_the_field(upstream: Upstream, body: bytes, param: str | None) -> None:
    async with asking(upstream) as (_, gateway), httpx.AsyncClient(trust_env=False) as plain:
        headers = {"authorization": f"Bearer {gateway.key}"}
        told = await plain.post(f"{gateway.url}/chat/completions", content=body, headers=headers)
        assert told.status_code == 400
        assert told.json()["error"]["type"] == "invalid_request_error"
        assert told.json()["error"]["param"] == param
    assert upstream.heard == []


@on_a_loop
async def test_a_stream_that_is_under_way_at_the_end_is_finished_or_says_that_it_is_not(upstream: Upstream) -> None:
    upstream.then(Script(between_s=0.05), Script(endless=True, between_s=0.05))
    kit = Kit(limits=Limits(drain_us=1_500_000))
    async with asking(upstream, kit=kit) as (client, gateway):
        short, long = [
            await client.chat.completions.create(model="assistant", messages=ASKED, stream=True) for _ in range(2)
        ]
        gateway.stop.set()
        words = [chunk.choices[0].delta.content async for chunk in short if chunk.choices]
        assert [word for word in words if word] == list(WORDS)
        with pytest.raises(openai.APIError, match="stopping"):
            await _read(_ready(long))


@pytest.mark.parametrize(
    "endless", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: "]
)
@on_a_loop
async def test_a_head_that_never_ends_is_refused_before_it_fills_the_memory(endless: bytes) -> None:
    sent = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(endless)
        try:
            while sent < 64 << 20:
                writer.write(b"a" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    servers = {"local": UpstreamServer("local", url)}
    async with server, language_gateway(servers) as gateway, httpx.AsyncClient(trust_env=False) as plain:
        told = await plain.post(
            f"{gateway.url}/chat/completions",
            json={"model": "assistant", "messages": ASKED},
            headers={"authorization": f"Bearer {gateway.key}"},
        )
    assert told.status_code == 502
    assert "head is larger" in told.text
    assert sent < 16 << 20


@on_a_loop
async def test_a_refusal_of_an_upstream_tells_neither_its_key_nor_its_address(upstream: Upstream) -> None:
    upstream.then(Script(status=400, error=f"No up-key at {upstream.url}: {'x' * 100_000}"))
    async with asking(upstream) as (client, _):
        error = await error_of(client.chat.completions.create(model="assistant", messages=ASKED))
    assert error.message.startswith("Error code: 400")
    shown = error.response.text
    assert "No [...] at [...]: xxx" in shown
    assert len(shown) < 5000
