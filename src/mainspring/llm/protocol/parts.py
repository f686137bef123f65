"""Parts of messages, tools and forms of answers: what the protocols write alike, read in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from mainspring.llm.model import (
    PROVENANCE,
    ChatRequest,
    Dialect,
    Image,
    Message,
    Other,
    Part,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
)
from mainspring.llm.protocol.reading import Fields, InvalidField, all_of, split

FormatKind = Literal["text", "json_object", "json_schema"]
_MODES: tuple[Literal["auto", "none", "required"], ...] = ("auto", "none", "required")
_MOST_TOKENS = 1 << 50
_REASONING = ("thinking", "redacted_thinking")  # kinds of content
_CONTENT = ("type", "text", "image_url", "source")  # fields of a part that are its content
# Kind of a part with text -> the field that has it.
_TEXTS: Mapping[Dialect, Mapping[str, str]] = {
    "openai": {"text": "text"},
    "anthropic": {"text": "text"},
    "responses": {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"},
}


def read_content(given: str | Sequence[Fields] | None, place: str, dialect: Dialect) -> tuple[Part, ...]:
    """Return the content of a message.

    Args:
        place: Its path in the body.

    Raises:
        InvalidField: A part has no kind, or not what its kind needs.
    """
    if isinstance(given, str):
        return (Text(given),) if given else ()
    return all_of(given, place, partial(read_part, dialect=dialect))


def read_part(given: Fields, place: str, dialect: Dialect) -> Part:
    """Return a part of a message. A kind that is not known here is kept as it came, except of responses, of which
    upstreams know nothing.

    Raises:
        InvalidField: It has no kind, or not what its kind needs.
    """
    kind = _string(given, "type", place)
    others = {name: given[name] for name in given if name not in _CONTENT}
    if dialect == "responses":
        others = provenance_of(given)
    field = _TEXTS[dialect].get(kind)
    if field is not None:
        return Text(_string(given, field, place), others)
    wanted, read = _IMAGES[dialect]
    shown = read(given, place) if kind == wanted else None
    if shown is not None:
        return Image(*shown, others)
    if dialect == "responses":
        raise InvalidField(f"{place}: content of type {kind!r} is not supported.", place)
    return Other(kind, given)


def provenance_of(given: Fields) -> Fields:
    """Return the field with which a caller lowers the trust in a message or part, if it is there."""
    return {PROVENANCE: given[PROVENANCE]} if PROVENANCE in given else {}


def _openai_image(given: Fields, place: str) -> tuple[str, str] | None:
    shown = given.get("image_url")
    if not isinstance(shown, dict) or not shown.keys() <= {"url", "detail"}:
        return None
    return _string(shown, "url", f"{place}.image_url"), str(shown.get("detail") or "")


def _responses_image(given: Fields, place: str) -> tuple[str, str] | None:
    return _string(given, "image_url", place), str(given.get("detail") or "")


def _anthropic_image(given: Fields, _place: str) -> tuple[str, str] | None:
    source = given.get("source")
    if isinstance(source, dict) and source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}", ""
    if isinstance(source, dict) and source.get("type") == "url" and isinstance(source.get("url"), str):
        return source["url"], ""
    return None


_IMAGES: Mapping[Dialect, tuple[str, Callable[[Fields, str], tuple[str, str] | None]]] = {
    "openai": ("image_url", _openai_image),
    "anthropic": ("image", _anthropic_image),
    "responses": ("input_image", _responses_image),
}


def _string(given: Fields, name: str, place: str) -> str:
    found = given.get(name)
    if not isinstance(found, str):
        raise InvalidField(f"{place}.{name}: Expected `str`.", f"{place}.{name}")
    return found


class Asked(msgspec.Struct, kw_only=True):
    """Fields that the requests of all protocols have."""

    model: str
    tools: list[Fields] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    strict: bool | None = None


class _Schema(msgspec.Struct):
    name: str = ""
    schema: Fields | None = None
    strict: bool | None = None
    description: str | None = None


def read_function(given: Fields, place: str, schema: str = "parameters") -> Tool:
    """Return a tool that the caller runs.

    Args:
        schema: Name of the field with its arguments' schema.

    Raises:
        InvalidField: A field has another type.
    """
    known, extra = split(given, _Function, place)
    parameters = extra.pop(schema, None)
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidField(f"{place}.{schema}: Expected `object | null`.", f"{place}.{schema}")
    return Tool(
        name=known.name, description=known.description or "", parameters=parameters, strict=known.strict, extra=extra
    )


def read_choice(given: Any, holder: Any) -> ToolChoice | None:
    """Return a rule for the calls of tools; `None` if it is none that is known.

    Args:
        holder: Object with the name of the tool, where one is named.
    """
    for mode in _MODES:
        if given == mode:
            return ToolChoice(mode)
    if isinstance(given, dict) and given.get("type") == "function" and isinstance(holder, dict):
        return ToolChoice("function", str(holder.get("name") or ""))
    return None


def read_schema(given: Any, place: str) -> ResponseFormat:
    """Return the form of an answer whose schema an object describes.

    Raises:
        InvalidField: A field has another type.
    """
    known, _ = split(given, _Schema, place)
    return ResponseFormat(
        kind="json_schema",
        name=known.name,
        schema=known.schema,
        strict=known.strict,
        description=known.description or "",
    )


def arguments_of(call: ToolCall) -> Fields | None:
    """Return the arguments of a call; `None` if they are no JSON object."""
    try:
        return msgspec.json.decode(call.arguments or "{}", type=Fields)
    except msgspec.DecodeError:
        return None


def unsaid(param: str, what: str = "such field") -> InvalidField:
    """Return the error of what an upstream's protocol cannot say."""
    return InvalidField(f"{param}: the protocol of this model's upstream has no {what}.", param)


def translated(request: ChatRequest, extra: Fields) -> ChatRequest:
    """Return a request for an upstream of another protocol: without reasoning of before, and the caller's own fields.

    Args:
        extra: Fields of this kind that the upstream knows.

    Raises:
        InvalidField: It has content or tools that only the caller's protocol has.
    """
    for tool in request.tools:
        if tool.kind != "function":
            raise unsaid("tools", f"tool {tool.kind!r}")
    messages = tuple(map(_bare, request.messages))
    return replace(
        request, messages=messages, tools=tuple(replace(tool, extra={}) for tool in request.tools), extra=extra
    )


def _bare(message: Message) -> Message:
    content: list[Part] = []
    for part in message.content:
        if not isinstance(part, Other):
            content.append(replace(part, extra={}))
        elif part.kind not in _REASONING:
            raise unsaid("messages", f"content {part.kind!r}")
    calls = tuple(replace(call, extra={}) for call in message.tool_calls)
    return replace(message, content=tuple(content), tool_calls=calls, extra={})


def written_function(tool: Tool, schema: str = "parameters") -> Fields:
    """Return the fields of a tool that the caller runs, its schema under a name."""
    return {"name": tool.name, "description": tool.description or None, schema: tool.parameters, "strict": tool.strict}


def usage_of(*, prompt: int, completion: int, cached: int, **more: int) -> Usage | None:
    """Return usage as an upstream tells it; `None` if a count cannot be."""
    if not all(0 <= count < _MOST_TOKENS for count in (prompt, completion, cached, *more.values())):
        return None
    return Usage(prompt=prompt, completion=completion, cached=cached, **more)
