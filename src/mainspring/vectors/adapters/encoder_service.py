"""Encoder behind OpenAI's `/v1/embeddings`: a provider, vLLM, Ollama, or whatever else speaks it.

Only the address of the profile is called. A text that the server answers with another vector beside other texts, as
some do in the last digits, keeps the vector that it got first.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Denied, Invalid, MainspringError, Unavailable
from mainspring.core.http_exchange import Reply
from mainspring.core.settings import UpstreamServer
from mainspring.vectors.adapters.service_calls import Circuit, post
from mainspring.vectors.model import EncoderAway, Floats

_TEXTS, _CHARACTERS = 64, 200_000  # of one request
_BYTES_OF_A_TOKEN = 3
_LATER = (408, 409, 425, 429)
_MOST_SAID = 300  # characters of a service's reason
_TOO_LONG = re.compile(
    r"context.{0,9}(length|size|window)|too (long|large|many tokens)|(max|most|limit|exceed).{0,60}(token|length|input)"
    r"|token.{0,60}(max|limit|exceed)",
    re.IGNORECASE | re.DOTALL,
)


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Vector]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a service is waited for.

    Attributes:
        within_s: For an answer.
        pauses_s: Before each further attempt, unless the service says when.
        most_pause_s: The longest of what a service says.
        again_s: After so many seconds no further attempt begins.
    """

    within_s: float
    pauses_s: tuple[float, ...]
    most_pause_s: float = 60.0
    again_s: float = math.inf


BUILDS = Patience(60.0, (0.5, 2.0, 8.0))


