"""Requests that had to wait before they were read, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mainspring.serving.http.acceptor import Acceptor
from mainspring.serving.http.message import Request
from mainspring.serving.plane.lane import monotonic_us

ASK = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
HELD_UP_US = 30_000


def spin(us: int) -> None:
    until = monotonic_us() + us
    while monotonic_us() < until:
        time.sleep(0)


@asynccontextmanager
async def serving(handle: Callable[[Request], None]) -> AsyncIterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Acceptor(listener, handle, unreadable=lambda _: None, max_body_bytes=1000)
    server.start()
    try:
        yield listener.getsockname()
    finally:
        await server.close(5)
        listener.close()


def test_what_came_while_the_loop_was_held_up_has_waited_since() -> None:
    heard: list[Request] = []

    def handle(request: Request) -> None:
        heard.append(request)
        spin(HELD_UP_US)
        request.respond(200, (), b"")

    async def talk() -> None:
        async with serving(handle) as address:
            peers = [await asyncio.open_connection(*address) for _ in range(3)]
            for _, writer in peers:
                writer.write(ASK)  # all lie there before the first is read
            for reader, writer in peers:
                await reader.readuntil(b"\r\n\r\n")
                writer.close()

    asyncio.run(talk())
    first, *others = heard
    assert all(each.read - first.read >= HELD_UP_US for each in others)
    assert all(each.received < first.read + HELD_UP_US for each in others)


def test_who_is_refused_too_often_is_left_unread_for_a_while_and_then_heard() -> None:
    waited: list[int] = []

    def refuse(request: Request) -> None:
        waited.append(request.read - request.received)
        spin(500)
        request.respond(503, (), b"", overloaded=True)

    async def talk() -> None:
        async with serving(refuse) as address:
            reader, writer = await asyncio.open_connection(*address)
            for _ in range(1000):
                writer.write(ASK)
                await reader.readuntil(b"\r\n\r\n")  # none goes unanswered
                if max(waited) > 3000:
                    break
            writer.close()

    asyncio.run(talk())
    assert max(waited) > 3000
    assert min(waited) < 1000
