"""Requests for messages: read from callers, and written to upstreams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    arguments_of,
    read_content,
    read_function,
    read_part,
    translated,
    unsaid,
    written_function,
)
from mainspring.llm.protocol.reading import Bound, Fields, InvalidField, all_of, read_object, split, without_none

# Fields that a count of tokens depends on.
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "mcp_servers")
_DEFAULT_MOST = 4096  # tokens of an answer, which this protocol wants to know
# Fields of OpenAI's callers that say nothing about the answer.
_UNSAID = {"user", "store", "metadata", "safety_identifier", "prompt_cache_key", "stream_options", "service_tier",
           "max_completion_tokens"}  # fmt: skip


class _Asked(Asked):
    messages: list[Fields]
    max_tokens: Bound
    system: str | list[Fields] | None = None
    tool_choice: Fields | None = None
    stop_sequences: list[str] | None = None


class _Asking(msgspec.Struct):
    role: Literal["user", "assistant"]
    content: str | list[Fields]


class Used(msgspec.Struct):
    """A call of a tool, in requests and answers."""

    name: str
    id: str = ""
    input: Fields | None = None
    type: str = ""

    def call(self, extra: Mapping[str, Any]) -> ToolCall:
        arguments = msgspec.json.encode(self.input or {}).decode()
        return ToolCall(id=self.id, name=self.name, arguments=arguments, extra=extra)


class _Server(msgspec.Struct):
    """A tool that the upstream itself runs."""

    name: str
    type: str


class _Result(msgspec.Struct):
    tool_use_id: str
    content: str | list[Fields] | None = None
    is_error: bool | None = None
    type: str = ""


def read_request(body: bytes | memoryview, *, counted: bool = False) -> ChatRequest:
    """Return a request for a message.

    Args:
        counted: Whether it is one for a count of its tokens, which has no bound.

    Raises:
        InvalidField: It is none.
    """
    given = read_object(body)
    asked, extra = split({**given, "max_tokens": 1} if counted else given, _Asked)
    if not asked.messages:
        raise InvalidField("messages: there is none.", "messages")
    messages = [each for several in all_of(asked.messages, "messages", _messages) for each in several]
    if asked.system:
        messages.insert(0, Message(role="system", content=read_content(asked.system, "system", "anthropic")))
    choice, parallel = _tool_choice(asked.tool_choice)
    return ChatRequest(
        model=asked.model,
        messages=tuple(messages),
        tools=all_of(asked.tools, "tools", _tool),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=_response_format(extra),
        sampling=Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_tokens=asked.max_tokens,
            stop=tuple(asked.stop_sequences or ()),
        ),
        stream=bool(asked.stream),
        wants_usage=True,
        dialect="anthropic",
        extra=extra,
    )


def _messages(given: Fields, place: str) -> Iterable[Message]:
    """Yield a message, results of tools as messages of their own before it."""
    known, extra = split(given, _Asking, place)
    if isinstance(known.content, str):
        yield Message(role=known.role, content=(Text(known.content),), extra=extra)
        return
    content: list[Part] = []
    calls: list[ToolCall] = []
    results = False
    for number, block in enumerate(known.content):
        at = f"{place}.content[{number}]"
        kind = block.get("type")
        if kind == "tool_use" and known.role == "assistant":
            used, more = split(block, Used, at)
            calls.append(used.call(more))
        elif kind == "tool_result" and known.role == "user":
            yield _result(block, at)
            results = True
        else:
            content.append(read_part(block, at, "anthropic"))
    if content or calls or not results:
        yield Message(role=known.role, content=tuple(content), tool_calls=tuple(calls), extra=extra)


def _result(block: Fields, place: str) -> Message:
    known, extra = split(block, _Result, place)
    return Message(
        role="tool",
        content=read_content(known.content, f"{place}.content", "anthropic"),
        tool_call_id=known.tool_use_id,
        failed=bool(known.is_error),
        extra=extra,
    )


def _tool(given: Fields, place: str) -> Tool:
    kind = given.get("type")
    if kind not in (None, "custom"):
        found = split(given, _Server, place)[0]
        return Tool(name=found.name, kind=found.type, extra=given)
    tool = read_function(given, place, "input_schema")
    return msgspec.structs.replace(tool, extra={name: tool.extra[name] for name in tool.extra if name != "type"})


def _tool_choice(given: Fields | None) -> tuple[ToolChoice | None, bool | None]:
    if given is None:
        return None, None
    modes: dict[Any, Any] = {"auto": "auto", "any": "required", "none": "none", "tool": "function"}
    kind = given.get("type")
    if kind not in modes:
        raise InvalidField(f"tool_choice.type: it is {kind!r}.", "tool_choice.type")
    name = str(given.get("name") or "")
    return ToolChoice(modes[kind], name), False if given.get("disable_parallel_tool_use") is True else None


def _response_format(extra: Fields) -> ResponseFormat | None:
    config = extra.get("output_config")
    given = config.get("format") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(given, dict) or given.get("type") != "json_schema":
        return None
    rest = {name: value for name, value in config.items() if name != "format"}
    if rest:
        extra["output_config"] = rest
    else:
        del extra["output_config"]
    return ResponseFormat(kind="json_schema", schema=given.get("schema"))


# Written to upstreams.


def write_request(request: ChatRequest, model: str) -> bytes:
    """Return the body of a request to an upstream, for a model as it is called there.

    Raises:
        InvalidField: It has what this protocol cannot say.
    """
    return msgspec.json.encode(_body(request, model))


def write_counted(request: ChatRequest, model: str) -> bytes:
    """Return the body of a request for a count of tokens. Raises as `write_request` does."""
    body = _body(request, model)
    return msgspec.json.encode({name: body[name] for name in _COUNTED if name in body})


def _body(request: ChatRequest, model: str) -> Fields:
    if request.dialect != "anthropic":
        request = translated(request, _known(request))
    sampling, choice, extra = request.sampling, _written_choice(request), dict(request.extra)
    told: Fields = {
        "system": [
            _written_part(part)
            for message in request.messages
            if message.role in ("system", "developer")
            for part in message.content
        ]
        or None,
        "tools": [_written_tool(each) for each in request.tools] or None,
        "tool_choice": choice if request.tools else None,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop_sequences": list(sampling.stop) or None,
        "stream": request.stream or None,
    }
    shape = request.response_format
    if shape is not None and shape.kind != "text":
        if shape.kind != "json_schema":
            raise unsaid("response_format")
        format_ = {"type": "json_schema", "schema": shape.schema or {}}
        told["output_config"] = {**extra.get("output_config", {}), "format": format_}
    most = _DEFAULT_MOST if sampling.max_tokens is None else sampling.max_tokens
    body = {"model": model, "max_tokens": most, "messages": _written(request)}
    return {**extra, **body, **without_none(told)}


def _known(request: ChatRequest) -> Fields:
    """Return the fields of OpenAI's callers as this protocol has them."""
    sampling = request.sampling
    asked = {
        **request.extra,
        "n": None if sampling.choices == 1 else sampling.choices,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
    }
    for name, value in asked.items():
        if name not in _UNSAID and value is not None:
            raise unsaid(name)
    user = request.extra.get("user")
    return {"metadata": {"user_id": user}} if isinstance(user, str) else {}