class ServiceEncoder:
    """`Encoder` that a server has. How many tokens a text has is estimated: one for each three bytes of UTF-8.

    Args:
        server: Address and credentials, from the profile.
        key: Tells its key; empty: none is sent.
        model: Name of the model there.
        dimension: Length of its vectors.
        most_tokens: Tokens of a text that it takes; `None`: not known.
        within_s: Where callers wait, who can mend their query alone: the service is waited for so long, is not asked
            while it lets callers wait in vain, and all but a query that is too long is `EncoderAway`.
        sleep: Waits so many seconds before another attempt.
    """

    def __init__(
        self,
        server: UpstreamServer,
        key: Callable[[], str],
        model: str,
        dimension: int,
        *,
        most_tokens: int | None = None,
        within_s: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._server, self._key, self._model, self._sleep = server, key, model, sleep
        self.dimension, self.most_tokens = dimension, most_tokens
        self._for_queries = within_s is not None
        self._patience = BUILDS if within_s is None else Patience(within_s, (0.25,), 0.5, again_s=0.5)
        self._circuit = None if within_s is None else Circuit()
        named = json.dumps(["service", server.name, model, dimension])
        self.digest = hashlib.sha256(named.encode()).hexdigest()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [math.ceil(len(text.strip().encode()) / _BYTES_OF_A_TOKEN) for text in texts]

    def encode(self, texts: Sequence[str]) -> Floats:
        for place, text in enumerate(texts):
            if not text.strip():
                raise Invalid(f"The text at {place} of {len(texts)} is empty.", fix="leave it out.")
        found = [self._asked(some) for some in _pieces(texts)]
        return np.concatenate(found) if found else np.zeros((0, self.dimension), np.float32)

    def _asked(self, texts: Sequence[str]) -> Floats:
        body = json.dumps({"model": self._model, "input": list(texts), "encoding_format": "float"}).encode()
        if self._circuit is not None and not self._circuit.begin():
            raise self._away()
        reply = None
        try:
            reply = self._exchanged(body)
        finally:
            if self._circuit is not None:
                self._circuit.ended(answered=reply is not None and not _later(reply.status))
        if reply is None:
            raise self._away()
        if reply.status == 200:
            return self._read(reply, len(texts))
        if _later(reply.status):
            raise EncoderAway(
                f"The service {self._server.name!r} of encoder model {self._model!r} answers with status "
                f"{reply.status}.",
                fix="ask again later, or see its log.",
            )
        raise self._refused(reply)

    def _exchanged(self, body: bytes) -> Reply | None:
        """Return what the service answers, after further attempts where these may help; `None` if it does not."""
        patience, began = self._patience, time.monotonic()
        for pause in (*patience.pauses_s, None):
            reply = post(self._server, self._key(), "embeddings", body, patience.within_s)
            if reply is not None and not _later(reply.status):
                break
            if pause is None or time.monotonic() - began > patience.again_s:
                break
            self._sleep(pause if reply is None else _pause(reply.headers, pause, patience.most_pause_s))
        return reply

    def _away(self) -> EncoderAway:
        return EncoderAway(
            f"The service {self._server.name!r} of encoder model {self._model!r} does not answer.",
            fix=f"start it, or correct its address {self._server.url} in the profile.",
        )

    def _read(self, reply: Reply, count: int) -> Floats:
        try:
            answer = msgspec.json.decode(reply.body, type=_Answer)
        except msgspec.MsgspecError as error:
            raise self._strange(f"no list of vectors: {error}") from error
        rows = {each.index: each.embedding for each in answer.data}
        if rows.keys() != set(range(count)) or len(answer.data) != count:
            raise self._strange(f"{len(answer.data)} vectors for {count} texts")
        lengths = {len(row) for row in rows.values()}
        if lengths != {self.dimension}:
            raise self._ours(Invalid)(
                f"The service {self._server.name!r} gives vectors of {max(lengths)} dimensions, and the encoder of "
                f"its model {self._model!r} says {self.dimension}.",
                fix=f"write dimension={max(lengths)}.",
            )
        vectors = np.array([rows[place] for place in range(count)], dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(np.divide(vectors, norms, out=vectors, where=norms > 0), dtype=np.float32)

    def _strange(self, what: str) -> Unavailable:
        return EncoderAway(f"The service {self._server.name!r} answers with {what}.", fix="check its address.")

    def _refused(self, reply: Reply) -> MainspringError:
        reason = "" if reply.status in (401, 403) else _reason(reply.body)
        if key := self._key():
            reason = reason.replace(key, "***")
        if self._for_queries and (reply.status == 413 or (reply.status in (400, 422) and _TOO_LONG.search(reason))):
            return Invalid(
                f"The encoder refuses the text: {reason or 'it is too large.'}", fix="ask with a shorter one."
            )
        said = f"The service {self._server.name!r} refuses texts for model {self._model!r} with status {reply.status}"
        said += f": {reason}" if reason else "."
        if reply.status in (401, 403):
            return self._ours(Denied)(said, fix="check the key of the upstream in the profile.")
        return self._ours(Invalid)(said, fix="check the name of the model, and how many tokens it takes.")

    def _ours(self, kind: type[Invalid] | type[Denied]) -> type[Invalid] | type[Denied] | type[EncoderAway]:
        """Return the kind of an error that whoever sends a query has not caused."""
        return EncoderAway if self._for_queries else kind


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    begin = size = 0
    for place, text in enumerate(texts):
        if place > begin and (place - begin >= _TEXTS or size + len(text) > _CHARACTERS):
            yield texts[begin:place]
            begin, size = place, 0
        size += len(text)
    if begin < len(texts):
        yield texts[begin:]


def _reason(body: bytes) -> str:
    """Return what a service says about an error, as OpenAI's protocol, vLLM, Ollama or FastAPI have it."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict):
            found = found.get(name, found)
    return " ".join(found.split())[:_MOST_SAID] if isinstance(found, str) else ""


def _later(status: int) -> bool:
    """Return whether a request with this answer may be taken at another time."""
    return status in _LATER or status >= 500


def _pause(headers: Mapping[str, Any], usual: float, most: float) -> float:
    given = headers.get("retry-after", "")
    return min(float(given), most) if given.isascii() and given.isdigit() else usual
