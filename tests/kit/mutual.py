"""TLS in front of a server that speaks in clear: it wants a certificate of every caller, and notes whose it was."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from kit.certificates import Authority


@dataclass
class Front:
    """A listener on `port`, and the names in the certificates that were shown."""

    port: int = 0
    names: list[str] = field(default_factory=list)


@contextmanager
def front(authority: Authority, behind: int, port: int = 0) -> Iterator[Front]:
    """Pass what callers send on to the port `behind`; the authority signed the server's certificate and callers'."""
    issued, made, loop = authority.issue("front"), Front(), asyncio.new_event_loop()
    ends: list[asyncio.StreamWriter] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED

    async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while content := await source.read(1 << 16):
                to.write(content)
                await to.drain()
        to.close()  # what was written is sent first

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.names.append(writer.get_extra_info("peercert")["subject"][0][0][1])
        answers, to = await asyncio.open_connection("127.0.0.1", behind)
        ends.extend((writer, to))
        await asyncio.gather(pass_on(reader, to), pass_on(answers, writer))

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(accept, "127.0.0.1", port, ssl=context)

    async def end(server: asyncio.Server) -> None:
        server.close()
        for each in ends:
            each.transport.abort()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    server = loop.run_until_complete(listen())
    made.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
