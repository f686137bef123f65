"""Anthropic's messages, in both directions: as a server of them and as a client.

Source: https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from mainspring.llm.model import (
    CONTENT_FILTER,
    LENGTH,
    STOP,
    TOOL_CALLS,
    ChatReply,
    ChatRequest,
    Choice,
    Event,
    Image,
    Message,
    Other,
    Part,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Usage,
)
from mainspring.llm.protocol.errors import Told, error_body
from mainspring.llm.protocol.events import Frame, framed
from mainspring.llm.protocol.reading import Fields, InvalidField, read_object, split, whole_number, without_none

_MOST_TOKENS = 1 << 50
_DEFAULT_MOST = 4096  # tokens of an answer, which this protocol wants to know
# Fields of OpenAI's callers that say nothing about the answer.
_UNSAID = {"user", "store", "metadata", "safety_identifier", "prompt_cache_key", "stream_options", "service_tier",
           "max_completion_tokens"}  # fmt: skip
_STOPS = {
    "end_turn": STOP,
    "stop_sequence": STOP,
    "max_tokens": LENGTH,
    "tool_use": TOOL_CALLS,
    "refusal": CONTENT_FILTER,
}
_WRITTEN_STOPS = {STOP: "end_turn", LENGTH: "max_tokens", TOOL_CALLS: "tool_use", CONTENT_FILTER: "refusal"}

# Requests of callers.


class _Asked(msgspec.Struct):
    model: str
    messages: list[Fields]
    max_tokens: int
    system: str | list[Fields] | None = None
    tools: list[Fields] | None = None
    tool_choice: Fields | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None


class _Asking(msgspec.Struct):
    role: Literal["user", "assistant"]
    content: str | list[Fields]


class _Used(msgspec.Struct):
    name: str
    id: str = ""
    input: Fields | None = None
    type: str = ""


class _Result(msgspec.Struct):
    tool_use_id: str
    content: str | list[Fields] | None = None
    is_error: bool | None = None
    type: str = ""


class _Declared(msgspec.Struct):
    name: str
    description: str | None = None
    input_schema: Fields | None = None
    strict: bool | None = None
    type: str | None = None


def read_request(body: bytes | memoryview) -> ChatRequest:
    """Return a request for a message.

    Raises:
        InvalidField: It is none.
    """
    asked, extra = split(read_object(body), _Asked)
    if not asked.messages:
        raise InvalidField("messages: there is none.", "messages")
    messages: list[Message] = []
    if asked.system:
        system = [{"type": "text", "text": asked.system}] if isinstance(asked.system, str) else asked.system
        parts = tuple(_part(each, f"system[{number}]") for number, each in enumerate(system))
        messages.append(Message(role="system", content=parts))
    for number, each in enumerate(asked.messages):
        messages += _messages(each, f"messages[{number}]")
    choice, parallel = _tool_choice(asked.tool_choice)
    return ChatRequest(
        model=asked.model,
        messages=tuple(messages),
        tools=tuple(_tool(each, f"tools[{number}]") for number, each in enumerate(asked.tools or ())),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=_response_format(extra),
        sampling=Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_tokens=whole_number(asked.max_tokens, "max_tokens"),
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
    blocks = [{"type": "text", "text": known.content}] if isinstance(known.content, str) else known.content
    content: list[Part] = []
    calls: list[ToolCall] = []
    results = False
    for number, block in enumerate(blocks):
        at = f"{place}.content[{number}]"
        kind = block.get("type")
        if kind == "tool_use" and known.role == "assistant":
            used, more = split(block, _Used, at)
            arguments = msgspec.json.encode(used.input or {}).decode()
            calls.append(ToolCall(id=used.id, name=used.name, arguments=arguments, extra=more))
        elif kind == "tool_result" and known.role == "user":
            yield _result(block, at)
            results = True
        else:
            content.append(_part(block, at))
    if content or calls or not results:
        yield Message(role=known.role, content=tuple(content), tool_calls=tuple(calls), extra=extra)


def _result(block: Fields, place: str) -> Message:
    known, extra = split(block, _Result, place)
    told = known.content or ()
    blocks = [{"type": "text", "text": told}] if isinstance(told, str) else told
    return Message(
        role="tool",
        content=tuple(_part(each, f"{place}.content[{number}]") for number, each in enumerate(blocks)),
        tool_call_id=known.tool_use_id,
        failed=bool(known.is_error),
        extra=extra,
    )


def _part(block: Fields, place: str) -> Part:
    kind = block.get("type")
    if not isinstance(kind, str):
        raise InvalidField(f"{place}.type: Expected `str`.", f"{place}.type")
    others = {name: value for name, value in block.items() if name not in ("type", "text", "source")}
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise InvalidField(f"{place}.text: Expected `str`.", f"{place}.text")
        return Text(block["text"], others)
    source = block.get("source")
    if kind == "image" and isinstance(source, dict):
        if source.get("type") == "url" and isinstance(source.get("url"), str):
            return Image(source["url"], "", others)
        if source.get("type") == "base64":
            return Image(f"data:{source.get('media_type')};base64,{source.get('data')}", "", others)
    return Other(kind, block)


def _tool(given: Fields, place: str) -> Tool:
    known, extra = split(given, _Declared, place)
    if known.type not in (None, "custom"):
        return Tool(name=known.name, kind=known.type, extra=given)
    return Tool(
        name=known.name,
        description=known.description or "",
        parameters=known.input_schema,
        strict=known.strict,
        extra=extra,
    )


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


# Requests to upstreams.


def write_request(request: ChatRequest, model: str) -> bytes:
    """Return the body of a request to an upstream, for a model as it is called there.

    Raises:
        InvalidField: It has what this protocol cannot say.
    """
    extra = _extra(request)
    sampling = request.sampling
    for name, given in (
        ("n", None if sampling.choices == 1 else sampling.choices),
        ("seed", sampling.seed),
        ("frequency_penalty", sampling.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty),
    ):
        if given is not None:
            raise _unsaid(name)
    system = [
        _written_part(part, request.dialect)
        for message in request.messages
        if message.role in ("system", "developer")
        for part in message.content
    ]
    body: Fields = {
        **extra,
        "model": model,
        "max_tokens": _DEFAULT_MOST if sampling.max_tokens is None else sampling.max_tokens,
        "messages": _written(request),
    }
    if system:
        body["system"] = system
    if request.tools:
        body["tools"] = [_written_tool(each, request) for each in request.tools]
    choice = _written_choice(request)
    if choice is not None and request.tools:
        body["tool_choice"] = choice
    told = request.response_format
    if told is not None and told.kind != "text":
        if told.kind != "json_schema":
            raise _unsaid("response_format")
        shape = {"format": {"type": "json_schema", "schema": told.schema or {}}}
        body["output_config"] = {**extra.get("output_config", {}), **shape}
    stops = list(sampling.stop) or None
    body |= without_none({"temperature": sampling.temperature, "top_p": sampling.top_p, "stop_sequences": stops})
    if request.stream:
        body["stream"] = True
    return msgspec.json.encode(body)


def _extra(request: ChatRequest) -> Fields:
    if request.dialect == "anthropic":
        return dict(request.extra)
    for name, value in request.extra.items():
        if name not in _UNSAID and value is not None:
            raise _unsaid(name)
    user = request.extra.get("user")
    return {"metadata": {"user_id": user}} if isinstance(user, str) else {}


def _unsaid(name: str) -> InvalidField:
    return InvalidField(f"{name}: the protocol of this model's upstream has no such field.", name)


def _written(request: ChatRequest) -> list[Fields]:
    """Return the messages: results of tools, and what the user says after them, are one message of the user."""
    found: list[Fields] = []
    for message in request.messages:
        if message.role in ("system", "developer"):
            continue
        blocks = [_written_part(part, request.dialect) for part in message.content if not _dropped(part, request)]
        if message.role == "tool":
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": blocks}
            more = message.extra if request.dialect == "anthropic" else {}
            blocks = [{**more, **result, **({"is_error": True} if message.failed else {})}]
        blocks += [_written_call(call) for call in message.tool_calls]
        role = "assistant" if message.role == "assistant" else "user"
        after_result = found and role == "user" and found[-1]["role"] == "user"
        if after_result and found[-1]["content"] and found[-1]["content"][-1].get("type") == "tool_result":
            found[-1]["content"] += blocks
        else:
            more = message.extra if request.dialect == "anthropic" and message.role != "tool" else {}
            found.append({**more, "role": role, "content": blocks})
    return found


def _dropped(part: Part, request: ChatRequest) -> bool:
    """Return whether a part says nothing here: this protocol refuses texts without a character."""
    return isinstance(part, Text) and not part.text and request.dialect != "anthropic"


def _written_part(part: Part, dialect: str) -> Mapping[str, Any]:
    own = dialect == "anthropic"
    if isinstance(part, Text):
        return {**(part.extra if own else {}), "type": "text", "text": part.text}
    if isinstance(part, Image):
        kind, _, data = part.url.removeprefix("data:").partition(";base64,")
        source = {"type": "url", "url": part.url}
        if part.url.startswith("data:"):
            source = {"type": "base64", "media_type": kind, "data": data}
        return {**(part.extra if own else {}), "type": "image", "source": source}
    if not own:
        raise InvalidField(f"messages: the protocol of this model's upstream has no content {part.kind!r}.", "messages")
    return part.raw


def _written_call(call: ToolCall) -> Fields:
    try:
        given = msgspec.json.decode(call.arguments or "{}", type=Fields)
    except msgspec.DecodeError:
        raise InvalidField(f"messages: the arguments of the call {call.id!r} are no JSON object.", "messages") from None
    return {**call.extra, "type": "tool_use", "id": call.id, "name": call.name, "input": given}


def _written_tool(tool: Tool, request: ChatRequest) -> Mapping[str, Any]:
    own = request.dialect == "anthropic"
    if tool.kind != "function":
        if not own:
            raise InvalidField(f"tools: the protocol of this model's upstream has no tool {tool.kind!r}.", "tools")
        return tool.extra
    told = {"description": tool.description or None, "strict": tool.strict}
    schema = tool.parameters if tool.parameters is not None else {"type": "object"}
    return {**(tool.extra if own else {}), "name": tool.name, "input_schema": schema, **without_none(told)}


def _written_choice(request: ChatRequest) -> Fields | None:
    choice = request.tool_choice
    alone = {"disable_parallel_tool_use": True} if request.parallel_tool_calls is False else {}
    if choice is None:
        return {"type": "auto", **alone} if alone else None
    if choice.mode == "none":
        return {"type": "none"}
    modes = {"auto": "auto", "required": "any", "function": "tool"}
    return {"type": modes[choice.mode], **({"name": choice.name} if choice.mode == "function" else {}), **alone}


# Answers of upstreams.


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
    """Return usage; counts that are not given stay as they were."""
    if given is None:
        return before
    before = before or Usage()
    cached = before.cached if given.cache_read_input_tokens is None else given.cache_read_input_tokens
    written = before.written if given.cache_creation_input_tokens is None else given.cache_creation_input_tokens
    plain = before.prompt - before.cached - before.written if given.input_tokens is None else given.input_tokens
    completion = before.completion if given.output_tokens is None else given.output_tokens
    counts = (plain, cached, written, completion)
    if not all(0 <= count < _MOST_TOKENS for count in counts):
        return None
    return Usage(prompt=plain + cached + written, completion=completion, cached=cached, written=written)


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
            used = msgspec.convert(block, _Used)
            arguments = msgspec.json.encode(used.input or {}).decode()
            calls.append(ToolCall(id=used.id, name=used.name, arguments=arguments))
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


# Answers to callers.


def write_usage(usage: Usage | None) -> Fields:
    """Return usage as callers get it."""
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
        {**_message(reply.id, reply.model, choice.finish), "content": content, "usage": write_usage(reply.usage)}
    )


def _message(id_: str, model: str, finish: str) -> Fields:
    return {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_reason": (_WRITTEN_STOPS.get(finish, finish) or None),
        "stop_sequence": None,
    }


def _answered_call(call: ToolCall) -> Fields:
    try:
        given = msgspec.json.decode(call.arguments or "{}", type=Fields)
    except msgspec.DecodeError:  # what the model wrote is no object: the caller's tool gets it as it is
        given = {"arguments": call.arguments}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}


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
            begun = {**_message(event.id, event.model, ""), "content": [], "usage": write_usage(None)}
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
        stop = {"stop_reason": _WRITTEN_STOPS.get(self._finish, self._finish) or None, "stop_sequence": None}
        ended = _framed("message_delta", delta=stop, usage=write_usage(self._usage))
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
