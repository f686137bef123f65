"""Answers of chat completions, whole and in events: read from upstreams, and written to callers."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.llm.model import ChatReply, Choice, Event, Message, Text, ToolCall, ToolCallDelta, Usage
from mainspring.llm.protocol.errors import Told, error_body
from mainspring.llm.protocol.openai.requests import written_message
from mainspring.llm.protocol.parts import usage_of
from mainspring.llm.protocol.reading import Fields, without_none
from mainspring.serving.http.streams import framed

DONE = b"[DONE]"


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Reasoned(msgspec.Struct):
    reasoning_tokens: int | None = None


class Used(msgspec.Struct):
    """Usage as upstreams write it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoned | None = None


class _CalledPart(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallPart(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _CalledPart | None = None


class _Said(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallPart] | None = None


class _ChoicePart(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    created: float | None = None
    choices: list[_ChoicePart] | None = None
    usage: Used | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode  # of a whole answer or of a chunk


def read_usage(given: Used | None) -> Usage | None:
    """Return the usage that an upstream tells."""
    if given is None:
        return None
    cached, reasoned = given.prompt_tokens_details, given.completion_tokens_details
    return usage_of(
        prompt=given.prompt_tokens or 0,
        completion=given.completion_tokens or 0,
        cached=(cached and cached.cached_tokens) or 0,
        reasoning=(reasoned and reasoned.reasoning_tokens) or 0,
    )


def read_reply(body: bytes) -> ChatReply | bytes:
    """Return an upstream's answer, or the error that stands in its place.

    Raises:
        msgspec.DecodeError: It is no answer.
    """
    given = _decode(body)
    if given.error is not None and not given.choices:
        return msgspec.json.encode(given.error)
    if not given.choices:
        raise msgspec.ValidationError("The answer has no choices")
    return ChatReply(
        id=given.id or "",
        model=given.model or "",
        created=int(given.created or 0),
        choices=tuple([_choice(each) for each in given.choices]),
        usage=read_usage(given.usage),
        raw=body,
    )


def _choice(given: _ChoicePart) -> Choice:
    said = given.message
    if said is None:
        raise msgspec.ValidationError("A choice has no message")
    calls: tuple[ToolCall, ...] = ()
    if said.tool_calls:
        calls = tuple(
            ToolCall(id=each.id or "", name=each.function.name or "", arguments=each.function.arguments or "")
            for each in said.tool_calls
            if each.function is not None
        )
    message = Message(
        role="assistant",
        content=(Text(said.content),) if said.content else (),
        tool_calls=calls,
        reasoning=said.reasoning_content or said.reasoning or "",
        refusal=said.refusal or "",
    )
    return Choice(message=message, finish=given.finish_reason or "", index=given.index)


def write_usage(usage: Usage) -> Fields:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def write_reply(reply: ChatReply) -> bytes:
    """Return the body for a caller: the upstream's own where it is of this format."""
    if reply.raw and reply.dialect == "openai":
        return reply.raw
    body = {
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": [
            {
                "index": each.index,
                "message": _answered(each.message),
                "finish_reason": each.finish or None,
                "logprobs": None,
            }
            for each in reply.choices
        ],
    }
    if reply.usage is not None:
        body["usage"] = write_usage(reply.usage)
    return msgspec.json.encode(body)


def _answered(message: Message) -> Fields:
    found = {**written_message(message), "content": message.text or None}
    return {**found, "refusal": message.refusal or None}


# Events.


def read_event(data: bytes, raw: bytes) -> list[Event] | bytes:
    """Return the events of one chunk, or the error that stands in its place.

    Args:
        data: Its JSON.
        raw: Its bytes, which the event keeps if it is one.

    Raises:
        msgspec.DecodeError: It is no chunk.
    """
    given = _decode(data)
    if given.error is not None:
        return msgspec.json.encode(given.error)
    usage = read_usage(given.usage)
    about: dict[str, Any] = {"id": given.id or "", "model": given.model or "", "created": int(given.created or 0)}
    choices = given.choices
    if not choices:
        return [Event(usage=usage, raw=raw, **about)]
    if len(choices) == 1:
        return [_event(choices[0], usage, raw, about)]
    events = [_event(each, None, b"", about) for each in choices]
    return events if usage is None else [*events, Event(usage=usage, **about)]


class EventReader:
    """Reader of one stream's chunks.

    Nearly all chunks of a stream differ in their text alone. A chunk whose bytes before and after the text are those of
    an earlier one is not decoded: all else in it is the same, as long as the text has no quote and no escape.
    """

    def __init__(self) -> None:
        self._before = self._after = b""
        self._like = Event()

    def read(self, data: bytes, raw: bytes) -> Event | list[Event] | bytes:
        """Return what `read_event` returns, a single event by itself. Raises as it does."""
        if self._before and data.startswith(self._before) and data.endswith(self._after):
            text = data[len(self._before) : -len(self._after)]
            if text and b'"' not in text and b"\\" not in text:
                like = self._like
                return Event(
                    index=like.index, text=text.decode(), raw=raw, id=like.id, model=like.model, created=like.created
                )
        found = read_event(data, raw)
        if isinstance(found, bytes) or len(found) != 1:
            return found
        (event,) = found
        self._learn(event, data)
        return event

    def _learn(self, event: Event, data: bytes) -> None:
        """Note what stands before and after the text of a chunk that has nothing else."""
        alone = Event(
            index=event.index, text=event.text, raw=event.raw, id=event.id, model=event.model, created=event.created
        )
        if event.text and event == alone:
            for key in (b'"content":', b'"content": '):
                before, found, after = data.partition(b'%b"%b"' % (key, event.text.encode()))
                if found and b'"content":' not in before + after:
                    self._before, self._after, self._like = before + key + b'"', b'"' + after, event


def _event(given: _ChoicePart, usage: Usage | None, raw: bytes, about: dict[str, Any]) -> Event:
    said = given.delta
    if said is None:
        return Event(index=given.index, finish=given.finish_reason or "", usage=usage, raw=raw, **about)
    calls: tuple[ToolCallDelta, ...] = ()
    if said.tool_calls:
        calls = tuple(
            ToolCallDelta(
                index=each.index,
                id=each.id or "",
                name=(each.function and each.function.name) or "",
                arguments=(each.function and each.function.arguments) or "",
            )
            for each in said.tool_calls
        )
    return Event(
        index=given.index,
        text=said.content or "",
        reasoning=said.reasoning_content or said.reasoning or "",
        refusal=said.refusal or "",
        tool_calls=calls,
        finish=given.finish_reason or "",
        usage=usage,
        raw=raw,
        **about,
    )


class EventWriter:
    """Writer of one stream's events.

    Args:
        wants_usage: Whether the caller wants its usage, in an event of its own.
    """

    def __init__(self, *, wants_usage: bool) -> None:
        self._wants_usage = wants_usage
        self._begun: set[int] = set()

    def write(self, event: Event) -> bytes:
        """Return an event as bytes, the upstream's own where they are of this format; empty if there is nothing in it
        for the caller."""
        if event.raw and event.dialect == "openai":
            alone = event.usage is not None and not event.finish and event.index == 0
            if alone and not self._wants_usage and not _says(event):
                return b""
            self._begun.add(event.index)
            return event.raw
        parts = []
        if _says(event) or event.finish:
            parts.append(self._chunk(event, [self._choice(event)]))
        if event.usage is not None and self._wants_usage:
            parts.append(self._chunk(event, [], usage=write_usage(event.usage)))
        return b"".join(parts)

    def end(self) -> bytes:
        """Return the bytes that end a whole stream."""
        return b"data: [DONE]\n\n"

    def fail(self, error: Told) -> bytes:
        """Return the bytes that end a stream that is not whole."""
        return framed(error_body(error, "openai"))

    def _choice(self, event: Event) -> Fields:
        delta: Fields = without_none(
            {
                "content": event.text or None,
                "reasoning_content": event.reasoning or None,
                "refusal": event.refusal or None,
            }
        )
        if event.tool_calls:
            delta["tool_calls"] = [_written_delta(each) for each in event.tool_calls]
        if event.index not in self._begun:
            self._begun.add(event.index)
            delta = {"role": "assistant", **delta}
        return {"index": event.index, "delta": delta, "finish_reason": event.finish or None}

    def _chunk(self, event: Event, choices: list[Fields], **more: Any) -> bytes:
        body = {
            "id": event.id,
            "object": "chat.completion.chunk",
            "created": event.created,
            "model": event.model,
            "choices": choices,
        }
        return framed(msgspec.json.encode({**body, **more}))


def _says(event: Event) -> bool:
    return bool(event.text or event.reasoning or event.refusal or event.tool_calls)


def _written_delta(call: ToolCallDelta) -> Fields:
    function = {"arguments": call.arguments, **({"name": call.name} if call.name else {})}
    begun = {"id": call.id, "type": "function"} if call.id else {}
    return {"index": call.index, **begun, "function": function}