def _written(request: ChatRequest) -> list[Fields]:
    """Return the messages: results of tools, and what the user says after them, are one message of the user."""
    found: list[Fields] = []
    own = request.dialect == "anthropic"
    for message in request.messages:
        if message.role in ("system", "developer"):
            continue
        parts = [each for each in message.content if own or not isinstance(each, Text) or each.text]  # it refuses empty
        blocks = list(map(_written_part, parts))
        role, extra = "assistant" if message.role == "assistant" else "user", message.extra
        if message.role == "tool":
            result = {**extra, "type": "tool_result", "tool_use_id": message.tool_call_id, "content": blocks}
            blocks, extra = [result | ({"is_error": True} if message.failed else {})], {}
        blocks += map(_written_call, message.tool_calls)
        before = found[-1]["content"] if found and role == found[-1]["role"] == "user" else None
        if before and before[-1].get("type") == "tool_result":
            before += blocks
        else:
            found.append({**extra, "role": role, "content": blocks})
    return found


def _written_part(part: Part) -> Mapping[str, Any]:
    if isinstance(part, Text):
        return {**part.extra, "type": "text", "text": part.text}
    if isinstance(part, Image):
        kind, _, data = part.url.removeprefix("data:").partition(";base64,")
        source = {"type": "url", "url": part.url}
        if part.url.startswith("data:"):
            source = {"type": "base64", "media_type": kind, "data": data}
        return {**part.extra, "type": "image", "source": source}
    return part.raw


def _written_call(call: ToolCall) -> Mapping[str, Any]:
    given = arguments_of(call)
    if given is None:
        raise InvalidField(f"messages: the arguments of the call {call.id!r} are no JSON object.", "messages")
    return {**call.extra, "type": "tool_use", "id": call.id, "name": call.name, "input": given}


def _written_tool(tool: Tool) -> Mapping[str, Any]:
    if tool.kind != "function":
        return tool.extra
    schema = {"input_schema": {"type": "object"}} if tool.parameters is None else {}
    return {**tool.extra, **without_none(written_function(tool, "input_schema")), **schema}


def _written_choice(request: ChatRequest) -> Fields | None:
    choice = request.tool_choice
    alone = {"disable_parallel_tool_use": True} if request.parallel_tool_calls is False else {}
    if choice is None:
        return {"type": "auto", **alone} if alone else None
    if choice.mode == "none":
        return {"type": "none"}
    modes = {"auto": "auto", "required": "any", "function": "tool"}
    return {"type": modes[choice.mode], **({"name": choice.name} if choice.mode == "function" else {}), **alone}
