"""Hostile and broken callers and upstreams, over HTTP to one gateway: bounded, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from kit.depth import examples
from kit.language_process import LanguageProcess, started
from kit.later import later
from kit.scripted_upstream import Script, Upstream, scripted
from kit.waiting import wait_until

openai = later("openai")

MIB = 1 << 20
ASKED: list[Any] = [{"role": "user", "content": "When does it leave?"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with scripted() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_left(upstream: Upstream) -> Iterator[None]:
    yield
    assert upstream.unused == 0
    upstream.usual = Script()


@pytest.fixture(scope="module")
def gateway(upstream: Upstream) -> Iterator[LanguageProcess]:
    with started(upstream.url) as running:
        yield running


PLAIN = httpx.Client(trust_env=False, verify=False, timeout=60)


def post(gateway: LanguageProcess, body: Any, path: str = "/chat/completions") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    return PLAIN.post(gateway.url + path, content=content, headers=headers)


@asynccontextmanager
async def asking(gateway: LanguageProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http) as client:
        yield client


def connected(gateway: LanguageProcess) -> socket.socket:
    parts = urlsplit(gateway.url)
    made = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def head(gateway: LanguageProcess, *lines: str) -> bytes:
    return "\r\n".join(
        [
            "POST /v1/chat/completions HTTP/1.1",
            "host: 127.0.0.1",
            f"authorization: Bearer {gateway.key}",
            *lines,
            "",
            "",
        ]
    ).encode()


# Callers


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_mb_is_refused_before_it_is_read(gateway: LanguageProcess, chunked: bool) -> None:
    before, sent, told = gateway.resident(), 0, b""
    with connected(gateway) as caller:
        caller.sendall(head(gateway, "transfer-encoding: chunked" if chunked else f"content-length: {100 * MIB}"))
        part = b"x" * 65536
        with suppress(OSError):
            while sent < 100 * MIB:
                caller.sendall(b"10000\r\n" + part + b"\r\n" if chunked else part)
                sent += len(part)
        with suppress(OSError):
            told = caller.recv(65536)
    assert told.startswith(b"HTTP/1.1 413 ")  # the rest is read, and thrown away, for a moment: so the caller hears it
    assert gateway.resident() - before < 32 * MIB


def test_a_head_that_never_ends_is_refused(gateway: LanguageProcess) -> None:
    before, sent, told = gateway.resident(), 0, b""
    with connected(gateway) as caller:
        caller.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        with suppress(OSError):
            while sent < 64 * MIB:
                caller.sendall(b"x-%d: " % sent + b"a" * 8000 + b"\r\n")
                sent += 8000
        with suppress(OSError):
            told = caller.recv(65536)
    assert told.startswith(b"HTTP/1.1 431 ")
    assert gateway.resident() - before < 32 * MIB


@pytest.mark.parametrize("model", ["assistant", "cached"])
def test_fifty_streams_at_once_are_each_whole_and_their_own(
    gateway: LanguageProcess, upstream: Upstream, model: str
) -> None:
    upstream.usual = Script(echo=15, between_s=0.001)

    async def ask(client: openai.AsyncOpenAI, number: int) -> tuple[str, str | None]:
        stream = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": f"q{number}"}], stream=True
        )
        text, finish = "", None
        async for chunk in stream:
            for choice in chunk.choices:
                text, finish = text + (choice.delta.content or ""), choice.finish_reason or finish
        return text, finish

    async def body() -> None:
        async with asking(gateway) as client:
            got = await asyncio.gather(*(ask(client, number) for number in range(50)))
        assert got == [("".join(f"q{number}:{word} " for word in range(15)), "stop") for number in range(50)]

    asyncio.run(body())


@pytest.mark.parametrize("model", ["assistant", "cached"])
def test_a_caller_that_hardly_reads_piles_nothing_up_and_is_left(
    gateway: LanguageProcess, upstream: Upstream, model: str
) -> None:
    before, heard = gateway.resident(), len(upstream.heard)
    upstream.then(Script(words=("word " * 2000,), endless=True))
    body = json.dumps({"model": model, "messages": ASKED, "stream": True}).encode()
    with connected(gateway) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.sendall(head(gateway, f"content-length: {len(body)}") + body)
        wait_until(lambda: len(upstream.heard) > heard, "the upstream to be asked")
        for _ in range(3):
            assert caller.recv(1)
            time.sleep(0.1)
        assert upstream.heard[-1].left.wait(20)
    assert upstream.heard[-1].sent < 16 * MIB  # most of it in buffers of sockets
    assert gateway.resident() - before < 48 * MIB


def test_a_slow_reader_gets_no_more_time_than_an_answer_has(gateway: LanguageProcess, upstream: Upstream) -> None:
    upstream.then(Script(words=("word " * 200,), endless=True))
    body = json.dumps({"model": "brief", "messages": ASKED, "stream": True}).encode()
    with connected(gateway) as caller:
        caller.sendall(head(gateway, f"content-length: {len(body)}") + body)
        begun, told = time.monotonic(), b""
        while part := caller.recv(1 << 17):
            told = (told + part)[-2000:]
            assert time.monotonic() - begun < 20
            time.sleep(0.05)
            if told.endswith(b"0\r\n\r\n"):
                break
    assert b"did not go on with its answer in time" in told


def test_a_prompt_of_a_million_tokens_holds_nobody_up(gateway: LanguageProcess, upstream: Upstream) -> None:
    body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "word " * 1_000_000}]}).encode()
    slowest, over, told = 0.0, False, list[httpx.Response]()

    def watch() -> None:
        nonlocal slowest
        with httpx.Client(trust_env=False, headers={"authorization": f"Bearer {gateway.key}"}) as plain:
            while not over:
                begun = time.monotonic()
                assert plain.get(gateway.url + "/models").status_code == 200
                slowest = max(slowest, time.monotonic() - begun)

    beside = Thread(target=watch)
    beside.start()
    try:
        told.append(post(gateway, body))
    finally:
        over = True
        beside.join()
    assert told[0].status_code == 200
    assert len(upstream.heard[-1].body) > 5_000_000
    assert slowest < 1.0
    assert post(gateway, body.replace(b"word ", b"word wxyz ")).status_code == 413


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (r"\u202eevil\u202c", 200),
        (r"\u0000", 200),
        (r"\ud83d\ude00", 200),
        (r"\ud83d", 400),
        (r"\ude00\ud83d", 400),
        ("\ufeff\u200b\U000e0041", 200),
        ("e" + "\u0301" * 5000, 200),
    ],
)
@pytest.mark.parametrize("place", ["content", "model", "role"])
def test_tricks_with_unicode_pass_as_they_are_or_are_refused(
    gateway: LanguageProcess, upstream: Upstream, text: str, status: int, place: str
) -> None:
    asked = {"model": "assistant", "role": "user", "content": "x", place: "<text>"}
    body = json.dumps(
        {"model": asked["model"], "messages": [{"role": asked["role"], "content": asked["content"]}]}
    ).replace("<text>", text)
    told = post(gateway, body.encode())
    assert told.status_code == status if place == "content" else told.status_code in (400, 403, 404), told.text
    assert "internal" not in told.text
    if told.status_code == 200:
        assert upstream.heard[-1].json["messages"][0]["content"] == json.loads(f'"{text}"')


def test_a_tool_that_never_returns_holds_nothing(gateway: LanguageProcess, upstream: Upstream) -> None:
    connections = upstream.connections
    for _ in range(20):
        upstream.then(Script(words=(), calls={"search": "{}"}))
        told = post(gateway, {**ASKING, "stream": True})  # the caller waits for its tool, and never comes back
        assert told.text.endswith("data: [DONE]\n\n")
    assert upstream.connections <= connections + 1
    call = {"id": "c", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    without = [*ASKED, {"role": "assistant", "tool_calls": [call]}, *ASKED]
    assert post(gateway, {"model": "assistant", "messages": without}).status_code == 200
    assert [each["role"] for each in upstream.heard[-1].json["messages"]] == ["user", "assistant", "user"]


# Upstreams

WHOLE = b'{"choices":[{"message":{"content":%b},"finish_reason":"stop"}],"usage":%b,"created":%b}'
PIECE = b'{"choices":[{"delta":{"content":%b},"finish_reason":"stop"}],"usage":%b,"created":%b}'
BROKEN = {
    "invalid UTF-8": (b'"\xff\xfe"', b"null", b"0"),
    "a lone surrogate": (rb'"\ud83d"', b"null", b"0"),
    "NaN": (b'"a"', b"null", b"NaN"),
    "too large a float": (b'"a"', b"null", b"1e999"),
    "a large float": (b'"a"', b"null", b"1e300"),
    "a large number": (b'"a"', b'{"prompt_tokens":1%b}' % (b"0" * 400), b"0"),
    "a count that cannot be": (b'"a"', b'{"prompt_tokens":-5,"completion_tokens":9223372036854775807}', b"0"),
    "deep nesting": (b"[" * 100_000, b"null", b"0"),
    "a deep field that is not known": (b'"a","x":' + b"[" * 5000 + b"]" * 5000, b"null", b"0"),
    "text that is none": (b'{"a":1}', b"null", b"0"),
    "a key twice": (b'"a","content":"b"', b"null", b"0"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/chat/completions", "/messages", "/responses"])
def test_an_upstream_that_answers_nonsense_is_an_error_of_its_own(
    gateway: LanguageProcess, upstream: Upstream, path: str, stream: bool
) -> None:
    asked = {"model": "assistant", "messages": ASKED, "input": "When?", "max_tokens": 5, "stream": stream}
    asked = {name: asked[name] for name in asked if name in _FIELDS[path]}
    for name, parts in BROKEN.items():
        answer = (PIECE if stream else WHOLE) % parts
        upstream.then(Script(body=b"data: %b\n\ndata: [DONE]\n\n" % answer if stream else answer))
        told = post(gateway, asked, path)
        assert "internal" not in told.text, name
        assert told.status_code in (200, 502), (name, told.text)
        if told.status_code == 200 and "error" not in told.text:
            for line in told.text.splitlines():
                data = line.removeprefix("data: ") if stream else line
                if data.startswith("{"):
                    json.loads(data, parse_constant=_no_number)
    assert post(gateway, ASKING).status_code == 200


ASKING = {"model": "assistant", "messages": ASKED}
_FIELDS = {
    "/chat/completions": ("model", "messages", "stream"),
    "/messages": ("model", "messages", "stream", "max_tokens"),
    "/responses": ("model", "input", "stream"),
}


def _no_number(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("part", [b"x" * MIB, b"data: " + b"x" * 4000 + b"\n", b": " + b"y" * 4000 + b"\n\n"])
def test_a_stream_without_events_ends_in_bounded_memory(
    gateway: LanguageProcess, upstream: Upstream, part: bytes
) -> None:
    before = gateway.resident()
    upstream.then(Script(flood=(part, examples(gate=64, deep=1024) * MIB)))
    told = post(gateway, {"model": "brief", "messages": ASKED, "stream": True})
    assert told.status_code in (502, 504)
    assert gateway.resident() - before < 48 * MIB


def test_an_answer_of_a_gigabyte_is_not_kept(gateway: LanguageProcess, upstream: Upstream) -> None:
    before = gateway.resident()
    upstream.then(Script(flood=(b"x" * MIB, 1024 * MIB)))
    told = post(gateway, {"model": "assistant", "messages": ASKED})
    assert told.status_code == 502
    assert upstream.heard[-1].sent < 192 * MIB
    assert gateway.resident() - before < 128 * MIB


@pytest.mark.parametrize("model", ["brief", "cached"])
def test_a_stream_that_is_cut_is_an_error_for_the_caller(
    gateway: LanguageProcess, upstream: Upstream, model: str
) -> None:
    async def body() -> None:
        async with asking(gateway) as client:
            for script in (Script(breaks_after=3), Script(done=False), Script(words=("a", "b"), between_s=9)):
                if script.between_s and model != "brief":
                    continue
                upstream.then(script)
                stream = await client.chat.completions.create(model=model, messages=ASKED, stream=True)
                with pytest.raises(openai.APIError):
                    _ = [chunk async for chunk in stream]

    asyncio.run(body())
