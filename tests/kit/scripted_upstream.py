"""A server of language models that does what a script says: answers, stalls, breaks off, refuses and lies.

It speaks OpenAI's chat completions and embeddings, and Anthropic's messages, over real sockets, on a thread with a loop
of its own. A request is answered by the first `Script` of the queue, else by `Upstream.usual`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

WORDS = ("The ", "train ", "leaves ", "at ", "nine.")


@dataclass(frozen=True)
class Script:
    """How one request is answered.

    Attributes:
        words: Pieces of the answer.
        calls: Calls of tools: name -> arguments as text.
        status: Of HTTP; other than 200, `error` is the message of the body.
        before_s: Wait before the head.
        first_s: Wait between the head and the first word.
        between_s: Wait before each further word.
        breaks_after: Number of words after which the connection is closed.
        error_after: Number of words after which an event with an error comes in place of the rest.
        usage: Prompt, cached, completion and reasoning tokens; `None`: it does not tell them.
        body: Bytes in place of the body that all else describes.
        flood: Bytes in place of the body, again and again up to so many bytes.
        endless: Whether the words are repeated for ever.
        echo: How often the words are the last message's text, with a number.
        done: Whether it says that a stream is done.
        reasoning: Text of the model's reasoning.
        finish: Why it ends.
    """

    words: Sequence[str] = WORDS
    calls: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    error: str = "It is broken."
    headers: Mapping[str, str] = field(default_factory=dict)
    before_s: float = 0.0
    first_s: float = 0.0
    between_s: float = 0.0
    breaks_after: int | None = None
    error_after: int | None = None
    usage: tuple[int, int, int, int] | None = (11, 3, 5, 2)
    body: bytes | None = None
    flood: tuple[bytes, int] = (b"", 0)
    echo: int = 0
    endless: bool = False
    done: bool = True
    reasoning: str = ""
    finish: str = ""


class Peer:
    """A connection's other side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, part: bytes) -> None:
        self.writer.write(part)
        await self.writer.drain()
        self.check()

    async def wait(self, seconds: float) -> None:
        """Wait, or raise once it is gone."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.01))
            self.check()

    def check(self) -> None:
        if self.reader.at_eof() or self.writer.transport.is_closing():
            raise ConnectionError


@dataclass
class Heard:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    sent: int = 0  # bytes of a flood, or of an endless stream
    left: threading.Event = field(default_factory=threading.Event)  # set when the peer left before the end

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upstream:
    """The server.

    Attributes:
        url: Its address, with `/v1`.
        heard: All requests.
        connections: Number of connections that were made.
        usual: Script of requests for which none is in the queue, or a function that makes one.
    """

    def __init__(self) -> None:
        self.url = ""
        self.heard: list[Heard] = []
        self.connections = 0
        self.usual: Script | Callable[[Heard], Script] = Script()
        self._scripts: list[Script] = []

    def then(self, *scripts: Script) -> None:
        """Answer the next requests by these."""
        self._scripts += scripts

    @property
    def unused(self) -> int:
        """Number of scripts that wait for a request."""
        return len(self._scripts)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._once(reader, Peer(reader, writer)):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _once(self, reader: asyncio.StreamReader, peer: Peer) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.split("\r\n")
        method, path, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines if each)}
        heard = Heard(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
        self.heard.append(heard)
        usual = self.usual if isinstance(self.usual, Script) else self.usual(heard)
        script = self._scripts.pop(0) if self._scripts and method == "POST" else usual
        try:
            return await self._answer(heard, script, peer)
        except (ConnectionError, asyncio.CancelledError):
            heard.left.set()
            raise

    async def _answer(self, heard: Heard, script: Script, peer: Peer) -> bool:
        if script.before_s:
            await peer.wait(script.before_s)
        if script.status != 200:
            kind = {"type": "error", "error": {"type": "some_error", "message": script.error}}
            told = {"error": {"message": script.error, "type": "some_error", "param": "model", "code": "some_code"}}
            return await _whole(peer, kind if "/messages" in heard.path else told, script)
        if heard.path.endswith("/models"):
            return await _whole(peer, {"object": "list", "data": [{"id": "tiny", "object": "model"}]}, script)
        if heard.path.endswith("/embeddings"):
            return await _whole(peer, _vectors(heard.json), script)
        if script.flood[1]:
            return await _flood(peer, script, heard)
        if script.echo:
            text = heard.json["messages"][-1]["content"]
            script = replace(script, words=[f"{text}:{number} " for number in range(script.echo)])
        if heard.path.endswith("/count_tokens"):
            return await _whole(peer, {"input_tokens": 17}, script)
        anthropic = "/messages" in heard.path
        if not heard.json.get("stream"):
            return await _whole(peer, _message(script) if anthropic else _completion(script), script)
        await _head(peer, script, "text/event-stream")
        if script.body:
            await _chunk(peer, script.body)
        elif script.body is None:
            count = 0
            async for count, part in _numbered(_anthropic_events(script) if anthropic else _openai_events(script)):
                if script.first_s and count == (2 if anthropic else 1):
                    await peer.wait(script.first_s)
                elif script.between_s and count > 1:
                    await peer.wait(script.between_s)
                if script.breaks_after is not None and count > script.breaks_after:
                    return False
                await _chunk(peer, part)
                heard.sent += len(part)
        await peer.send(b"0\r\n\r\n")
        return True


async def _flood(peer: Peer, script: Script, heard: Heard) -> bool:
    part, size = script.flood
    await _head(peer, script, "text/event-stream" if heard.json.get("stream") else "application/json", size)
    while heard.sent < size:
        await peer.send(part)
        heard.sent += len(part)
    return True


async def _numbered(parts: Iterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    for number, part in enumerate(parts):
        yield number, part


async def _head(peer: Peer, script: Script, kind: str, length: int | None = None) -> None:
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    given = {"content-type": kind, **script.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    peer.writer.write(f"HTTP/1.1 {script.status} Told\r\n{lines}{framing}\r\n\r\n".encode())


async def _chunk(peer: Peer, part: bytes) -> None:
    await peer.send(b"%x\r\n%b\r\n" % (len(part), part))


async def _whole(peer: Peer, told: Any, script: Script) -> bool:
    body = json.dumps(told).encode() if script.body is None else script.body
    if script.breaks_after is not None:
        await _head(peer, script, "application/json", len(body))
        await peer.send(body[: script.breaks_after])
        return False
    await _head(peer, script, "application/json", len(body))
    await peer.send(body)
    return True


def _said(script: Script) -> Iterator[str]:
    yield from script.words
    while script.endless:
        yield from script.words


# OpenAI


def _openai_usage(script: Script) -> dict[str, Any]:
    if script.usage is None:
        return {}
    prompt, cached, completion, reasoning = script.usage
    return {
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    }


def _calls(script: Script) -> list[dict[str, Any]]:
    return [
        {"index": number, "id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": text}}
        for number, (name, text) in enumerate(script.calls.items())
    ]


def _finish(script: Script) -> str:
    return script.finish or ("tool_calls" if script.calls else "stop")


def _completion(script: Script) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(script.words) or None}
    if script.calls:
        message["tool_calls"] = [{k: v for k, v in each.items() if k != "index"} for each in _calls(script)]
    if script.reasoning:
        message["reasoning_content"] = script.reasoning
    choice = {"index": 0, "message": message, "finish_reason": _finish(script), "logprobs": None}
    about = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "tiny-2026"}
    return {**about, "choices": [choice], "system_fingerprint": "fp_1", **_openai_usage(script)}


def _openai_events(script: Script) -> Iterator[bytes]:
    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        return framed({"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]})

    def framed(told: Mapping[str, Any]) -> bytes:
        about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "tiny-2026"}
        return b"data: " + json.dumps({**about, **told}).encode() + b"\n\n"

    yield chunk({"role": "assistant", "content": ""})
    if script.reasoning:
        yield chunk({"reasoning_content": script.reasoning})
    for number, word in enumerate(_said(script)):
        if number == script.error_after:
            yield b"data: " + json.dumps({"error": {"message": script.error, "code": 500}}).encode() + b"\n\n"
            return
        yield chunk({"content": word})
    for call in _calls(script):
        text = call["function"]["arguments"]
        half = len(text) // 2
        yield chunk({"tool_calls": [{**call, "function": {**call["function"], "arguments": text[:half]}}]})
        yield chunk({"tool_calls": [{"index": call["index"], "function": {"arguments": text[half:]}}]})
    if script.done:
        yield chunk({}, _finish(script))
    if script.usage is not None:
        yield framed({"choices": [], **_openai_usage(script)})
    if script.done:
        yield b"data: [DONE]\n\n"


def _vectors(asked: Any) -> dict[str, Any]:
    texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    data = [
        {"object": "embedding", "index": number, "embedding": [float(len(text)), 0.5, -1.0]}
        for number, text in enumerate(texts)
    ]
    return {
        "object": "list",
        "data": data[::-1],
        "model": "tiny-2026",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


# Anthropic


_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _anthropic_usage(script: Script) -> dict[str, Any]:
    prompt, cached, completion, _ = script.usage or (0, 0, 0, 0)
    return {"input_tokens": prompt - cached, "cache_read_input_tokens": cached, "output_tokens": completion}


def _message(script: Script) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(script.words)}] if script.words else []
    if script.reasoning:
        content = [{"type": "thinking", "thinking": script.reasoning, "signature": "c2ln"}, *content]
    content += [
        {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": json.loads(text)}
        for call, text in zip(_calls(script), script.calls.values(), strict=True)
    ]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny-2026",
        "content": content,
        "stop_reason": _STOPS.get(_finish(script), _finish(script)),
        "stop_sequence": None,
        "usage": _anthropic_usage(script),
    }


def _anthropic_events(script: Script) -> Iterator[bytes]:
    def event(kind: str, **told: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **told})}\n\n".encode()

    whole = _message(script)
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield event("message_start", message=begun)
    yield event("ping")
    for index, block in enumerate(whole["content"]):
        if block["type"] == "thinking":
            yield event("content_block_start", index=index, content_block={**block, "thinking": "", "signature": ""})
            yield event(
                "content_block_delta", index=index, delta={"type": "thinking_delta", "thinking": block["thinking"]}
            )
            yield event(
                "content_block_delta", index=index, delta={"type": "signature_delta", "signature": block["signature"]}
            )
        elif block["type"] == "text":
            yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
            for number, word in enumerate(_said(script)):
                if number == script.error_after:
                    yield event("error", error={"type": "overloaded_error", "message": script.error})
                    return
                yield event("content_block_delta", index=index, delta={"type": "text_delta", "text": word})
        else:
            yield event("content_block_start", index=index, content_block={**block, "input": {}})
            text = json.dumps(block["input"])
            for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield event(
                    "content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": part}
                )
        yield event("content_block_stop", index=index)
    if script.done:
        stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield event("message_delta", delta=stop, usage={"output_tokens": whole["usage"]["output_tokens"]})
        yield event("message_stop")


@contextmanager
def scripted() -> Iterator[Upstream]:
    """Run one, and stop it at the end."""
    upstream = Upstream()
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Server:
        server = await asyncio.start_server(upstream._serve, "127.0.0.1", 0, limit=1 << 24)
        upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        return server

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)

    async def end() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
