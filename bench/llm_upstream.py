"""The server of language models that bench/llm.py has behind every gateway: its answers are made, and cost it little.

python bench/llm_upstream.py PORT TOKENS

A request for a stream is answered with an event a token, each in a turn of the loop of its own, so that streams of
several callers come interleaved.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

ABOUT = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "made"}


def chunk(body: dict[str, Any] | None) -> bytes:
    data = b"data: " + (b"[DONE]" if body is None else json.dumps(body).encode()) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(tokens: int) -> Iterator[bytes]:
    """Yield the events of a stream, each as a chunk of HTTP."""

    def choice(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        told = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return {**ABOUT, "object": "chat.completion.chunk", "choices": told}

    yield chunk(choice({"role": "assistant", "content": ""}))
    for _ in range(tokens):
        yield chunk(choice({"content": " word"}))
    yield chunk(choice({}, "stop"))
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    yield chunk({**ABOUT, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield chunk(None)


def answer(tokens: int) -> bytes:
    """Return a whole answer."""
    message = {"role": "assistant", "content": " word" * tokens}
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    body = json.dumps({**ABOUT, "object": "chat.completion", "choices": choices, "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Served(asyncio.Protocol):
    """One connection; a request comes whole before the next."""

    def __init__(self, tokens: int) -> None:
        self._events = (*events(tokens), b"0\r\n\r\n")
        self._answer = answer(tokens)
        self._data = b""
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            return
        self._data = b""
        if b'"stream":true' in body.replace(b" ", b""):
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._send(0)
        else:
            self._transport.write(self._answer)

    def _send(self, number: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._events[number])
        if number + 1 < len(self._events):
            self._loop.call_soon(self._send, number + 1)


async def main(port: int, tokens: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Served(tokens), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
