"""OpenAI's chat completions and embeddings, in both directions: as a server of them and as a client.

Source: https://github.com/openai/openai-openapi. Servers that speak it differ in details; what is optional there is
optional here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from mainspring.llm.model import (
    ChatReply,
    ChatRequest,
    Choice,
    EmbeddingsReply,
    EmbeddingsRequest,
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
from mainspring.llm.protocol.events import framed
from mainspring.llm.protocol.reading import Fields, InvalidField, read_object, split, whole_number, without_none
from mainspring.vectors.model import Floats

DONE = b"[DONE]"
_MOST_TOKENS = 1 << 50
# Fields of Anthropic's callers that say nothing about the answer.
_UNSAID = {"service_tier", "cache_control", "diagnostics", "inference_geo", "speed", "user_profile_id", "workspace_id"}

# Requests of callers.


class _Asked(msgspec.Struct):
    model: str
    messages: list[Fields]
    tools: list[Fields] | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: Fields | None = None


class _Asking(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Fields] | None = None
    tool_calls: list[Fields] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: Fields | None = None
    strict: bool | None = None


class _Called(msgspec.Struct):
    name: str
    arguments: str = ""


class _Call(msgspec.Struct):
    function: _Called
    id: str = ""
    type: str | None = None


class _Schema(msgspec.Struct):
    name: str = ""
    schema: Fields | None = None
    strict: bool | None = None
    description: str | None = None


def read_request(body: bytes | memoryview) -> ChatRequest:
    """Return a request for a chat completion.

    Raises:
        InvalidField: It is none.
    """
    given = read_object(body)
    asked, extra = split(given, _Asked)
    if not asked.messages:
        raise InvalidField("messages: there is none.", "messages")
    most = whole_number(asked.max_tokens, "max_tokens")
    if extra.get("max_completion_tokens") is not None:
        most = whole_number(extra["max_completion_tokens"], "max_completion_tokens")
    options = dict(asked.stream_options or {})
    wants_usage = options.pop("include_usage", None) is True
    if options:
        extra["stream_options"] = options
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return ChatRequest(
        model=asked.model,
        messages=tuple(_message(each, f"messages[{number}]") for number, each in enumerate(asked.messages)),
        tools=tuple(_tool(each, f"tools[{number}]") for number, each in enumerate(asked.tools or ())),
        tool_choice=_tool_choice(extra),
        parallel_tool_calls=asked.parallel_tool_calls,
        response_format=_response_format(extra),
        sampling=Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_tokens=most,
            stop=stop,
            seed=asked.seed,
            frequency_penalty=asked.frequency_penalty,
            presence_penalty=asked.presence_penalty,
            choices=whole_number(asked.n, "n") or 1,
        ),
        stream=bool(asked.stream),
        wants_usage=wants_usage,
        extra=extra,
    )


def _message(given: Fields, place: str) -> Message:
    known, extra = split(given, _Asking, place)
    content = known.content
    parts: tuple[Part, ...] = ()
    if isinstance(content, str):
        parts = (Text(content),) if content else ()
    elif content is not None:
        parts = tuple(_part(each, f"{place}.content[{number}]") for number, each in enumerate(content))
    return Message(
        role=known.role,
        content=parts,
        tool_calls=tuple(_call(each, f"{place}.tool_calls[{n}]") for n, each in enumerate(known.tool_calls or ())),
        tool_call_id=known.tool_call_id or "",
        name=known.name or "",
        reasoning=known.reasoning_content or "",
        refusal=known.refusal or "",
        extra=extra,
    )


def _part(given: Fields, place: str) -> Part:
    kind = given.get("type")
    if not isinstance(kind, str):
        raise InvalidField(f"{place}.type: Expected `str`.", f"{place}.type")
    others = {name: value for name, value in given.items() if name not in ("type", "text", "image_url")}
    if kind == "text":
        if not isinstance(given.get("text"), str):
            raise InvalidField(f"{place}.text: Expected `str`.", f"{place}.text")
        return Text(given["text"], others)
    shown = given.get("image_url")
    if kind != "image_url" or not isinstance(shown, dict) or not shown.keys() <= {"url", "detail"}:
        return Other(kind, given)
    if not isinstance(shown.get("url"), str):
        raise InvalidField(f"{place}.image_url.url: Expected `str`.", f"{place}.image_url.url")
    return Image(shown["url"], str(shown.get("detail") or ""), others)


def _call(given: Fields, place: str) -> ToolCall:
    if given.get("type") not in (None, "function"):
        raise InvalidField(f"{place}.type: only calls of functions are supported.", f"{place}.type")
    known, extra = split(given, _Call, place)
    return ToolCall(id=known.id, name=known.function.name, arguments=known.function.arguments, extra=extra)


def _tool(given: Fields, place: str) -> Tool:
    kind, function = given.get("type", "function"), given.get("function")
    if kind != "function" or not isinstance(function, dict):
        if not isinstance(kind, str) or kind == "function":
            raise InvalidField(f"{place}.function: Expected `object`.", f"{place}.function")
        return Tool(name=kind, kind=kind, extra=given)
    known, extra = split(function, _Function, f"{place}.function")
    return Tool(
        name=known.name,
        description=known.description or "",
        parameters=known.parameters,
        strict=known.strict,
        extra=extra,
    )


def _tool_choice(extra: Fields) -> ToolChoice | None:
    given = extra.get("tool_choice")
    found = None
    if given in ("auto", "none", "required"):
        found = ToolChoice(given)
    elif isinstance(given, dict) and given.get("type") == "function" and isinstance(given.get("function"), dict):
        found = ToolChoice("function", str(given["function"].get("name", "")))
    if found is not None:
        del extra["tool_choice"]
    return found


def _response_format(extra: Fields) -> ResponseFormat | None:
    given = extra.get("response_format")
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(given, dict) or kind not in ("text", "json_object", "json_schema"):
        return None
    del extra["response_format"]
    if kind != "json_schema":
        return ResponseFormat(kind=kind)
    known, _ = split(given.get("json_schema") or {}, _Schema, "response_format.json_schema")
    return ResponseFormat(
        kind=kind,
        name=known.name,
        schema=known.schema,
        strict=known.strict,
        description=known.description or "",
    )


# Requests to upstreams.


def write_request(request: ChatRequest, model: str) -> bytes:
    """Return the body of a request to an upstream, for a model as it is called there.

    Raises:
        InvalidField: It has what this protocol cannot say.
    """
    if request.dialect == "anthropic":
        request = _translated(request)
    sampling, extra = request.sampling, dict(request.extra)
    body: Fields = {"model": model, "messages": [_written(each) for each in request.messages]}
    if request.tools:
        body["tools"] = [_written_tool(each) for each in request.tools]
    choice = request.tool_choice
    if choice is not None:
        named = {"type": "function", "function": {"name": choice.name}}
        body["tool_choice"] = named if choice.mode == "function" else choice.mode
    if request.response_format is not None:
        body["response_format"] = _written_format(request.response_format)
    most = "max_completion_tokens" if extra.pop("max_completion_tokens", None) is not None else "max_tokens"
    body |= without_none(
        {
            "parallel_tool_calls": request.parallel_tool_calls,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            most: sampling.max_tokens,
            "stop": list(sampling.stop) or None,
            "seed": sampling.seed,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "n": sampling.choices if sampling.choices != 1 else None,
        }
    )
    options = extra.pop("stream_options", {})
    if request.stream:
        body |= {"stream": True, "stream_options": {**options, "include_usage": True}}
    return msgspec.json.encode({**extra, **body})


def _translated(request: ChatRequest) -> ChatRequest:
    """Return a request of Anthropic's as one of this protocol: without marks of its cache, and reasoning of before."""
    extra = {}
    for name, value in request.extra.items():
        if name == "top_k":  # as vLLM, llama.cpp and Ollama have it
            extra[name] = value
        elif name == "metadata" and isinstance(value, dict):
            extra |= {"user": value["user_id"]} if isinstance(value.get("user_id"), str) else {}
        elif name not in _UNSAID:
            raise InvalidField(f"{name}: the protocol of this model's upstream has no such field.", name)
    for tool in request.tools:
        if tool.kind != "function":
            raise InvalidField(f"tools: the protocol of this model's upstream has no tool {tool.kind!r}.", "tools")
    return replace(
        request,
        messages=tuple(map(_translated_message, request.messages)),
        tools=tuple(replace(tool, extra={}) for tool in request.tools),
        extra=extra,
    )


