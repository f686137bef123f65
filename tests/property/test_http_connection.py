"""HTTP/1.1 as it comes over a socket, in any pieces: every request is read as it was sent, or the connection ends.

The oracle is what was sent: requests are made, put on the wire in pieces cut anywhere, one after another or several
before the first is answered, and what the application was given is compared with them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.settings import Limits
from mainspring.serving.http.acceptor import Acceptor
from mainspring.serving.http.message import Request

MOST = 2000  # bytes of a body


@dataclass(frozen=True)
class Sent:
    method: str
    path: str
    header: str
    body: bytes
    chunks: tuple[int, ...]  # sizes; empty: with a length

    def wire(self) -> bytes:
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: a\r\nX-It: {self.header}\r\n"
        if not self.chunks:
            return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body
        parts, rest = [], self.body
        for size in (*self.chunks, len(self.body)):
            part, rest = rest[:size], rest[size:]
            if part:
                parts.append(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(parts) + b"0\r\n\r\n"


texts = st.text("abcXYZ019-_", min_size=1, max_size=12)
sent = st.builds(
    Sent,
    st.sampled_from(["POST", "PUT"]),
    st.builds(lambda parts: "/" + "/".join(parts), st.lists(texts, max_size=4)),
    texts,
    st.binary(max_size=200),
    st.lists(st.integers(1, 50), max_size=3).map(tuple),
)
cuts = st.lists(st.integers(0, 100_000), max_size=12)


class Application:
    """Answers each request with its own number and body, now or in a later turn of the loop."""

    def __init__(self, later: Sequence[bool]) -> None:
        self.heard: list[tuple[str, str, str | None, bytes]] = []
        self.refused: list[int] = []
        self._later = later
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, request: Request) -> None:
        if request.complete and not self._later[len(self.heard) % len(self._later)]:
            self._answer(request, bytes(request.body))
            return
        task = asyncio.get_running_loop().create_task(self._wait(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, request: Request) -> None:
        body = await request.whole()
        await asyncio.sleep(0)
        self._answer(request, bytes(body))

    def _answer(self, request: Request, body: bytes) -> None:
        head = request.head
        self.heard.append((head.method, head.path, head.headers.get("x-it"), body))
        request.respond(200, [("x-number", f"{len(self.heard)}")], body)


async def spoken(application: Application, pieces: Sequence[bytes], answers: int, most: int = MOST) -> bytes:
    """Say these pieces over a connection and return what came back, until so many answers came or it ended."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Acceptor(
        listener, application.handle, unreadable=application.refused.append, max_body_bytes=most, limits=Limits()
    )
    server.start()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    heard = b""
    try:
        async with asyncio.timeout(20):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            while heard.count(b"HTTP/1.1 ") < answers or not _whole(heard):
                part = await reader.read(65_536)
                if not part:
                    break
                heard += part
    finally:
        writer.close()
        await server.close(5)
        listener.close()
    return heard


def _whole(heard: bytes) -> bool:
    last = heard.rpartition(b"HTTP/1.1 ")[2]
    head, end, body = last.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) == int(length or 0)


def pieces_of(whole: bytes, at: Sequence[int]) -> list[bytes]:
    places = sorted({place % (len(whole) + 1) for place in at})
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True) if end > start]


@settings(max_examples=examples(gate=40, deep=150), deadline=None)
@given(st.lists(sent, min_size=1, max_size=6), cuts, st.lists(st.booleans(), min_size=1, max_size=4), st.booleans())
def test_whatever_the_pieces_requests_are_read_as_sent_and_answered_in_order(
    requests: list[Sent], at: list[int], later: list[bool], repeated: bool
) -> None:
    if repeated:  # the same heads again, which are remembered
        requests = requests * 2
    application = Application(later)
    whole = b"".join(each.wire() for each in requests)
    heard = asyncio.run(spoken(application, pieces_of(whole, at), len(requests)))
    assert application.heard == [(each.method, each.path, each.header, each.body) for each in requests]
    assert application.refused == []
    numbers = [line for line in heard.split(b"\r\n") if line.startswith(b"x-number: ")]
    assert numbers == [b"x-number: %d" % number for number in range(1, len(requests) + 1)]


@settings(max_examples=examples(gate=30, deep=100), deadline=None)
@given(st.lists(sent, min_size=1, max_size=4), cuts, st.integers(0, 100_000), st.binary(min_size=1, max_size=6))
def test_with_bytes_put_in_nothing_but_whole_requests_is_handed_on(
    requests: list[Sent], at: list[int], place: int, put: bytes
) -> None:
    """Whatever was sent before the damage is read as it was sent; the server goes on serving others."""
    application = Application([False])
    wires = [each.wire() for each in requests]
    whole = b"".join(wires)
    place %= len(whole) + 1
    sound, size = 0, 0
    for wire in wires:
        size += len(wire)
        sound += size <= place
    damaged = whole[:place] + put + whole[place:]

    async def talk() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = Acceptor(listener, application.handle, unreadable=application.refused.append, max_body_bytes=MOST)
        server.start()
        _, writer = await asyncio.open_connection(*listener.getsockname())
        for piece in pieces_of(damaged, at):
            writer.write(piece)
        async with asyncio.timeout(20):
            while len(application.heard) < sound:
                await asyncio.sleep(0)
        writer.close()
        await server.close(5)
        listener.close()

    asyncio.run(talk())
    expected = [(each.method, each.path, each.header, each.body) for each in requests[:sound]]
    assert application.heard[:sound] == expected


@settings(max_examples=examples(gate=15, deep=40), deadline=None)
@given(st.integers(MOST + 1, 3 * MOST), st.booleans(), cuts)
def test_a_body_beyond_the_limit_is_never_kept(size: int, chunked: bool, at: list[int]) -> None:
    most = 0

    class Watching(Application):
        async def _wait(self, request: Request) -> None:
            nonlocal most
            try:
                await request.whole()
            except Exception as error:
                most = max(most, sum(map(len, request.parts)))
                request.respond(413, [], str(error).encode())

    wire = Sent("POST", "/", "a", b"x" * size, (700,) if chunked else ()).wire()
    heard = asyncio.run(spoken(Watching([True]), pieces_of(wire, at), 1))
    assert b"413" in heard.partition(b"\r\n")[0]
    assert most <= MOST


@settings(max_examples=examples(gate=15, deep=40), deadline=None)
@given(st.integers(1, 300_000), cuts, st.integers(0, 40), st.booleans())
def test_large_bodies_are_received_where_they_belong(size: int, at: list[int], align: int, followed: bool) -> None:
    """Past the parser, which reads on with the next request. Byte `align` lies where a number may begin."""

    class Receiving(Application):
        async def _wait(self, request: Request) -> None:
            body = await request.whole(align)
            if isinstance(body, memoryview):
                assert (np.frombuffer(body, np.uint8).ctypes.data + align) % 8 == 0
            self._answer(request, bytes(body))

    body = np.random.default_rng(size).bytes(size)
    requests = [Sent("POST", "/large", "a", body, ())] + [Sent("POST", "/next", "b", b"small", ())] * followed
    application = Receiving([True])
    wire = b"".join(each.wire() for each in requests)
    heard = asyncio.run(spoken(application, pieces_of(wire, at), len(requests), most=1 << 20))
    assert application.heard == [(each.method, each.path, each.header, each.body) for each in requests]
    assert heard.count(b"HTTP/1.1 200") == len(requests)
