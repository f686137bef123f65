"""Check of answers against the JSON schema that a caller asked for.

A schema comes from a caller: it refers to nothing outside itself, and its patterns are matched in linear time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from mainspring.core.errors import MissingExtra
from mainspring.llm.model import Call, ChatReply, ChatRequest, EmbeddingsReply, EmbeddingsRequest, Events, UpstreamError
from mainspring.llm.ports import Answering
from mainspring.llm.protocol.reading import InvalidField


class SchemaChecked:
    """Answers with what follows the schema of its request. A stream that does not ends with an error."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        validator = await _validator(request)
        reply = await self._answering.chat(request, call)
        if validator is not None:
            for choice in reply.choices:
                if not choice.message.tool_calls and not choice.message.refusal:
                    await _check(validator, choice.message.text)
        return reply

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        validator = await _validator(request)
        events = self._answering.stream(request, call)
        texts: defaultdict[int, list[str]] = defaultdict(list)
        excused: set[int] = set()  # choices that call a tool or refuse
        try:
            async for batch in events:
                yield batch
                for event in batch if validator is not None else ():
                    texts[event.index].append(event.text)
                    if event.tool_calls or event.refusal:
                        excused.add(event.index)
            for index, parts in texts.items():
                if validator is not None and index not in excused:
                    await _check(validator, "".join(parts), begun=True)
        finally:
            await events.aclose()

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        return await self._answering.embed(request, call)


async def _validator(request: ChatRequest) -> Any | None:
    """Return what checks answers, `None` if the request has no schema.

    Raises:
        InvalidField: Its schema is none.
    """
    shape = request.response_format
    if shape is None or shape.kind != "json_schema" or shape.schema is None:
        return None
    return await asyncio.to_thread(validator_of, shape.schema)


def validator_of(schema: Mapping[str, Any]) -> Any:
    """Return the validator of a schema.

    Raises:
        InvalidField: It is none, or refers to another document.
        MissingExtra: The library is not installed.
    """
    try:
        import jsonschema_rs
    except ModuleNotFoundError as error:
        raise MissingExtra("Checking answers against a JSON schema", "llm") from error

    try:
        return jsonschema_rs.validator_for(
            dict(schema), retriever=_nothing, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        first = str(error).partition("\n")[0]
        raise InvalidField(f"response_format: the schema is not valid: {first}.", "response_format") from None


def _nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is another document")


async def _check(validator: Any, text: str, *, begun: bool = False) -> None:
    wrong = await asyncio.to_thread(_wrong, validator, text)
    if wrong:
        raise UpstreamError(
            f"The answer does not follow the schema: {wrong}.", kind="failed", upstream="", code="schema", begun=begun
        )


def _wrong(validator: Any, text: str) -> str:
    """Return what is wrong with an answer, without what it says; empty if nothing is."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return "it is no JSON"
    error = next(validator.iter_errors(value), None)
    if error is None:
        return ""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    return f"at {('answer' + place)!r} the rule {error.schema_path[-1]!r} does not hold"
