"""Answers of messages, whole and in events: read from upstreams, and written to callers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mainspring.llm.model import (
    CONTENT_FILTER,
    LENGTH,
    STOP,
    TOOL_CALLS,
    ChatReply,
    Choice,
    Event,
    Message,
    Other,
    Part,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from mainspring.llm.protocol.anthropic.requests import Used
from mainspring.llm.protocol.errors import Told, error_body
from mainspring.llm.protocol.events import Frame
from mainspring.llm.protocol.parts import arguments_of, usage_of
from mainspring.llm.protocol.reading import Fields
from mainspring.serving.http.streams import framed

# Why a message ended -> why a choice did.
_STOPS = {
    "end_turn": STOP,
    "stop_sequence": STOP,
    "max_tokens": LENGTH,
    "tool_use": TOOL_CALLS,
    "refusal": CONTENT_FILTER,
}
_WRITTEN_STOPS = {STOP: "end_turn", LENGTH: "max_tokens", TOOL_CALLS: "tool_use", CONTENT_FILTER: "refusal"}


class _Counts(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Answer(msgspec.Struct):
    content: list[Fields]
    id: str = ""
    model: str = ""
    stop_reason: str | None = None
    usage: _Counts | None = None


def _usage(given: _Counts | None, before: Usage | None = None) -> Usage | None:
    """Return the usage that an upstream tells; counts that are not given stay as they were."""
    if given is None:
        return before
    before = before or Usage()
    cached = before.cached if given.cache_read_input_tokens is None else given.cache_read_input_tokens
    written = before.written if given.cache_creation_input_tokens is None else given.cache_creation_input_tokens
    plain = before.prompt - before.cached - before.written if given.input_tokens is None else given.input_tokens
    completion = before.completion if given.output_tokens is None else given.output_tokens
    if plain < 0:
        return None
    return usage_of(prompt=plain + cached + written, completion=completion, cached=cached, written=written)


def read_reply(body: bytes) -> ChatReply | bytes:
    """Return an upstream's answer, or the error that stands in its place.

    Raises:
        msgspec.DecodeError: It is no answer.
    """
    given = msgspec.json.decode(body, type=Fields)
    if given.get("error"):
        return msgspec.json.encode(given["error"])
    answer = msgspec.convert(given, _Answer)
    content: list[Part] = []
    calls: list[ToolCall] = []
    reasoning = ""
    for block in answer.content:
        if block.get("type") == "tool_use":
            calls.append(msgspec.convert(block, Used).call({}))
        elif block.get("type") == "thinking":
            reasoning += str(block.get("thinking", ""))
        elif block.get("type") == "text":
            content.append(Text(str(block.get("text", ""))))
        else:
            content.append(Other(str(block.get("type")), block))
    message = Message(role="assistant", content=tuple(content), tool_calls=tuple(calls), reasoning=reasoning)
    stop = answer.stop_reason or ""
    return ChatReply(
        id=answer.id,
        model=answer.model,
        choices=(Choice(message=message, finish=_STOPS.get(stop, stop)),),
        usage=_usage(answer.usage),
        raw=body,
        dialect="anthropic",
    )


def _written_usage(usage: Usage | None) -> Fields:
    usage = usage or Usage()
    return {
        "input_tokens": max(0, usage.prompt - usage.cached - usage.written),
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.written,
        "output_tokens": usage.completion,
    }


def write_reply(reply: ChatReply) -> bytes:
    """Return the body for a caller: the upstream's own where it is of this format."""
    if reply.raw and reply.dialect == "anthropic":
        return reply.raw
    choice = reply.choices[0]
    message = choice.message
    content: list[Mapping[str, Any]] = []
    if message.reasoning:
        content.append({"type": "thinking", "thinking": message.reasoning, "signature": ""})
    text = message.text or message.refusal
    if text:
        content.append({"type": "text", "text": text})
    content += [_answered_call(call) for call in message.tool_calls]
    return msgspec.json.encode(
        {**_message(reply.id, reply.model, choice.finish), "content": content, "usage": _written_usage(reply.usage)}
    )


def _message(id_: str, model: str, finish: str) -> Fields:
    return {"id": id_, "type": "message", "role": "assistant", "model": model, **_written_stop(finish)}


def _written_stop(finish: str) -> Fields:
    return {"stop_reason": _WRITTEN_STOPS.get(finish, finish) or None, "stop_sequence": None}


def _answered_call(call: ToolCall) -> Fields:
    given = arguments_of(call)
    if given is None:  # what the model wrote is no object: the caller's tool gets it as it is
        given = {"arguments": call.arguments}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}


