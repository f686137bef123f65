"""Counts of tokens on this side: an estimate before a call, and what of an upstream's own count can be after it."""

from __future__ import annotations

import msgspec

from mainspring.llm.model import ChatReply, ChatRequest, EmbeddingsRequest, Event, Image, Message, Other, Text, Usage

BYTES_A_TOKEN = 3.0
_A_MESSAGE = 4  # tokens around it
_AN_IMAGE = 1500
FURTHEST = 4  # times fewer tokens than estimated is more than any tokeniser saves


def prompt_tokens(request: ChatRequest, bytes_a_token: float = BYTES_A_TOKEN) -> int:
    """Return an estimate of the tokens of a prompt, its tools and schema included."""
    size, tokens = 0, 0
    for message in request.messages:
        tokens += _A_MESSAGE
        size += _size(message)
        for part in message.content:
            if isinstance(part, Image):
                tokens += _AN_IMAGE
            elif isinstance(part, Other):
                size += len(msgspec.json.encode(part.raw))
    for tool in request.tools:
        size += len(msgspec.json.encode(tool))
    if request.response_format is not None and request.response_format.schema is not None:
        size += len(msgspec.json.encode(request.response_format.schema))
    return tokens + tokens_of(size, bytes_a_token)


def embedded_tokens(request: EmbeddingsRequest, bytes_a_token: float = BYTES_A_TOKEN) -> int:
    """Return an estimate of the tokens of texts, or the number of those that are given as tokens."""
    return sum(
        tokens_of(len(each.encode()), bytes_a_token) if isinstance(each, str) else len(each) for each in request.inputs
    )


def reply_tokens(reply: ChatReply, bytes_a_token: float = BYTES_A_TOKEN) -> int:
    """Return an estimate of the tokens that an answer shows."""
    return tokens_of(sum(_size(choice.message) for choice in reply.choices), bytes_a_token)


def event_bytes(event: Event) -> int:
    """Return the size of what an event adds to an answer."""
    size = len(event.text) if event.text.isascii() else len(event.text.encode())
    if not (event.reasoning or event.refusal or event.tool_calls):  # as nearly all
        return size
    size += len(event.reasoning.encode()) + len(event.refusal.encode())
    for call in event.tool_calls:
        size += len(call.name) + len(call.arguments.encode())
    return size


def credible(told: Usage | None, prompt: int, completion: int, most: int | None) -> tuple[Usage, bool]:
    """Return what a call is charged for, and whether that is our own count.

    Args:
        told: The upstream's count.
        prompt, completion: Our own.
        most: Tokens that it was asked to generate at most.
    """
    if told is None:
        return Usage(prompt=prompt, completion=completion), True
    believed = told
    if told.prompt < prompt // FURTHEST:
        believed = msgspec.structs.replace(believed, prompt=prompt, cached=0, written=0)
    if told.completion < completion // FURTHEST:
        believed = msgspec.structs.replace(believed, completion=completion)
    elif most is not None and told.completion > most:
        believed = msgspec.structs.replace(believed, completion=max(most, completion))
    return believed, believed is not told


def tokens_of(size: int, bytes_a_token: float = BYTES_A_TOKEN) -> int:
    """Return an estimate of the tokens of so many bytes."""
    return -int(-size // bytes_a_token)


def _size(message: Message) -> int:
    size = len(message.reasoning.encode()) + len(message.refusal.encode())
    for part in message.content:
        if isinstance(part, Text):
            size += len(part.text.encode())
    for call in message.tool_calls:
        size += len(call.name.encode()) + len(call.arguments.encode())
    return size
