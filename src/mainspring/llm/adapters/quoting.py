"""A stand-in for a language model that quotes: it answers a chain's prompt with the sentences of the sources that are
the nearest to the question.

It makes nothing up, needs no network and no weights but an encoder's, and gives the same answer each time: enough to
try retrieval, citations and the log of answers before a model is chosen. Anything but a prompt with sources it answers
with "NOT FOUND".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from mainspring.llm.answers.declaring import NOT_FOUND
from mainspring.llm.model import (
    Call,
    ChatReply,
    ChatRequest,
    Choice,
    EmbeddingsReply,
    EmbeddingsRequest,
    Event,
    Events,
    Message,
    Text,
    UpstreamError,
    Usage,
)
from mainspring.vectors.ports import Encoder

MODEL = "quotes"
_SOURCE = re.compile(r'<source number="(\d+)"(?: headings="([^"]*)")?>\n(.*?)\n</source>', re.DOTALL)
_QUESTION = re.compile(r"Question: (.*)", re.DOTALL)
_FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1[`~]*[ \t]*$", re.DOTALL | re.MULTILINE)
_UNQUOTED = re.compile(r"^[ \t]*(#{1,6} |\||!\[|<|---|===)")  # headings, tables, pictures, markup, rules
_BULLET = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]+")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_END = re.compile(r"(?<=[.!?])[\"')*]*\s+(?=[\"'(*`]*[A-Z0-9`])")
_WORD = re.compile(r"[^\W_]+")
_MOST = 3  # sentences
_LEAST = 0.45  # cosine of the best sentence and the question; unrelated ones of MiniLM have less than .2
_NEAR = 0.93  # of the best one's cosine, for the others


@dataclass(frozen=True, slots=True)
class _Sentence:
    number: int  # of its source, from 1
    text: str
    embedded: str  # with the heading above it


class QuotingModel:
    """`Upstream` in this process, of the one model "quotes".

    Args:
        encoder: Returns the encoder of sentences and questions.
    """

    def __init__(self, name: str, encoder: Callable[[], Encoder]) -> None:
        self._name, self._encoder = name, encoder

    @property
    def name(self) -> str:
        return self._name

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        self._check(request.model)
        asked = "\n\n".join(message.text for message in request.messages if message.role == "user")
        text = await asyncio.to_thread(lambda: answer(asked, self._encoder()))
        usage = Usage(prompt=sum(_count(message.text) for message in request.messages), completion=_count(text))
        choice = Choice(message=Message(role="assistant", content=(Text(text),)))
        return ChatReply(id=f"quotes-{call.id}", model=MODEL, choices=(choice,), usage=usage)

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        reply = await self.chat(request, call)
        yield (Event(text=reply.choices[0].message.text, id=reply.id, model=MODEL),)
        yield (Event(finish=reply.choices[0].finish, usage=reply.usage, id=reply.id, model=MODEL),)

    async def embed(self, _request: EmbeddingsRequest, _call: Call) -> EmbeddingsReply:
        raise UpstreamError("It has no model for vectors.", kind="missing", upstream=self._name)

    async def models(self) -> tuple[str, ...]:
        return (MODEL,)

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        """Nothing is open."""

    def _check(self, model: str) -> None:
        if model != MODEL:
            raise UpstreamError(f"It has no model {model!r}, but {MODEL!r}.", kind="missing", upstream=self._name)


def answer(prompt: str, encoder: Encoder) -> str:
    """Return up to three sentences of a prompt's sources, each with its number, or "NOT FOUND"."""
    question = _QUESTION.search(_SOURCE.sub("", prompt))
    sentences = _sentences(prompt)
    if not sentences or not question or not question[1].strip():
        return NOT_FOUND
    near = encoder.encode([each.embedded for each in sentences]) @ encoder.encode([question[1]])[0]
    best = float(near.max())
    if best < _LEAST:
        return NOT_FOUND
    ranked = sorted(range(len(sentences)), key=lambda place: (-near[place], place))
    chosen = sorted(place for place in ranked[:_MOST] if near[place] >= _NEAR * best)
    return " ".join(f"{sentences[place].text} [{sentences[place].number}]" for place in chosen)


def _sentences(prompt: str) -> Sequence[_Sentence]:
    """Return the sentences of all sources, each text once."""
    found: dict[str, _Sentence] = {}
    for source in _SOURCE.finditer(prompt):
        heading = (source[2] or "").rpartition(" > ")[2]
        for text in _parted(source[3]):
            found.setdefault(text, _Sentence(int(source[1]), text, f"{heading}: {text}" if heading else text))
    return tuple(found.values())


def _parted(text: str) -> Sequence[str]:
    """Return the sentences of a Markdown text, without code, headings and tables."""
    blocks: list[list[str]] = [[]]
    for line in _FENCED.sub("\n", text).splitlines():
        bullet = _BULLET.match(line)
        if not line.strip() or bullet or _UNQUOTED.match(line):
            blocks.append([])
        if line.strip() and not _UNQUOTED.match(line):
            blocks[-1].append(line[bullet.end() :] if bullet else line)
    joined = (_LINK.sub(r"\1", " ".join(" ".join(block).split())).replace("**", "") for block in blocks)
    parts = (part.strip() for block in joined for part in _END.split(block))
    return [part for part in parts if part.endswith((".", "!", "?")) and _WORD.search(part)]


def _count(text: str) -> int:
    return len(text.split())
