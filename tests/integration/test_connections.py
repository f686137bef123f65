"""Whose connections are kept where there are too many, and how much of bodies is held, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.certificates import Authority
from kit.serving import Kit
from kit.waiting import wait_until_async
from mainspring.core.settings import Limits, Tls
from mainspring.project.catalog import memory_catalog
from mainspring.security.adapters.catalog import CatalogKeyStore
from mainspring.security.model import ApiKey, Principal
from mainspring.security.ports import Unchecked
from mainspring.serving.http.acceptor import Acceptor
from mainspring.serving.http.message import Request, refusal
from mainspring.serving.plane.lane import monotonic_us

ASK = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
KNOWN = b"GET /known HTTP/1.1\r\nHost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n"
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server:
    """Eight connections at most. `/later` is answered when `finish` is called."""

    def __init__(self, limits: Limits, tls: Tls | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.acceptor = Acceptor(
            self.listener, self._handle, unreadable=lambda _: None, max_body_bytes=1 << 20, limits=limits, tls=tls
        )
        self.later: list[Request] = []
        self._peers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def _handle(self, request: Request) -> None:
        if request.head.path == "/later":
            self.later.append(request)
        elif request.complete:
            if request.head.path == "/known":
                request.principal = Principal("key", "key", frozenset())
            request.respond(200, (), b"")
        else:
            task = asyncio.get_running_loop().create_task(self._whole(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _whole(self, request: Request) -> None:
        try:
            await request.whole()
            request.respond(200, (), b"")
        except Exception as error:
            told = refusal(error)  # type: ignore[arg-type]
            request.respond(told.status, told.headers, told.body)

    def finish(self) -> None:
        for request in self.later:
            request.respond(200, (), b"")

    async def peer(self, sent: bytes = b"", **how: Any) -> Peer:
        reader, writer = await asyncio.open_connection(*self.listener.getsockname(), **how)
        writer.write(sent)
        self._peers.append(writer)
        return reader, writer

    async def close(self) -> None:
        """Leave as a peer first: an acceptor that closes waits for bodies that are still to come."""
        for writer in self._peers:
            writer.transport.abort()  # type: ignore[attr-defined]
        await asyncio.gather(*(writer.wait_closed() for writer in self._peers), return_exceptions=True)
        await self.acceptor.close(60)
        self.listener.close()

    async def until(self, name: str, value: int) -> None:
        await wait_until_async(lambda: self.acceptor.numbers()[name] == value, f"{name} to be {value}")


@asynccontextmanager
async def serving(limits: Limits | None = None, tls: Tls | None = None) -> AsyncIterator[Server]:
    server = Server(limits or Limits(connections=8), tls)
    server.acceptor.start()
    try:
        yield server
    finally:
        await server.close()


async def status(peer: Peer) -> int:
    async with asyncio.timeout(20):
        return int((await peer[0].readuntil(b"\r\n\r\n")).split(b" ", 2)[1])


async def closed(peer: Peer) -> bool:
    """Wait until the other side has closed."""
    async with asyncio.timeout(20):
        try:
            return await peer[0].read() == b""
        except ConnectionResetError:
            return True


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@on_a_loop
async def test_as_many_are_accepted_as_the_limit_says() -> None:
    """All come at once; those that are being made count once."""
    async with serving(Limits(connections=300)) as server:
        kept = [await server.peer() for _ in range(300)]
        await server.until("connections", 300)
        assert server.acceptor.numbers()["evicted_connections"] == 0
        assert len(kept) == 300


@on_a_loop
async def test_the_longest_idle_goes_first() -> None:
    async with serving() as server:
        silent = []
        for count in range(1, 9):
            silent.append(await server.peer())
            await server.until("connections", count)
        assert await status(await server.peer(ASK)) == 200
        assert await closed(silent[0])
        assert server.acceptor.numbers()["connections"] == 8
        silent[1][1].write(ASK)
        assert await status(silent[1]) == 200


@on_a_loop
async def test_who_showed_a_key_is_kept_before_who_did_not() -> None:
    async with serving() as server:
        known = await server.peer(KNOWN)
        assert await status(known) == 200
        silent = [await server.peer() for _ in range(50)]
        assert await closed(silent[0])
        known[1].write(KNOWN)
        assert await status(known) == 200


@on_a_loop
async def test_the_address_that_has_most_loses_first() -> None:
    async with serving() as server:
        other = await server.peer(local_addr=("127.0.0.2", 0))  # idle for longer than all others
        await server.until("connections", 1)
        silent = [await server.peer() for _ in range(30)]
        assert await closed(silent[0])
        other[1].write(ASK)
        assert await status(other) == 200


@on_a_loop
async def test_who_waits_for_an_answer_is_never_closed_for_another() -> None:
    async with serving() as server:
        waiting = [await server.peer(LATER) for _ in range(8)]
        await wait_until_async(lambda: len(server.later) == 8, "eight requests")
        ninth = await server.peer(ASK)
        for _ in range(20):  # turns of the loop, in each of which it could have been taken
            await asyncio.sleep(0)
        server.finish()
        assert [await status(each) for each in waiting] == [200] * 8
        assert await status(ninth) == 200


def test_silent_handshakes_lock_nobody_out(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue("server")

    async def talk() -> None:
        async with serving(tls=tls) as server:
            silent = [await server.peer() for _ in range(8)]
            await server.until("connections", 8)
            assert await status(await server.peer(ASK, ssl=authority.trusting())) == 200
            assert await closed(silent[0])

    asyncio.run(talk())


def test_an_older_version_of_tls_where_it_is_allowed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls, older = authority.issue("server"), authority.trusting()
    older.maximum_version = ssl.TLSVersion.TLSv1_2

    async def talk() -> None:
        async with serving(tls=replace(tls, allows_1_2=True)) as server:
            assert await status(await server.peer(ASK, ssl=older)) == 200
        async with serving(tls=tls) as server:
            with pytest.raises(OSError, match="PROTOCOL_VERSION"):
                await server.peer(ASK, ssl=older)

    asyncio.run(talk())


def _post(length: int) -> bytes:
    return f"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize("chunked", [False, True])
def test_the_sum_of_arriving_bodies_is_bounded(chunked: bool) -> None:
    size = 200_000
    begin = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" if chunked else _post(size)
    part = b"%x\r\n%b\r\n" % (size, b" " * size) if chunked else b" " * (size - 1)
    rest = b"0\r\n\r\n" if chunked else b" "

    async def talk() -> None:
        async with serving(Limits(receiving_bytes=5 * size)) as server:
            first = []
            for count in range(1, 6):
                first.append(await server.peer(begin))
                await asyncio.sleep(0)
                first[-1][1].write(part)
                await server.until("receiving_bytes", count * size)
            sixth = await server.peer(begin)
            await asyncio.sleep(0)
            sixth[1].write(part)
            async with asyncio.timeout(20):
                told = await sixth[0].readuntil(b"\r\n\r\n")
            assert told.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in told
            first[0][1].transport.abort()  # type: ignore[attr-defined]
            await server.until("receiving_bytes", 4 * size)
            first[1][1].write(rest)
            assert await status(first[1]) == 200
            await server.until("receiving_bytes", 3 * size)
            seventh = await server.peer(begin)
            await asyncio.sleep(0)
            seventh[1].write(part + rest)
            assert await status(seventh) == 200

    asyncio.run(talk())


@on_a_loop
async def test_one_body_alone_may_be_larger_than_the_bound() -> None:
    async with serving(Limits(receiving_bytes=1000)) as server:
        alone = await server.peer(_post(500_000))
        await server.until("receiving_bytes", 500_000)
        alone[1].write(b" " * 500_000)
        assert await status(alone) == 200
        assert server.acceptor.numbers()["receiving_bytes"] == 0


class LookedFor(CatalogKeyStore):
    """A store that says of no key whether it is there until `checked` ends."""

    def __init__(self) -> None:
        super().__init__(memory_catalog())
        self.checked: Future[None] = Future()

    def find(self, key_id: str) -> ApiKey | None:
        if self.checked.done():
            return None
        raise Unchecked("It was not looked for yet.", self.checked)


@on_a_loop
async def test_a_body_is_left_unread_while_the_key_of_its_caller_is_looked_for() -> None:
    keys, stranger, bytes_sent = LookedFor(), Kit().key(), 1 << 19
    gateway, seen = Kit(keys=keys).gateway(), list[Request]()
    head = f"POST /v2/models/a/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {stranger}\r\n"

    def handle(request: Request) -> None:
        seen.append(request)
        gateway.handle(request)

    async with serving() as server:
        server.acceptor.handle = handle
        peer = await server.peer(f"{head}Content-Length: {bytes_sent}\r\n\r\n".encode() + bytes(bytes_sent))
        for _ in range(20):  # turns of the loop, in which it could read
            assert await status(await server.peer(b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")) == 200
        first = next(each for each in seen if each.head.method == "POST")
        assert first.size < 1 << 15
        keys.checked.set_result(None)
        assert await status(peer) in (401, 503)  # the latter where that took over a second


@pytest.mark.parametrize("secure", [False, True])
def test_the_time_of_what_lay_unread_counts_from_when_its_connection_was_held(secure: bool, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    how = {"ssl": authority.trusting()} if secure else {}

    async def talk() -> None:
        async with serving(tls=authority.issue("server") if secure else None) as server:
            _, writer = peer = await server.peer(LATER, **how)

            async def came(count: int) -> Request:
                await wait_until_async(lambda: len(server.later) >= count, f"{count} requests")
                server.later[-1].respond(200, (), b"")
                assert await status(peer) == 200
                return server.later[-1]

            connection = (await came(1))._connection
            connection.hold()
            held = monotonic_us()
            writer.write(LATER)
            for _ in range(3):  # in which it comes
                assert await status(await server.peer(ASK, **how)) == 200
            connection.release()
            assert (await came(2)).received <= held
            connection.hold()
            connection.release()
            released = monotonic_us()
            for _ in range(3):
                assert await status(await server.peer(ASK, **how)) == 200
            writer.write(LATER)
            assert (await came(3)).received > released

    asyncio.run(talk())
