"""Earlier answers of language models for the same question, each caller's apart: the same to the byte, or by meaning.

Answers are kept in this process's memory, bounded in bytes and in time; of a prompt a digest is kept, and for the
semantic cache a vector. Nobody gets an answer that was made for another account (or key without one). None outlives an
erasure: it may quote the person, and whom a prompt is about is not known, so all are forgotten.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid, QuotaExceeded
from mainspring.core.time import parse_duration
from mainspring.llm.flights import Flight, Room
from mainspring.llm.limits import AnswerCache, repeatable
from mainspring.llm.model import (
    LENGTH,
    STOP,
    TOOL_CALLS,
    Call,
    ChatReply,
    ChatRequest,
    EmbeddingsReply,
    EmbeddingsRequest,
    Events,
    Message,
    Text,
)
from mainspring.llm.ports import Answering
from mainspring.serving.caching.answers import Answers
from mainspring.stats.quality_figures import share_interval
from mainspring.vectors.model import Floats
from mainspring.vectors.ports import Encoder

EXACT, SEMANTIC = "exact", "semantic"
_WHOLE = frozenset({STOP, LENGTH, TOOL_CALLS})


def digest(version: str, owner: str, request: ChatRequest) -> bytes:
    """Return the digest of all that an answer depends on.

    Args:
        version: Of the declared model: another one answers anew.
    """
    of = blake2b(msgspec.json.encode((version, owner)), digest_size=32)
    of.update(msgspec.json.encode(request))
    return of.digest()


class Cached:
    """Answers like those before, where a request allows that.

    Args:
        version: Of the declared model.
        erasures: Returns a mark of the last erasure of a person's data. Answers are of one mark: with another, all that
            are kept are forgotten, and those under way are not kept.
    """

    def __init__(
        self,
        answering: Answering,
        cache: AnswerCache,
        version: str,
        now: Callable[[], int],
        semantic: SemanticCache | None = None,
        erasures: Callable[[], str] = lambda: "",
    ) -> None:
        self._erasures, self._erased = erasures, erasures()
        self._inner = answering
        self._semantic = semantic
        self._cache = cache
        self._version = version
        self.answers = Answers(cache.most_bytes, parse_duration(cache.ttl), now)
        self._flights: dict[bytes, Flight] = {}
        self._room = Room(cache.most_bytes)

    def keeps(self, request: ChatRequest) -> bool:
        """Return whether a request's answer may be an earlier one."""
        return (self._cache.sampled or request.sampling.temperature == 0) and repeatable(request)

    def erase(self, owner: str | None = None) -> int:
        """Forget the answers that were made for an owner, or all, and return how many there were."""
        if self._semantic is not None:
            self._semantic.erase()
        return self.answers.erase(owner)

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        if not self.keeps(request):
            return await self._inner.chat(request, call)
        key, known, place = await self._known(request, call)
        if known is not None:
            found: ChatReply = known
            return found
        flight, first = self._joined(key, lambda flight: self._make(key, flight, request, call, place))
        try:
            reply = await flight.whole()
        except QuotaExceeded:  # of the first caller's key
            if first:
                raise
            return await self._inner.chat(request, call)
        finally:
            await self._leave(key, flight)
        if not first:
            call.outcome.cached = EXACT
        return reply

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        events: AsyncGenerator[Events, None]
        if not self.keeps(request):
            async with aclosing(self._inner.stream(request, call)) as events:
                async for batch in events:
                    yield batch
            return
        key, known, place = await self._known(request, call)
        if known is not None:
            for batch in known:
                yield batch
            return
        flight, first = self._joined(key, lambda flight: self._follow(key, flight, request, call, place))
        begun = False
        try:
            async for batch in flight.events():
                begun = True
                if not first:
                    call.outcome.cached = EXACT
                yield batch
            return
        except QuotaExceeded:  # of the first caller's key
            if first or begun:
                raise
        finally:
            await self._leave(key, flight)
        async with aclosing(self._inner.stream(request, call)) as events:
            async for batch in events:
                yield batch

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        return await self._inner.embed(request, call)

    async def _known(self, request: ChatRequest, call: Call) -> tuple[bytes, Any, Any]:
        """Return the request's digest, its earlier answer if there is one, and its place in the semantic cache."""
        owner = call.owner
        self._follow_erasures()
        key, place = digest(f"{self._version} {self._erased}", owner, request), None
        found = self.answers.get(key)
        if found is not None:
            call.outcome.cached = EXACT
        elif self._semantic is not None and call.alike:
            alike, place = await self._semantic.find(self._version, owner, request)
            if alike is not None and (found := self.answers.get(alike)) is not None:
                call.outcome.cached = SEMANTIC
        return key, found, place

    def _follow_erasures(self) -> None:
        if (mark := self._erasures()) != self._erased:
            self.erase()
            self._erased = mark

    def _joined(self, key: bytes, work: Callable[[Flight], Awaitable[None]]) -> tuple[Flight, bool]:
        """Return the flight of a request, and whether it begins with it."""
        flight, first = self._flights.get(key), False
        if flight is None:
            flight, first = Flight(self._room), True
            self._flights[key] = flight
            flight.begin(work(flight))
        flight.users += 1
        return flight, first

    async def _make(self, key: bytes, flight: Flight, request: ChatRequest, call: Call, place: Any) -> None:
        erased = self._erased
        try:
            reply = await self._inner.chat(request, call)
            if all(choice.finish in _WHOLE for choice in reply.choices):
                size = len(reply.raw) + sum(len(choice.message.text) for choice in reply.choices)
                self._keep(key, call, reply, size, place, erased)
            flight.reply = reply
        finally:
            self._end(key, flight)

    async def _follow(self, key: bytes, flight: Flight, request: ChatRequest, call: Call, place: Any) -> None:
        erased = self._erased
        try:
            async with aclosing(self._inner.stream(request, call)) as events:
                async for batch in events:
                    await flight.add(batch)
                    if not flight.kept:
                        self._end(key, flight)
            finishes = {event.finish for batch in flight.batches for event in batch if event.finish}
            if flight.kept and finishes and finishes <= _WHOLE and not call.outcome.cut:
                self._keep(key, call, tuple(flight.batches), flight.nbytes, place, erased)
        finally:
            self._end(key, flight)

    async def _leave(self, key: bytes, flight: Flight) -> None:
        flight.users -= 1
        if not flight.users:
            self._end(key, flight)
            await flight.stop()

    def _end(self, key: bytes, flight: Flight) -> None:
        """Let nobody join a flight any more."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _keep(self, key: bytes, call: Call, answer: object, size: int, place: Any, erased: str) -> None:
        self._follow_erasures()
        if erased != self._erased:
            return
        self.answers.put(key, call.owner, answer, size)
        if self._semantic is not None:
            self._semantic.add(key, place)


class _Meant:
    """Questions of one owner that are alike but for their last message."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.vectors: list[Any] = []