# Events.


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""


class _Begun(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: _Counts | None = None


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Begun | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Counts | None = None
    error: Any = None


_event = msgspec.json.Decoder(_Event)


class EventReader:
    """Reader of one stream's events.

    Attributes:
        done: Whether the message has ended.
    """

    def __init__(self) -> None:
        self.done = False
        self._usage: Usage | None = None
        self._calls: dict[int, int] = {}  # index of a block -> of the tool call
        self._about: dict[str, Any] = {}

    def read(self, frame: Frame) -> Event | bytes:
        """Return an event, or the error that stands in its place.

        Raises:
            msgspec.DecodeError: It is none.
        """
        given = _event.decode(frame.data)
        more: dict[str, Any] = {}
        match given.type:
            case "content_block_delta":
                more = self._delta(given)
            case "content_block_start":
                more = self._start(given)
            case "message_start" if given.message is not None:
                self._about = {"id": given.message.id, "model": given.message.model}
                self._usage = _usage(given.message.usage)
            case "message_delta":
                self._usage = _usage(given.usage, self._usage)
                stop = (given.delta.stop_reason if given.delta is not None else "") or ""
                more = {"finish": _STOPS.get(stop, stop), "usage": self._usage}
            case "message_stop":
                self.done = True
            case "error":
                return msgspec.json.encode(given.error)
        return Event(raw=frame.raw, dialect="anthropic", **more, **self._about)

    def _delta(self, given: _Event) -> dict[str, Any]:
        delta = given.delta
        if delta is None:
            return {}
        if delta.type == "input_json_delta":
            call = ToolCallDelta(index=self._calls.get(given.index, 0), arguments=delta.partial_json)
            return {"tool_calls": (call,)}
        return {"text": delta.text, "reasoning": delta.thinking}

    def _start(self, given: _Event) -> dict[str, Any]:
        block = given.content_block
        if block is None or block.type != "tool_use":
            return {"text": "" if block is None else block.text}
        index = self._calls[given.index] = len(self._calls)
        return {"tool_calls": (ToolCallDelta(index=index, id=block.id, name=block.name),)}


class EventWriter:
    """Writer of one stream's events. `raw` is passed on only while no event came without it."""

    def __init__(self) -> None:
        self._raw = True
        self._begun = False
        self._index = -1  # of the last block
        self._open = ""  # kind of the open block; of a call with its index
        self._finish = ""
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        """Return an event as bytes; empty if it says nothing."""
        if event.raw and event.dialect == "anthropic" and self._raw:
            return event.raw
        self._raw = False
        self._finish = event.finish or self._finish
        self._usage = event.usage or self._usage
        parts: list[bytes] = []
        if not self._begun:
            self._begun = True
            begun = {**_message(event.id, event.model, ""), "content": [], "usage": _written_usage(None)}
            parts.append(_framed("message_start", message=begun))
        if event.reasoning:
            parts += self._block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            parts.append(self._delta(type="thinking_delta", thinking=event.reasoning))
        if event.text or event.refusal:
            parts += self._block("text", {"type": "text", "text": ""})
            parts.append(self._delta(type="text_delta", text=event.text + event.refusal))
        for call in event.tool_calls:
            begun = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            parts += self._block(f"tool_use {call.index}", begun)
            if call.arguments:
                parts.append(self._delta(type="input_json_delta", partial_json=call.arguments))
        return b"".join(parts)

    def end(self) -> bytes:
        """Return the bytes that end a whole stream: an upstream's own events had them."""
        if self._raw:
            return b""
        ended = _framed("message_delta", delta=_written_stop(self._finish), usage=_written_usage(self._usage))
        return b"".join([*self._close(), ended, _framed("message_stop")])

    def fail(self, error: Told) -> bytes:
        """Return the bytes that end a stream that is not whole."""
        return framed(error_body(error, "anthropic"), "error")

    def _block(self, kind: str, begun: Fields) -> list[bytes]:
        """Return what begins a block, unless it is open."""
        if self._open == kind:
            return []
        closed = self._close()
        self._index += 1
        self._open = kind
        return [*closed, _framed("content_block_start", index=self._index, content_block=begun)]

    def _close(self) -> list[bytes]:
        was, self._open = self._open, ""
        return [_framed("content_block_stop", index=self._index)] if was else []

    def _delta(self, **delta: str) -> bytes:
        return _framed("content_block_delta", index=self._index, delta=delta)


def _framed(kind: str, **told: Any) -> bytes:
    return framed(msgspec.json.encode({"type": kind, **told}), kind)