def _translated_message(message: Message) -> Message:
    content: list[Part] = []
    for part in message.content:
        if isinstance(part, Other):
            if part.kind not in ("thinking", "redacted_thinking"):
                raise InvalidField(
                    f"messages: the protocol of this model's upstream has no content {part.kind!r}.", "messages"
                )
        elif isinstance(part, Text):
            content.append(Text(part.text))
        else:
            content.append(Image(part.url))
    calls = tuple(replace(call, extra={}) for call in message.tool_calls)
    return replace(message, content=tuple(content), tool_calls=calls, extra={})


def _written(message: Message) -> Fields:
    found: Fields = {**message.extra, "role": message.role, "content": _written_content(message)}
    if message.tool_calls:
        found["tool_calls"] = [
            {**each.extra, "id": each.id, "type": "function", "function": _written_call(each)}
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


def _written_call(call: ToolCall) -> Fields:
    return {"name": call.name, "arguments": call.arguments}


def _written_tool(tool: Tool) -> Mapping[str, Any]:
    if tool.kind != "function":
        return tool.extra
    told = {"description": tool.description or None, "parameters": tool.parameters, "strict": tool.strict}
    return {"type": "function", "function": {**tool.extra, "name": tool.name, **without_none(told)}}


def _written_format(given: ResponseFormat) -> Fields:
    if given.kind != "json_schema":
        return {"type": given.kind}
    told = {"schema": given.schema, "strict": given.strict, "description": given.description or None}
    return {"type": given.kind, "json_schema": {"name": given.name, **without_none(told)}}


# Answers of upstreams.


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Reasoned(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Used(msgspec.Struct):
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
    usage: _Used | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer)


def _usage(given: _Used | None) -> Usage | None:
    if given is None:
        return None
    cached, reasoned = given.prompt_tokens_details, given.completion_tokens_details
    counts = {
        "prompt": given.prompt_tokens or 0,
        "completion": given.completion_tokens or 0,
        "cached": (cached and cached.cached_tokens) or 0,
        "reasoning": (reasoned and reasoned.reasoning_tokens) or 0,
    }
    return Usage(**counts) if all(0 <= count < _MOST_TOKENS for count in counts.values()) else None


def read_reply(body: bytes) -> ChatReply | bytes:
    """Return an upstream's answer, or the error that stands in its place.

    Raises:
        msgspec.DecodeError: It is no answer.
    """
    given = _answer.decode(body)
    if given.error is not None and not given.choices:
        return msgspec.json.encode(given.error)
    if not given.choices:
        raise msgspec.ValidationError("The answer has no choices")
    return ChatReply(
        id=given.id or "",
        model=given.model or "",
        created=int(given.created or 0),
        choices=tuple(_choice(each) for each in given.choices),
        usage=_usage(given.usage),
        raw=body,
    )


def _choice(given: _ChoicePart) -> Choice:
    said = given.message
    if said is None:
        raise msgspec.ValidationError("A choice has no message")
    calls = tuple(
        ToolCall(id=each.id or "", name=each.function.name or "", arguments=each.function.arguments or "")
        for each in said.tool_calls or ()
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


def read_event(data: bytes, raw: bytes) -> list[Event] | bytes:
    """Return the events of one chunk, or the error that stands in its place.

    Args:
        data: Its JSON.
        raw: Its bytes, which the event keeps if it is one.

    Raises:
        msgspec.DecodeError: It is no chunk.
    """
    given = _answer.decode(data)
    if given.error is not None:
        return msgspec.json.encode(given.error)
    usage = _usage(given.usage)
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


# Answers to callers.


def write_usage(usage: Usage) -> Fields:
    """Return usage as callers get it."""
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
    found = {**_written(message), "content": message.text or None}
    return {**found, "refusal": message.refusal or None}


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


# Embeddings.


class _Embedding(msgspec.Struct):
    model: str
    input: list[str | list[int]]
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None


class _Vector(msgspec.Struct):
    embedding: list[float] | str
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    model: str = ""
    usage: _Used | None = None


def read_embeddings(body: bytes | memoryview) -> EmbeddingsRequest:
    """Return a request for vectors.

    Raises:
        InvalidField: It is none.
    """
    given = read_object(body)
    inputs = given.get("input")
    if isinstance(inputs, str) or (isinstance(inputs, list) and inputs and isinstance(inputs[0], int)):
        given["input"] = [inputs]
    known, extra = split(given, _Embedding)
    if not known.input:
        raise InvalidField("input: there is none.", "input")
    texts = all(isinstance(each, str) for each in known.input)
    if not texts and any(isinstance(each, str) for each in known.input):
        raise InvalidField("input: it is of texts or of lists of tokens, not of both.", "input")
    found: Any = tuple(known.input) if texts else tuple(map(tuple, known.input))
    return EmbeddingsRequest(
        model=known.model,
        inputs=found,
        dimensions=known.dimensions,
        base64=known.encoding_format == "base64",
        extra=extra,
    )


def write_embeddings_request(request: EmbeddingsRequest, model: str) -> bytes:
    """Return the body of a request to an upstream, for a model as it is called there."""
    body: Fields = {**request.extra, "model": model, "input": request.inputs}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.base64:
        body["encoding_format"] = "base64"
    return msgspec.json.encode(body)


def read_vectors(body: bytes, inputs: int) -> EmbeddingsReply:
    """Return an upstream's vectors.

    Raises:
        msgspec.DecodeError: They are none, or not one for each input.
    """
    given = msgspec.json.decode(body, type=_Vectors)
    data = sorted(given.data, key=lambda each: each.index)
    if [each.index for each in data] != list(range(inputs)):
        raise msgspec.ValidationError(f"There are not {inputs} vectors, one for each input")
    rows = [_floats(each.embedding) for each in data]
    if len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise msgspec.ValidationError("Vectors differ in length")
    return EmbeddingsReply(vectors=np.stack(rows), model=given.model, usage=_usage(given.usage), raw=body)


def _floats(given: list[float] | str) -> Floats:
    if not isinstance(given, str):
        return np.array(given, np.float32)
    try:
        return np.frombuffer(base64.b64decode(given, validate=True), "<f4")
    except (binascii.Error, ValueError):
        raise msgspec.ValidationError("A vector is no base64 of float32") from None


def write_vectors(reply: EmbeddingsReply, *, base64_: bool) -> bytes:
    """Return the body for a caller: the upstream's own where it still says the same."""
    if reply.raw:
        return reply.raw
    rows = reply.vectors.astype("<f4")
    usage = reply.usage or Usage()
    told = [base64.b64encode(row.tobytes()).decode() if base64_ else row.tolist() for row in rows]
    data = [{"object": "embedding", "index": number, "embedding": each} for number, each in enumerate(told)]
    used = {"prompt_tokens": usage.prompt, "total_tokens": usage.total}
    return msgspec.json.encode({"object": "list", "data": data, "model": reply.model, "usage": used})
