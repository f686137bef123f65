"""Requests for chat completions: read from callers, and written to upstreams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from mainspring.llm.model import (
    ChatRequest,
    Image,
    Message,
    Part,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
)
from mainspring.llm.protocol.parts import (
    Asked,
    FormatKind,
    read_choice,
    read_content,
    read_function,
    read_schema,
    translated,
    unsaid,
    written_function,
)
from mainspring.llm.protocol.reading import Bound, Fields, InvalidField, all_of, read_object, split, without_none

# Fields of Anthropic's callers that say nothing about the answer.
_UNSAID = {"service_tier", "cache_control", "diagnostics", "inference_geo", "speed", "user_profile_id", "workspace_id"}
_SAMPLING = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")
_SHAPES: tuple[FormatKind, ...] = ("text", "json_object")


class _Asked(Asked):
    messages: list[Fields]
    parallel_tool_calls: bool | None = None
    max_tokens: Bound | None = None
    max_completion_tokens: Bound | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    n: Bound | None = None
    stream_options: Fields | None = None


class _Asking(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Fields] | None = None
    tool_calls: list[Fields] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class _Called(msgspec.Struct):
    name: str
    arguments: str = ""


class _Call(msgspec.Struct):
    function: _Called
    id: str = ""
    type: str | None = None


def read_request(body: bytes | memoryview) -> ChatRequest:
    """Return a request for a chat completion.

    Raises:
        InvalidField: It is none.
    """
    asked, extra = split(read_object(body), _Asked)
    if not asked.messages:
        raise InvalidField("messages: there is none.", "messages")
    if asked.max_completion_tokens is not None:
        extra["max_completion_tokens"] = asked.max_completion_tokens
    options = dict(asked.stream_options or {})
    wants_usage = options.pop("include_usage", None) is True
    if options:
        extra["stream_options"] = options
    return ChatRequest(
        model=asked.model,
        messages=all_of(asked.messages, "messages", _message),
        tools=all_of(asked.tools, "tools", _tool),
        tool_choice=_tool_choice(extra),
        parallel_tool_calls=asked.parallel_tool_calls,
        response_format=_response_format(extra),
        sampling=Sampling(
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
            choices=asked.n or 1,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=asked.seed,
            frequency_penalty=asked.frequency_penalty,
            presence_penalty=asked.presence_penalty,
        ),
        stream=bool(asked.stream),
        wants_usage=wants_usage,
        extra=extra,
    )


def _message(given: Fields, place: str) -> Message:
    known, extra = split(given, _Asking, place)
    content = known.content
    if isinstance(content, str):
        parts: tuple[Part, ...] = (Text(content),) if content else ()
    else:
        parts = read_content(content, f"{place}.content", "openai")
    return Message(
        role=known.role,
        content=parts,
        tool_calls=all_of(known.tool_calls, f"{place}.tool_calls", _call),
        tool_call_id=known.tool_call_id or "",
        name=known.name or "",
        reasoning=known.reasoning_content or "",
        refusal=known.refusal or "",
        extra=extra,
    )


def _call(given: Fields, place: str) -> ToolCall:
    if given.get("type") not in (None, "function"):
        raise InvalidField(f"{place}.type: only calls of functions are supported.", f"{place}.type")
    known, extra = split(given, _Call, place)
    return ToolCall(id=known.id, name=known.function.name, arguments=known.function.arguments, extra=extra)


def _tool(given: Fields, place: str) -> Tool:
    kind, function = given.get("type", "function"), given.get("function")
    if kind == "function" and isinstance(function, dict):
        return read_function(function, f"{place}.function")
    if not isinstance(kind, str) or kind == "function":
        raise InvalidField(f"{place}.function: Expected `object`.", f"{place}.function")
    return Tool(name=kind, kind=kind, extra=given)


def _tool_choice(extra: Fields) -> ToolChoice | None:
    given = extra.get("tool_choice")
    found = read_choice(given, given.get("function") if isinstance(given, dict) else None)
    if found is not None:
        del extra["tool_choice"]
    return found


def _response_format(extra: Fields) -> ResponseFormat | None:
    given = extra.get("response_format")
    if not isinstance(given, dict):
        return None
    kind, found = given.get("type"), None
    if kind == "json_schema":
        found = read_schema(given.get("json_schema") or {}, "response_format.json_schema")
    for shape in _SHAPES:
        if kind == shape:
            found = ResponseFormat(kind=shape)
    if found is not None:
        del extra["response_format"]
    return found


# Written to upstreams.


def write_request(request: ChatRequest, model: str) -> bytes:
    """Return the body of a request to an upstream, for a model as it is called there.

    Raises:
        InvalidField: It has what this protocol cannot say.
    """
    if request.dialect == "anthropic":
        request = translated(request, _known(request.extra))
    sampling, extra, choice = request.sampling, dict(request.extra), request.tool_choice
    most = "max_completion_tokens" if extra.pop("max_completion_tokens", None) is not None else "max_tokens"
    options = extra.pop("stream_options", {})
    told: Fields = {
        "tools": [_written_tool(each) for each in request.tools] or None,
        "tool_choice": None if choice is None else _written_choice(choice),
        "response_format": None if request.response_format is None else _written_format(request.response_format),
        "parallel_tool_calls": request.parallel_tool_calls,
        most: sampling.max_tokens,
        "stop": list(sampling.stop) or None,
        "n": sampling.choices if sampling.choices != 1 else None,
        **{name: getattr(sampling, name) for name in _SAMPLING},
    }
    if request.stream:
        told |= {"stream": True, "stream_options": {**options, "include_usage": True}}
    messages = [written_message(each) for each in request.messages]
    return msgspec.json.encode({**extra, "model": model, "messages": messages, **without_none(told)})


def _known(given: Mapping[str, Any]) -> Fields:
    """Return the fields of Anthropic's callers as this protocol has them."""
    extra = {}
    for name, value in given.items():
        if name == "top_k":  # as vLLM, llama.cpp and Ollama have it
            extra[name] = value
        elif name == "metadata" and isinstance(value, dict):
            extra |= {"user": value["user_id"]} if isinstance(value.get("user_id"), str) else {}
        elif name not in _UNSAID:
            raise unsaid(name)
    return extra


