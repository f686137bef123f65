"""Responses as they are answered: whole, and in events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from mainspring.llm.model import CONTENT_FILTER, LENGTH, ChatReply, ChatRequest, Event, ToolCall, ToolChoice, Usage
from mainspring.llm.protocol.errors import Told, error_fields
from mainspring.llm.protocol.parts import written_function
from mainspring.llm.protocol.reading import Fields
from mainspring.serving.http.streams import framed

_CUT = {LENGTH: "max_output_tokens", CONTENT_FILTER: "content_filter"}


def write_reply(reply: ChatReply, asked: ChatRequest) -> bytes:
    """Return the body for a caller."""
    choice = reply.choices[0]
    message, output = choice.message, []
    if message.reasoning:
        output.append(_reasoning(f"rs_{reply.id}", message.reasoning))
    if message.text or message.refusal or not message.tool_calls:
        output.append(_said(f"msg_{reply.id}", message.text, message.refusal))
    output += [_called(f"fc_{call.id}", call) for call in message.tool_calls]
    about = _response(reply.id, reply.model, reply.created, asked)
    return msgspec.json.encode({**about, **_ended(choice.finish, reply.usage), "output": output})


def _response(id_: str, model: str, created: int, asked: ChatRequest) -> Fields:
    """Return a response that has just begun."""
    shape = asked.response_format
    format_: Fields = {"type": "text" if shape is None else shape.kind}
    if shape is not None and shape.kind == "json_schema":
        format_ |= {"name": shape.name, "schema": shape.schema, "strict": shape.strict}
    choice = asked.tool_choice or ToolChoice("auto")
    return {
        "id": id_ if id_.startswith("resp_") else f"resp_{id_}",
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "store": False,
        "temperature": asked.sampling.temperature,
        "top_p": asked.sampling.top_p,
        "max_output_tokens": asked.sampling.max_tokens,
        "text": {"format": format_},
        "tool_choice": {"type": "function", "name": choice.name} if choice.name else choice.mode,
        "tools": [{"type": "function", **written_function(tool)} for tool in asked.tools],
        "truncation": "disabled",
        "usage": None,
    }


def _ended(finish: str, usage: Usage | None) -> Fields:
    """Return the fields of a response that its end changes."""
    cut = _CUT.get(finish)
    return {
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": cut} if cut else None,
        "usage": None if usage is None else _usage(usage),
    }


def _usage(usage: Usage) -> Fields:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def _text(text: str) -> Fields:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _refusal(text: str) -> Fields:
    return {"type": "refusal", "refusal": text}


def _summary(text: str) -> Fields:
    return {"type": "summary_text", "text": text}


def _reasoning(id_: str, text: str) -> Fields:
    return {"id": id_, "type": "reasoning", "summary": [_summary(text)] if text else [], "status": "completed"}


def _said(id_: str, text: str, refusal: str = "") -> Fields:
    content = [_text(text)] if text or not refusal else []
    content += [_refusal(refusal)] if refusal else []
    return {"id": id_, "type": "message", "role": "assistant", "status": "completed", "content": content}


def _called(id_: str, call: ToolCall) -> Fields:
    told = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"id": id_, "type": "function_call", "status": "completed", **told}


_NONE: Mapping[str, Any] = {}


class _Kind(NamedTuple):
    """Kind of an item of a stream.

    Attributes:
        prefix: Of its id.
        event: Name of the events with its text.
        field: Name of its whole text in the last of them.
        part: Name of the events around its one part; empty for none.
        numbered: The field with that part's number.
        more: Further fields of the events with its text.
    """

    prefix: str
    event: str
    field: str
    part: str = ""
    numbered: Mapping[str, int] = _NONE
    more: Mapping[str, Any] = _NONE


_FIRST = {"content_index": 0}
_KINDS = {
    "reasoning": _Kind("rs", "reasoning_summary_text", "text", "reasoning_summary_part", {"summary_index": 0}),
    "text": _Kind("msg", "output_text", "text", "content_part", _FIRST, {"logprobs": []}),
    "refusal": _Kind("msg", "refusal", "refusal", "content_part", _FIRST),
    "call": _Kind("fc", "function_call_arguments", "arguments"),
}
_PARTS = {"reasoning": _summary, "text": _text, "refusal": _refusal}


class EventWriter:
    """Writer of one stream's events, of the first choice."""

    def __init__(self, asked: ChatRequest) -> None:
        self._asked = asked
        self._number = 0
        self._about: Fields = {}  # of the response
        self._output: list[Fields] = []  # items that are done
        self._open: tuple[str, int] | None = None  # kind of the open item, index of its call
        self._item = ""
        self._call = ToolCall(id="", name="", arguments="")
        self._texts: list[str] = []
        self._finish = ""
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        """Return an event as bytes; empty if it says nothing."""
        if event.index:
            return b""
        parts: list[bytes] = []
        if not self._about:
            self._about = _response(event.id, event.model, event.created, self._asked)
            parts += [self._framed(kind, response=self._about) for kind in ("created", "in_progress")]
        self._finish = event.finish or self._finish
        self._usage = event.usage or self._usage
        for kind, text in (("reasoning", event.reasoning), ("text", event.text), ("refusal", event.refusal)):
            if text:
                parts += [*self._begin(kind), self._delta(kind, text)]
        for call in event.tool_calls:
            if self._open != ("call", call.index):
                parts += self._close()
                self._call = ToolCall(id=call.id, name=call.name, arguments="")
                parts += self._begin("call", call.index)
            if call.arguments:
                parts.append(self._delta("call", call.arguments))
        return b"".join(parts)

    def end(self) -> bytes:
        """Return the bytes that end a whole stream."""
        parts = self._close()
        about = self._about or _response("", "", 0, self._asked)
        ended = {**about, **_ended(self._finish, self._usage), "output": self._output}
        return b"".join([*parts, self._framed(ended["status"], response=ended)])

    def fail(self, error: Told) -> bytes:
        """Return the bytes that end a stream that is not whole."""
        told = error_fields(error, "openai")["error"]
        return self._sent("error", code=told["code"], message=told["message"], param=told["param"])

    def _begin(self, name: str, index: int = 0) -> list[bytes]:
        """Return what begins an item, unless it is open."""
        if self._open == (name, index):
            return []
        parts, kind = self._close(), _KINDS[name]
        self._open, self._texts = (name, index), []
        self._item = f"{kind.prefix}_{self._about['id'].removeprefix('resp_')}_{len(self._output)}"
        item = {**self._whole(name, ""), "status": "in_progress", **({"content": []} if kind.prefix == "msg" else {})}
        parts.append(self._framed("output_item.added", output_index=len(self._output), item=item))
        if kind.part:
            parts.append(self._framed(f"{kind.part}.added", **self._at(kind), part=_PARTS[name]("")))
        return parts

    def _delta(self, name: str, text: str) -> bytes:
        self._texts.append(text)
        kind = _KINDS[name]
        return self._framed(f"{kind.event}.delta", **self._at(kind), delta=text, **kind.more)

    def _close(self) -> list[bytes]:
        """Return what ends the open item."""
        if self._open is None:
            return []
        name, kind, text = self._open[0], _KINDS[self._open[0]], "".join(self._texts)
        more = {"name": self._call.name} if name == "call" else kind.more
        parts = [self._framed(f"{kind.event}.done", **self._at(kind), **{kind.field: text}, **more)]
        if kind.part:
            parts.append(self._framed(f"{kind.part}.done", **self._at(kind), part=_PARTS[name](text)))
        item = self._whole(name, text)
        parts.append(self._framed("output_item.done", output_index=len(self._output), item=item))
        self._output.append(item)
        self._open = None
        return parts

    def _whole(self, name: str, text: str) -> Fields:
        """Return the open item."""
        match name:
            case "reasoning":
                return _reasoning(self._item, text)
            case "text":
                return _said(self._item, text)
            case "refusal":
                return _said(self._item, "", text)
        return _called(self._item, msgspec.structs.replace(self._call, arguments=text))

    def _at(self, kind: _Kind) -> Fields:
        return {"item_id": self._item, "output_index": len(self._output), **kind.numbered}

    def _framed(self, kind: str, **told: Any) -> bytes:
        return self._sent(f"response.{kind}", **told)

    def _sent(self, kind: str, **told: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return framed(msgspec.json.encode({"type": kind, "sequence_number": number, **told}), kind)
