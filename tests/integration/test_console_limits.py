"""What the control plane's server bears, over real sockets, and how an ASGI application is spoken to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from kit.waiting import free_port, wait_until_async
from mainspring.console.server import LIMITS, MAX_BODY_BYTES, serve
from mainspring.core.settings import Address, Limits

ASK = b"GET /a%20b?x=%31 HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nx-two: 2\r\n\r\n"


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with what was asked."""
    if scope["path"] == "/fails":
        raise RuntimeError("on purpose")
    if scope["path"] == "/unchanged":
        await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", b'"a"')]})
        await send({"type": "http.response.body"})
        return
    if scope["path"] == "/waits":
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        LEFT.append(scope["client"])
        return
    message = await receive()
    shown = {name: value for name, value in scope.items() if name not in ("headers", "client")}
    shown["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    shown["body"] = message["body"].decode()
    content = json.dumps(shown, default=lambda value: value.decode()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": content[:10], "more_body": True})
    await send({"type": "http.response.body", "body": content[10:]})


LEFT: list[Any] = []


@asynccontextmanager
async def serving(limits: Limits = LIMITS) -> AsyncIterator[int]:
    stop, started, port = asyncio.Event(), asyncio.Event(), free_port()
    task = asyncio.create_task(serve(echo, Address("127.0.0.1", port), limits=limits, stop=stop, started=started.set))
    await started.wait()
    try:
        yield port
    finally:
        stop.set()
        await task


def _say(port: int, *parts: bytes) -> bytes:
    """Return all that comes back until the other side closes, or the whole answer is there."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
        for part in parts:
            try:
                peer.sendall(part)
            except ConnectionError:
                break
        heard = b""
        while b"\r\n\r\n" not in heard:
            got = peer.recv(65_536)
            if not got:
                break
            heard += got
        head, _, body = heard.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        while len(body) < int(length or 0):
            body += peer.recv(65_536)
        return head + b"\r\n\r\n" + body


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_an_application_is_told_what_was_asked_and_its_answer_is_sent() -> None:
    async def talk() -> None:
        async with serving() as port:
            answer = await asyncio.to_thread(_say, port, ASK)
            told = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert _status(answer) == 201
            assert answer.lower().count(b"content-length") == 1
            assert (told["type"], told["method"], told["scheme"]) == ("http", "GET", "http")
            assert (told["path"], told["raw_path"], told["query_string"]) == ("/a b", "/a%20b", "x=%31")
            assert told["headers"] == [["host", "a"], ["x-two", "1"], ["x-two", "2"]]
            post = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"
            answer = await asyncio.to_thread(_say, port, post, b"3\r\nllo\r\n0\r\n\r\n")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == "hello"
            answer = await asyncio.to_thread(_say, port, b"GET /unchanged HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (_status(answer), b"content-length" in answer) == (304, False)

    asyncio.run(talk())


def test_an_application_that_fails_is_a_500_and_one_whose_caller_left_is_told(caplog: Any) -> None:
    async def talk() -> None:
        async with serving() as port:
            assert _status(await asyncio.to_thread(_say, port, b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n")) == 500
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n")
            await writer.drain()
            mine = writer.get_extra_info("sockname")
            writer.close()
            await writer.wait_closed()
            await wait_until_async(lambda: mine in LEFT, "the request to be let go of")

    asyncio.run(talk())
    assert "on purpose" in caplog.text


def test_silent_connections_and_endless_heads_hold_nothing() -> None:
    async def talk() -> None:
        async with serving() as port:
            silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(LIMITS.connections + 50)]
            dripping = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            for each in dripping:
                each.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n")
            try:
                assert _status(await asyncio.to_thread(_say, port, ASK)) == 201
            finally:
                for each in (*silent, *dripping):
                    each.close()
            many = b"".join(b"x-%d: 1\r\n" % number for number in range(200))
            large = b"x-a: " + b"a" * (LIMITS.header_bytes + 1) + b"\r\n"
            for lines in (many, large):
                answer = await asyncio.to_thread(_say, port, b"GET / HTTP/1.1\r\nHost: a\r\n" + lines, b"\r\n")
                assert _status(answer) == 431

    asyncio.run(talk())


@pytest.mark.parametrize("framing", [b"Content-Length: 70000", b"Transfer-Encoding: chunked"])
def test_a_body_is_bounded_before_anybody_is_asked(framing: bytes) -> None:
    async def talk() -> None:
        async with serving() as port:
            body = b"" if b"Length" in framing else b"%x\r\n%b\r\n" % (MAX_BODY_BYTES + 1, b"a" * (MAX_BODY_BYTES + 1))
            head = b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n"
            assert _status(await asyncio.to_thread(_say, port, head, body)) == 413

    asyncio.run(talk())


def test_a_webhooks_delivery_may_be_larger_and_takes_no_room_of_others() -> None:
    async def talk() -> None:
        async with serving() as port:
            head = b"POST /api/webhooks/main HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
            told = await asyncio.to_thread(_say, port, head % 1_000_000, b"a" * 1_000_000)
            assert (_status(told), len(json.loads(told.partition(b"\r\n\r\n")[2])["body"])) == (201, 1_000_000)
            assert _status(await asyncio.to_thread(_say, port, head % (1 << 21))) == 413
            slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
            try:
                for each in slow:
                    each.sendall(head % (1 << 20))
                small = await asyncio.to_thread(_say, port, head % MAX_BODY_BYTES, b"a" * MAX_BODY_BYTES)
                assert _status(small) == 201
                assert _status(await asyncio.to_thread(_say, port, head % (1 << 20))) == 503
            finally:
                for each in slow:
                    each.close()

    asyncio.run(talk())


def test_who_is_slow_is_cut_off() -> None:
    async def talk() -> None:
        async with serving(replace(LIMITS, idle_us=200_000, body_us=200_000)) as port:
            slow_head = await asyncio.to_thread(_say, port, b"GET / HTTP/1.1\r\nHost: a\r\n")
            assert _status(slow_head) == 408
            slow_body = await asyncio.to_thread(_say, port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            assert _status(slow_body) == 408
            with socket.create_connection(("127.0.0.1", port)) as silent:
                assert await asyncio.to_thread(silent.recv, 100) == b""

    asyncio.run(talk())


def test_bodies_that_do_not_arrive_take_no_room_of_others() -> None:
    async def talk() -> None:
        async with serving() as port:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
            slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
            try:
                for each in slow:
                    each.sendall(head % MAX_BODY_BYTES)
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
                assert _status(await reader.readuntil(b"\r\n\r\n")) == 100
                writer.write(b"ok")
                assert _status(await reader.readuntil(b"\r\n\r\n")) == 201
                writer.close()
                await writer.wait_closed()
            finally:
                for each in slow:
                    each.close()

    asyncio.run(talk())


def test_one_connection_asks_again_before_it_is_answered_and_waits_for_a_word_before_a_body() -> None:
    async def talk() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            announced = b"POST /c HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            writer.write(ASK.replace(b"GET", b"HEAD") + ASK + announced)
            heads = [await reader.readuntil(b"\r\n\r\n") for _ in range(2)]
            lengths = [int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]) for head in heads]
            assert json.loads(await reader.readexactly(lengths[1]))["method"] == "GET"
            assert lengths[0] == lengths[1] + len("HEAD") - len("GET")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(b"ok")
            assert _status(await reader.readuntil(b"\r\n\r\n")) == 201
            writer.close()
            await writer.wait_closed()

    asyncio.run(talk())