def written_message(message: Message) -> Fields:
    """Return a message as upstreams and callers get it."""
    found: Fields = {**message.extra, "role": message.role, "content": _written_content(message)}
    if message.tool_calls:
        found["tool_calls"] = [
            {
                **each.extra,
                "id": each.id,
                "type": "function",
                "function": {"name": each.name, "arguments": each.arguments},
            }
            for each in message.tool_calls
        ]
    for name, value in (
        ("tool_call_id", message.tool_call_id),
        ("name", message.name),
        ("reasoning_content", message.reasoning),
        ("refusal", message.refusal),
    ):
        if value:
            found[name] = value
    return found


def _written_content(message: Message) -> Any:
    parts = message.content
    if not parts:
        return None if message.tool_calls else ""
    if len(parts) == 1 and isinstance(parts[0], Text) and not parts[0].extra:
        return parts[0].text
    return [_written_part(each) for each in parts]


def _written_part(part: Part) -> Mapping[str, Any]:
    if isinstance(part, Text):
        return {**part.extra, "type": "text", "text": part.text}
    if isinstance(part, Image):
        detail = {"detail": part.detail} if part.detail else {}
        return {**part.extra, "type": "image_url", "image_url": {"url": part.url, **detail}}
    return part.raw


def _written_tool(tool: Tool) -> Mapping[str, Any]:
    if tool.kind != "function":
        return tool.extra
    return {"type": "function", "function": {**tool.extra, **without_none(written_function(tool))}}


def _written_choice(choice: ToolChoice) -> str | Fields:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "function" else choice.mode


def _written_format(given: ResponseFormat) -> Fields:
    if given.kind != "json_schema":
        return {"type": given.kind}
    told = {"schema": given.schema, "strict": given.strict, "description": given.description or None}
    return {"type": given.kind, "json_schema": {"name": given.name, **without_none(told)}}
