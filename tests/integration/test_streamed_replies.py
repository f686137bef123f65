"""Replies in parts over real sockets: whole, to slow readers, to readers that leave, and broken off."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from kit.waiting import wait_until_async
from mainspring.core.settings import Limits
from mainspring.serving.http.acceptor import Acceptor
from mainspring.serving.http.message import Request

ASK = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
Parts = Callable[[], AsyncGenerator[bytes, None]]


class Server:
    """Answers each request with the parts that a function gives."""

    def __init__(self, parts: Parts, limits: Limits) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.acceptor = Acceptor(
            self.listener, self._handle, unreadable=lambda _: None, max_body_bytes=1 << 20, limits=limits
        )
        self.tasks: list[asyncio.Task[None]] = []
        self._parts = parts

    def _handle(self, request: Request) -> None:
        task = asyncio.get_running_loop().create_task(request.stream(200, (("x-a", "1"),), self._parts()))
        request.on_leave = task.cancel
        self.tasks.append(task)


@asynccontextmanager
async def serving(parts: Parts, limits: Limits | None = None) -> AsyncIterator[Server]:
    server = Server(parts, limits or Limits())
    server.acceptor.start()
    try:
        yield server
    finally:
        await server.acceptor.close(0)
        await asyncio.gather(*server.tasks, return_exceptions=True)
        server.listener.close()


async def heard(server: Server, sent: bytes, until: bytes = b"") -> bytes:
    """Return what comes back, to the end of the connection or to these bytes."""
    reader, writer = await asyncio.open_connection(*server.listener.getsockname(), limit=1 << 28)
    writer.write(sent)
    async with asyncio.timeout(20):
        try:
            found = await (reader.readuntil(until) if until else reader.read())
        except asyncio.IncompleteReadError as cut:
            found = cut.partial
    writer.close()
    return found


async def few() -> AsyncGenerator[bytes, None]:
    for part in (b"one", b"", b"four" * 5):
        await asyncio.sleep(0)
        yield part


def test_parts_are_chunks_and_the_next_request_is_answered_after_them() -> None:
    async def body() -> None:
        async with serving(few) as server:
            once = b"\r\n\r\n3\r\none\r\n14\r\n" + b"four" * 5 + b"\r\n0\r\n\r\n"
            twice = (await heard(server, ASK + ASK, once + b"HTTP/1.1")).partition(b"\r\n")
            assert twice[0] == b"HTTP/1.1 200 OK"
            found = await heard(server, ASK, b"0\r\n\r\n")
            assert found.endswith(once)
            assert b"\r\ntransfer-encoding: chunked\r\n" in found
            assert b"\r\nx-a: 1\r\n" in found
            assert b"connection: close" not in found

    asyncio.run(body())


def test_a_peer_of_http_1_0_reads_to_the_end_of_the_connection() -> None:
    async def body() -> None:
        async with serving(few) as server:
            found = await heard(server, b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n")
            assert found.endswith(b"connection: close\r\n\r\none" + b"four" * 5)
            assert b"chunked" not in found
            asked = await heard(server, ASK.replace(b"Host", b"Connection: close\r\nHost"))
            assert asked.endswith(b"\r\n0\r\n\r\n")  # a cut could not be told from an end otherwise

    asyncio.run(body())


def test_a_reader_that_is_slow_holds_up_the_parts_and_is_cut_off_when_it_does_not_read_at_all() -> None:
    given = 0

    async def many() -> AsyncGenerator[bytes, None]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield bytes(65_536)

    async def read_all() -> None:
        async with serving(many) as server:
            found = await heard(server, ASK, b"\r\n0\r\n\r\n")
            assert found.count(b"10000\r\n") == 1000

    async def never_reads() -> None:
        async with serving(many, Limits(body_us=300_000)) as server:
            _, writer = await asyncio.open_connection(*server.listener.getsockname(), limit=1024)
            writer.write(ASK)
            await wait_until_async(lambda: bool(server.tasks) and server.tasks[0].done(), "the reply to be given up")
            assert server.tasks[0].cancelled()
            writer.close()

    asyncio.run(never_reads())
    assert 0 < given < 500
    asyncio.run(read_all())


def test_a_peer_that_leaves_ends_what_makes_the_parts() -> None:
    closed = []

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async def body() -> None:
        async with serving(endless) as server:
            assert (await heard(server, ASK, b"first")).endswith(b"first")
            await wait_until_async(lambda: closed == [True], "the parts to be closed")
            assert server.tasks[0].cancelled()

    asyncio.run(body())


def test_a_reply_whose_parts_fail_is_cut_off() -> None:
    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await asyncio.sleep(0.05)
        raise ValueError("broken")

    async def body() -> None:
        async with serving(failing) as server:
            found = await heard(server, ASK, b"0\r\n\r\n")
            assert found.endswith(b"5\r\nfirst\r\n")
            (told,) = await asyncio.gather(*server.tasks, return_exceptions=True)
            assert isinstance(told, ValueError)

    asyncio.run(body())


def test_a_reply_that_is_under_way_when_the_server_ends_is_sent_whole() -> None:
    ending = asyncio.Event()

    async def late() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await ending.wait()
        yield b"last"

    async def body() -> None:
        async with serving(late) as server:
            reader, writer = await asyncio.open_connection(*server.listener.getsockname())
            writer.write(ASK)
            await reader.readuntil(b"first")
            closing = asyncio.ensure_future(server.acceptor.close(10))
            await asyncio.sleep(0.05)
            ending.set()
            assert await closing
            assert (await reader.read()).endswith(b"4\r\nlast\r\n0\r\n\r\n")
            writer.close()

    asyncio.run(body())
