"""Requests over a few kept connections: enough of HTTP/1.1 to send many small ones fast and read the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mainspring.core.errors import Unavailable
from mainspring.core.settings import Address

Reply = tuple[int, bytes, float]  # status, body, seconds


class Connections:
    """Keep-alive connections to one server. Inside an event loop only; `open` before use.

    Args:
        path: Where all requests are posted.
        token: The API key they bear.
        count: How many connections, and so how many requests are under way at once.
    """

    def __init__(self, address: Address, path: str, token: str, count: int) -> None:
        self._address = address
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._count = count
        self._connections: list[_Connection] = []

    async def open(self) -> None:
        """Connect.

        Raises:
            Unavailable: Nobody listens.
        """
        loop = asyncio.get_running_loop()
        try:
            for _ in range(self._count):
                _, connection = await loop.create_connection(_Connection, self._address.host, self._address.port)
                self._connections.append(connection)
        except OSError as error:
            raise Unavailable(f"Nothing answers on {self._address.url}: {error}.") from error

    async def post(self, bodies: Sequence[bytes]) -> list[Reply]:
        """Send all bodies, as many at once as there are connections, and return the replies in order.

        Raises:
            Unavailable: The server closed a connection.
        """
        replies: list[Reply] = [(0, b"", 0.0)] * len(bodies)

        async def lane(connection: _Connection, first: int) -> None:
            for place in range(first, len(bodies), self._count):
                body = bodies[place]
                replies[place] = await connection.exchange(self._head + b"%d\r\n\r\n" % len(body) + body)

        lanes = [lane(connection, first) for first, connection in enumerate(self._connections[: len(bodies)])]
        if len(lanes) == 1:
            await lanes[0]
        else:
            await asyncio.gather(*lanes)
        return replies

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: asyncio.Future[Reply] | None = None
        self._sent = 0.0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def exchange(self, request: bytes) -> asyncio.Future[Reply]:
        self._waiting = self._loop.create_future()
        if self._transport is None or self._transport.is_closing():
            self.connection_lost(None)
        else:
            self._sent = self._loop.time()
            self._transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._waiting is None:
            return
        head = bytes(self._received[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._received) < end + 4 + length:
            return
        body = bytes(self._received[end + 4 : end + 4 + length])
        del self._received[: end + 4 + length]
        waiting, self._waiting = self._waiting, None
        if not waiting.done():
            waiting.set_result((int(head[9:12]), body, self._loop.time() - self._sent))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Unavailable(f"The server closed the connection: {exc or 'without a word'}."))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
