"""Requests for responses."""

from __future__ import annotations

from typing import Literal

import msgspec

from mainspring.llm.model import ChatRequest, Message, ResponseFormat, Sampling, Text, Tool, ToolCall, ToolChoice
from mainspring.llm.protocol.parts import (
    Asked,
    FormatKind,
    provenance_of,
    read_choice,
    read_content,
    read_function,
    read_schema,
)
from mainspring.llm.protocol.reading import Bound, Fields, InvalidField, all_of, read_object, split

# Fields that say nothing about the answer, or ask for what is so anyway.
_UNSAID = {
    *("store", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
    *("truncation", "include", "stream_options"),
}
_PASSED = ("user", "mainspring")  # as chat completions have them


class _Asked(Asked):
    input: str | list[Fields]
    instructions: str | None = None
    max_output_tokens: Bound | None = None
    tool_choice: str | Fields | None = None
    parallel_tool_calls: bool | None = None
    text: Fields | None = None
    reasoning: Fields | None = None


class _Item(msgspec.Struct):
    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Fields] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[Fields] | None = None


class _Shape(msgspec.Struct):
    type: FormatKind


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
        tools=all_of(asked.tools, "tools", _tool),
        tool_choice=_tool_choice(asked.tool_choice),
        parallel_tool_calls=asked.parallel_tool_calls,
        response_format=_response_format(asked.text),
        sampling=Sampling(temperature=asked.temperature, top_p=asked.top_p, max_tokens=asked.max_output_tokens),
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
            if item.role is None:
                raise InvalidField(f"{place}.role: there is none.", f"{place}.role")
            content = read_content(item.content, f"{place}.content", "responses")
            messages.append(Message(role=item.role, content=content, extra=provenance_of(given)))
        case "function_call":
            call = ToolCall(id=item.call_id, name=item.name, arguments=item.arguments)
            last = messages[-1] if messages else None
            if last is not None and last.role == "assistant":
                messages[-1] = msgspec.structs.replace(last, tool_calls=(*last.tool_calls, call))
            else:
                messages.append(Message(role="assistant", tool_calls=(call,)))
        case "function_call_output":
            content = read_content(item.output, f"{place}.output", "responses")
            extra = provenance_of(given)
            messages.append(Message(role="tool", content=content, tool_call_id=item.call_id, extra=extra))
        case "reasoning":  # of an earlier answer: upstreams do not want it back
            pass
        case _:
            raise InvalidField(f"{place}.type: items of type {item.type!r} are not supported.", f"{place}.type")


def _tool(given: Fields, place: str) -> Tool:
    if given.get("type") != "function":
        raise InvalidField(f"{place}.type: tools of type {given.get('type')!r} are not supported.", f"{place}.type")
    return msgspec.structs.replace(read_function(given, place), extra={})


def _tool_choice(given: str | Fields | None) -> ToolChoice | None:
    found = read_choice(given, given)
    if found is None and given is not None:
        raise InvalidField(f"tool_choice: it is {given!r}.", "tool_choice")
    return found


def _response_format(given: Fields | None) -> ResponseFormat | None:
    shape = (given or {}).get("format")
    if shape is None:
        return None
    known, _ = split(shape, _Shape, "text.format")
    return msgspec.structs.replace(read_schema(shape, "text.format"), kind=known.type)