class SemanticCache:
    """Keys of earlier questions with the same meaning: all but the last message the same, and that one similar.

    Args:
        threshold: Cosine of two questions, from which on one's answer is given for the other. Choose it by
            `wrong_hits` on questions of your own.
        open: Opens the encoder; called once, in a thread.
        most: Conversations that are kept, and questions of each of them.
    """

    def __init__(self, open: Callable[[], Encoder], threshold: float, most: int = 1000) -> None:
        self._open, self.threshold, self._most = open, threshold, most
        self._encoder: Encoder | None = None
        self._known: OrderedDict[bytes, _Meant] = OrderedDict()

    async def find(self, version: str, owner: str, request: ChatRequest) -> tuple[bytes | None, Any]:
        """Return the key under which the most similar question was added, if one is similar enough, and the place of
        this one for `add`; `None` for a request without a last text."""
        group, text = _split(version, owner, request)
        if not text:
            return None, None
        vector = (await asyncio.to_thread(self._encode, text))[0]
        known = self._known.get(group)
        if known is None:
            return None, (group, vector)
        scores = np.stack(known.vectors) @ vector
        best = int(scores.argmax())
        return (known.keys[best] if scores[best] >= self.threshold else None), (group, vector)

    def _encode(self, text: str) -> Floats:
        if self._encoder is None:
            self._encoder = self._open()
        return self._encoder.encode([text])

    def add(self, key: bytes, place: Any) -> None:
        """Remember a question whose answer is known by a key."""
        if place is None:
            return
        group, vector = place
        known = self._known.setdefault(group, _Meant())
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        known.keys.append(key)
        known.vectors.append(vector)
        if len(known.keys) > self._most:
            del known.keys[0], known.vectors[0]

    def erase(self) -> None:
        """Forget all questions."""
        self._known.clear()


@dataclass(frozen=True, slots=True)
class WrongHits:
    """How often a semantic cache would answer another question than the one that was asked.

    Attributes:
        pairs: Labelled pairs of questions.
        hits: Pairs that the threshold takes for the same.
        wrong: Hits whose questions have different answers.
        missed: Pairs of the same answer that it takes for different.
        rate: `wrong / hits`, with its interval `low` to `high`; `None` without hits.
    """

    threshold: float
    pairs: int
    hits: int
    wrong: int
    missed: int
    rate: float | None
    low: float | None
    high: float | None


def wrong_hits(
    encoder: Encoder, labelled: Sequence[tuple[str, str, bool]], thresholds: Sequence[float]
) -> list[WrongHits]:
    """Measure the wrong hits of thresholds on pairs of questions, each with whether both have the same answer.

    The interval is of 95% confidence and holds for few hits (see `stats.quality_figures.share_interval`).

    Raises:
        Invalid: There is no pair.
    """
    if not labelled:
        raise Invalid("There are no labelled pairs of questions.", fix="give some of each kind.")
    one = encoder.encode([pair[0] for pair in labelled])
    other = encoder.encode([pair[1] for pair in labelled])
    scores = (one * other).sum(axis=1)
    same = np.array([pair[2] for pair in labelled], dtype=bool)
    found = []
    for threshold in thresholds:
        hit = scores >= threshold
        hits, wrong = int(hit.sum()), int((hit & ~same).sum())
        low, high = share_interval(wrong, hits) if hits else (None, None)
        missed = int((~hit & same).sum())
        rate = wrong / hits if hits else None
        found.append(WrongHits(threshold, len(labelled), hits, wrong, missed, rate, low, high))
    return found


def _split(version: str, owner: str, request: ChatRequest) -> tuple[bytes, str]:
    """Return the digest of a request without the text of its last message, and that text."""
    if not request.messages or request.messages[-1].role != "user":
        return b"", ""
    last = request.messages[-1]
    rest = tuple(part for part in last.content if not isinstance(part, Text))
    without: Message = msgspec.structs.replace(last, content=rest)
    messages = (*request.messages[:-1], without)
    return digest(version, owner, msgspec.structs.replace(request, messages=messages)), last.text
