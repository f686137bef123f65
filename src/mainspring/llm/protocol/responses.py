"""OpenAI's responses, as a server of them: read as requests for messages, and answered from any upstream.

Source: https://github.com/openai/openai-openapi. Nothing is stored: what refers to an earlier response is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mainspring.llm.model import (
    LENGTH,
    ChatReply,
    ChatRequest,
    Event,
    Image,
    Message,
    Part,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
)
from mainspring.llm.protocol.errors import Told, error_fields
from mainspring.llm.protocol.events import framed
from mainspring.llm.protocol.reading import Fields, InvalidField, read_object, split, whole_number

# Fields that say nothing about the answer, or ask for what is so anyway.
_UNSAID = {
    *("store", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
    *("truncation", "include", "stream_options"),
}
_PASSED = ("user",)  # as chat completions have them


class _Asked(msgspec.Struct):
    model: str
    input: str | list[Fields]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Fields] | None = None
    tool_choice: str | Fields | None = None
    parallel_tool_calls: bool | None = None
    text: Fields | None = None
    reasoning: Fields | None = None
    stream: bool | None = None


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    content: str | list[Fields] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[Fields] | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: Fields | None = None
    strict: bool | None = None


class _Format(msgspec.Struct):
    type: str
    name: str = ""
    schema: Fields | None = None
    strict: bool | None = None
    description: str | None = None


def read_request(body: bytes | memoryview) -> ChatRequest:
    """Return a request for a response.

    Raises:
        InvalidField: It is none, or asks for what is not kept here.
    """
    asked, others = split(read_object(body), _Asked)
    extra = {name: value for name, value in others.items() if name in _PASSED and value is not None}
    for name, value in others.items():
        if name not in (*_UNSAID, *_PASSED) and value not in (None, False):
            raise InvalidField(f"{name}: it is not supported; send the whole conversation as input.", name)
    effort = (asked.reasoning or {}).get("effort")
    if effort is not None:
        extra["reasoning_effort"] = effort
    messages = [Message(role="developer", content=(Text(asked.instructions),))] if asked.instructions else []
    if isinstance(asked.input, str):
        messages.append(Message(role="user", content=(Text(asked.input),)))
    else:
        for number, each in enumerate(asked.input):
            _add(messages, each, f"input[{number}]")
    if not any(message.role != "developer" for message in messages):
        raise InvalidField("input: there is none.", "input")
    return ChatRequest(
        model=asked.model,
        messages=tuple(messages),
        tools=tuple(_tool(each, f"tools[{number}]") for number, each in enumerate(asked.tools or ())),
        tool_choice=_tool_choice(asked.tool_choice),
        parallel_tool_calls=asked.parallel_tool_calls,
        response_format=_response_format(asked.text),
        sampling=Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_tokens=whole_number(asked.max_output_tokens, "max_output_tokens"),
        ),
        stream=bool(asked.stream),
        wants_usage=True,
        dialect="responses",
        extra=extra,
    )


def _add(messages: list[Message], given: Fields, place: str) -> None:
    """Add what an item says. Calls of tools that follow each other are of one message."""
    item, _ = split(given, _Item, place)
    match item.type:
        case "message":
            if item.role not in ("system", "developer", "user", "assistant"):
                raise InvalidField(f"{place}.role: it is {item.role!r}.", f"{place}.role")
            messages.append(Message(role=item.role, content=_parts(item.content, f"{place}.content")))  # type: ignore[arg-type]
        case "function_call":
            call = ToolCall(id=item.call_id, name=item.name, arguments=item.arguments)
            last = messages[-1] if messages else None
            if last is not None and last.role == "assistant":
                messages[-1] = msgspec.structs.replace(last, tool_calls=(*last.tool_calls, call))
            else:
                messages.append(Message(role="assistant", tool_calls=(call,)))
        case "function_call_output":
            content = _parts(item.output, f"{place}.output")
            messages.append(Message(role="tool", content=content, tool_call_id=item.call_id))
        case "reasoning":  # of an earlier answer: upstreams do not want it back
            pass
        case _:
            raise InvalidField(f"{place}.type: items of type {item.type!r} are not supported.", f"{place}.type")


def _parts(given: str | list[Fields] | None, place: str) -> tuple[Part, ...]:
    if isinstance(given, str):
        return (Text(given),) if given else ()
    return tuple(_part(each, f"{place}[{number}]") for number, each in enumerate(given or ()))


def _part(given: Fields, place: str) -> Part:
    kind = given.get("type")
    if kind in ("input_text", "output_text", "text") and isinstance(given.get("text"), str):
        return Text(given["text"])
    if kind == "refusal" and isinstance(given.get("refusal"), str):
        return Text(given["refusal"])
    if kind == "input_image" and isinstance(given.get("image_url"), str):
        return Image(given["image_url"], str(given.get("detail") or ""))
    raise InvalidField(f"{place}: content of type {kind!r} is not supported, or not whole.", place)


def _tool(given: Fields, place: str) -> Tool:
    if given.get("type") != "function":
        raise InvalidField(f"{place}.type: tools of type {given.get('type')!r} are not supported.", f"{place}.type")
    known, _ = split(given, _Function, place)
    return Tool(name=known.name, description=known.description or "", parameters=known.parameters, strict=known.strict)


def _tool_choice(given: str | Fields | None) -> ToolChoice | None:
    if given is None:
        return None
    if given in ("auto", "none", "required"):
        return ToolChoice(given)  # type: ignore[arg-type]
    if isinstance(given, dict) and given.get("type") == "function":
        return ToolChoice("function", str(given.get("name") or ""))
    raise InvalidField(f"tool_choice: it is {given!r}.", "tool_choice")


def _response_format(given: Fields | None) -> ResponseFormat | None:
    shape = (given or {}).get("format")
    if shape is None:
        return None
    known, _ = split(shape, _Format, "text.format")
    if known.type not in ("text", "json_object", "json_schema"):
        raise InvalidField(f"text.format.type: it is {known.type!r}.", "text.format.type")
    return ResponseFormat(
        kind=known.type,  # type: ignore[arg-type]
        name=known.name,
        schema=known.schema,
        strict=known.strict,
        description=known.description or "",
    )


# Answers to callers.


def write_reply(reply: ChatReply, asked: ChatRequest) -> bytes:
    """Return the body for a caller."""
    choice = reply.choices[0]
    message, output = choice.message, []
    if message.reasoning:
        output.append(_reasoning(f"rs_{reply.id}", message.reasoning))
    if message.text or message.refusal or not message.tool_calls:
        output.append(_said(f"msg_{reply.id}", message.text, message.refusal))
    output += [_called(f"fc_{call.id}", call) for call in message.tool_calls]
    return msgspec.json.encode(
        _response(reply.id, reply.model, reply.created, asked, output, finish=choice.finish, usage=reply.usage)
    )


def _response(
    id_: str,
    model: str,
    created: int,
    asked: ChatRequest,
    output: list[Fields],
    *,
    finish: str = "",
    usage: Usage | None = None,
    status: str = "",
) -> Fields:
    cut = finish in (LENGTH, "content_filter")
    reasons = {LENGTH: "max_output_tokens", "content_filter": "content_filter"}
    shape = asked.response_format
    format_: Mapping[str, Any] = {"type": "text"}
    if shape is not None:
        named = {"name": shape.name, "schema": shape.schema, "strict": shape.strict}
        format_ = {"type": shape.kind, **(named if shape.kind == "json_schema" else {})}
    choice = asked.tool_choice
    return {
        "id": id_ if id_.startswith("resp_") else f"resp_{id_}",
        "object": "response",
        "created_at": created,
        "status": status or ("incomplete" if cut else "completed"),
        "error": None,
        "incomplete_details": {"reason": reasons[finish]} if cut else None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "store": False,
        "temperature": asked.sampling.temperature,
        "top_p": asked.sampling.top_p,
        "max_output_tokens": asked.sampling.max_tokens,
        "text": {"format": format_},
        "tool_choice": "auto"
        if choice is None
        else choice.mode
        if not choice.name
        else {"type": "function", "name": choice.name},
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description or None,
                "parameters": tool.parameters,
                "strict": tool.strict,
            }
            for tool in asked.tools
        ],
        "truncation": "disabled",
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


def _reasoning(id_: str, text: str) -> Fields:
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"id": id_, "type": "reasoning", "summary": summary, "status": "completed"}


def _said(id_: str, text: str, refusal: str = "", status: str = "completed") -> Fields:
    content: list[Fields] = []
    if text or not refusal:
        content.append({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    if refusal:
        content.append({"type": "refusal", "refusal": refusal})
    return {"id": id_, "type": "message", "role": "assistant", "status": status, "content": content}


def _called(id_: str, call: ToolCall, status: str = "completed") -> Fields:
    return {
        "id": id_,
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


class EventWriter:
    """Writer of one stream's events, of the first choice."""

    def __init__(self, asked: ChatRequest) -> None:
        self._asked = asked
        self._number = 0
        self._about: tuple[str, str, int] | None = None
        self._output: list[Fields] = []  # items that are done
        self._open = ""  # "reasoning", "text", "refusal", or of a call "call" with its index
        self._item = self._call_id = self._name = ""
        self._texts: list[str] = []
        self._finish = ""
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        """Return an event as bytes; empty if it says nothing."""
        if event.index:
            return b""
        parts: list[bytes] = []
        if self._about is None:
            self._about = event.id, event.model, event.created
            begun = self._response("in_progress")
            parts += [self._framed(kind, response=begun) for kind in ("response.created", "response.in_progress")]
        self._finish = event.finish or self._finish
        self._usage = event.usage or self._usage
        for kind, text in (("reasoning", event.reasoning), ("text", event.text), ("refusal", event.refusal)):
            if text:
                parts += self._begin(kind)
                parts.append(self._delta(kind, text))
        for call in event.tool_calls:
            parts += self._begin(f"call {call.index}", call.id, call.name)
            if call.arguments:
                parts.append(self._delta("call", call.arguments))
        return b"".join(parts)

    def end(self) -> bytes:
        """Return the bytes that end a whole stream."""
        parts = self._close()
        ended = self._response("")
        return b"".join([*parts, self._framed(f"response.{ended['status']}", response=ended)])

    def fail(self, error: Told) -> bytes:
        """Return the bytes that end a stream that is not whole."""
        told = error_fields(error, "openai")["error"]
        return self._framed("error", code=told["code"], message=told["message"], param=told["param"])

    def _response(self, status: str) -> Fields:
        id_, model, created = self._about or ("", "", 0)
        finish = "" if status else self._finish
        return _response(
            id_, model, created, self._asked, list(self._output), finish=finish, usage=self._usage, status=status
        )

    @property
    def _at(self) -> Fields:
        return {"item_id": self._item, "output_index": len(self._output)}

    def _begin(self, kind: str, call_id: str = "", name: str = "") -> list[bytes]:
        """Return what begins an item, unless it is open."""
        if self._open == kind:
            return []
        parts = self._close()
        self._open, self._texts, self._call_id, self._name = kind, [], call_id, name
        prefix = {"reasoning": "rs", "text": "msg", "refusal": "msg"}.get(kind, "fc")
        self._item = f"{prefix}_{self._about[0] if self._about else ''}_{len(self._output)}"
        item = {**self._whole("in_progress"), **({"content": []} if prefix == "msg" else {})}
        parts.append(self._framed("response.output_item.added", output_index=len(self._output), item=item))
        if prefix == "msg":
            parts.append(self._framed("response.content_part.added", **self._at, content_index=0, part=self._part()))
        elif prefix == "rs":
            part = {"type": "summary_text", "text": ""}
            parts.append(self._framed("response.reasoning_summary_part.added", **self._at, summary_index=0, part=part))
        return parts

    def _whole(self, status: str = "completed") -> Fields:
        """Return the open item."""
        text = "".join(self._texts)
        if self._open == "reasoning":
            return {**_reasoning(self._item, text), "status": status}
        if self._open in ("text", "refusal"):
            refusal = text if self._open == "refusal" else ""
            return _said(self._item, "" if refusal else text, refusal, status)
        return _called(self._item, ToolCall(id=self._call_id, name=self._name, arguments=text), status)

    def _part(self) -> Fields:
        text = "".join(self._texts)
        if self._open == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _delta(self, kind: str, text: str) -> bytes:
        self._texts.append(text)
        match kind:
            case "reasoning":
                return self._framed("response.reasoning_summary_text.delta", **self._at, summary_index=0, delta=text)
            case "text":
                return self._framed("response.output_text.delta", **self._at, content_index=0, delta=text, logprobs=[])
            case "refusal":
                return self._framed("response.refusal.delta", **self._at, content_index=0, delta=text)
        return self._framed("response.function_call_arguments.delta", **self._at, delta=text)

    def _close(self) -> list[bytes]:
        """Return what ends the open item."""
        if not self._open:
            return []
        text, at, parts = "".join(self._texts), self._at, []
        match self._open:
            case "reasoning":
                part = {"type": "summary_text", "text": text}
                parts.append(self._framed("response.reasoning_summary_text.done", **at, summary_index=0, text=text))
                parts.append(self._framed("response.reasoning_summary_part.done", **at, summary_index=0, part=part))
            case "text" | "refusal":
                if self._open == "text":
                    parts.append(
                        self._framed("response.output_text.done", **at, content_index=0, text=text, logprobs=[])
                    )
                else:
                    parts.append(self._framed("response.refusal.done", **at, content_index=0, refusal=text))
                parts.append(self._framed("response.content_part.done", **at, content_index=0, part=self._part()))
            case _:
                done = {"name": self._name, "arguments": text}
                parts.append(self._framed("response.function_call_arguments.done", **at, **done))
        item = self._whole()
        parts.append(self._framed("response.output_item.done", output_index=len(self._output), item=item))
        self._output.append(item)
        self._open = ""
        return parts

    def _framed(self, kind: str, **told: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return framed(msgspec.json.encode({"type": kind, "sequence_number": number, **told}), kind)
