"""The least that serves a model over HTTP: serve_floor.py KIND PORT MODEL [STORE VIEW].

KIND is `granian` (its raw interface) or `httptools` (a bare `asyncio.Protocol` around that parser). Both have the same
batcher of a few lines, and no key, no check of names or shapes, no metrics, no log. A request brings one row; with an
online store of ours (SQLite) and a view's slot there, it brings the entity's key, and the row is read from the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from answering import BATCH, session

decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
Rows = Callable[[Sequence[Any]], Any]  # the data of requests -> float32, shape (len(data), n)
Put = Callable[[Any, Any], None]


def sent(data: Sequence[Any]) -> Any:
    """Return rows that were sent."""
    return np.array(data, np.float32).reshape(len(data), -1)


def stored(path: str, view: str) -> Rows:
    """Return what reads rows by the file's own client: a statement a batch, each payload decoded without a schema."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    slot = connection.execute("SELECT id FROM slot WHERE view = ?", (view,)).fetchone()[0]
    key, payload = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode

    def rows(data: Sequence[Any]) -> Any:
        keys = [key(each) for each in data]
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, payload FROM entity WHERE slot = {slot} AND key IN ({marks})"
        found = {name: payload(content)[4:] for name, content in connection.execute(query, keys)}
        return np.array([found[each] for each in keys], np.float32)

    return rows


def batcher(model: str, rows: Rows) -> Put:
    """Return what takes a request's data and who waits for the answer: all that came meanwhile is the next batch."""
    run = session(model).run
    waiting: list[tuple[Any, Any]] = []

    def batch() -> None:
        taken = waiting[:BATCH]
        del waiting[:BATCH]
        if waiting:
            asyncio.get_running_loop().call_soon(batch)
        (found,) = run(["y"], {"x": rows([data for data, _ in taken])})
        for (_, waiter), row in zip(taken, found.tolist(), strict=True):
            waiter.set_result(row)

    def put(data: Any, waiter: Any) -> None:
        if not waiting:
            asyncio.get_running_loop().call_soon(batch)
        waiting.append((data, waiter))

    return put


def document(row: Sequence[float]) -> bytes:
    outputs = [{"name": "y", "shape": [1, len(row)], "datatype": "FP32", "data": row}]
    return encode({"model_name": "mlp", "model_version": "1", "outputs": outputs})


def granian(port: int, model: str, put: Put) -> None:
    from granian.constants import HTTPModes
    from granian.server.embed import Server

    headers = [("content-type", "application/json")]

    async def app(_scope: Any, protocol: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        put(decode(await protocol())["inputs"][0]["data"], future)
        protocol.response_bytes(200, headers, document(await future))

    run = session(model).run

    async def binary(scope: Any, protocol: Any) -> None:
        """One tensor as it lies in memory, behind a header of a fixed length."""
        body = await protocol()
        header = int(scope.headers.get("inference-header-content-length"))
        decode(body[:header])
        (found,) = run(["y"], {"x": np.frombuffer(body, np.float32, offset=header).reshape(1, -1)})
        protocol.response_bytes(200, headers, document(found.tolist()[0]))

    class App:
        def __rsgi__(self, scope: Any, protocol: Any) -> Any:
            return (binary if scope.headers.get("inference-header-content-length") else app)(scope, protocol)

    server = Server(
        App(), address="127.0.0.1", port=port, interface="rsgi", http=HTTPModes.http1, websockets=False,
        log_enabled=False,
    )  # fmt: skip
    asyncio.run(server.serve())


def httptools(port: int, _model: str, put: Put) -> None:
    from httptools import HttpRequestParser

    class Connection(asyncio.Protocol):
        """One connection, on which a request follows the answer to the last: it waits for its answer itself."""

        def connection_made(self, transport: Any) -> None:
            self.write, self.feed = transport.write, HttpRequestParser(self).feed_data

        def data_received(self, data: bytes) -> None:
            self.feed(data)

        def on_message_begin(self) -> None:
            self.headers: dict[bytes, bytes] = {}
            self.body = b""

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers[name.lower()] = value

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            put(decode(self.body)["inputs"][0]["data"], self)

        def set_result(self, row: Sequence[float]) -> None:
            body = document(row)
            self.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


def main() -> None:
    kind, port, model, *store = sys.argv[1:]
    put = batcher(model, stored(*store) if store else sent)
    {"granian": granian, "httptools": httptools}[kind](int(port), model, put)


if __name__ == "__main__":
    main()
