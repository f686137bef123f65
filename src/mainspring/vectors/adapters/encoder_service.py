"""Encoder behind OpenAI's `/v1/embeddings`: a provider, vLLM, Ollama, or whatever else speaks it.

Only the address of the profile is called. A text that the server answers with another vector beside other texts, as
some do in the last digits, keeps the vector that it got first.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Denied, Invalid, Unavailable
from mainspring.core.http_exchange import Reply
from mainspring.core.settings import UpstreamServer
from mainspring.vectors.adapters.service_calls import post
from mainspring.vectors.model import Floats

_TEXTS, _CHARACTERS = 64, 200_000  # of one request
_BYTES_OF_A_TOKEN = 3
_WITHIN_S = 60.0
_PAUSES_S = (0.5, 2.0, 8.0)
_LATER = (408, 409, 425, 429)


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Vector]


class ServiceEncoder:
    """`Encoder` that a server has. How many tokens a text has is estimated: one for each three bytes of UTF-8.

    Args:
        server: Address and credentials, from the profile.
        key: Its key; empty: none is sent.
        model: Name of the model there.
        dimension: Length of its vectors.
        most_tokens: Tokens of a text that it takes; `None`: not known.
        sleep: Waits so many seconds before another attempt.
    """

    def __init__(
        self,
        server: UpstreamServer,
        key: str,
        model: str,
        dimension: int,
        *,
        most_tokens: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._server, self._key, self._model, self._sleep = server, key, model, sleep
        self.dimension, self.most_tokens = dimension, most_tokens
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
        for pause in (*_PAUSES_S, None):
            reply = post(self._server, self._key, "embeddings", body, _WITHIN_S)
            if reply is not None and reply.status == 200:
                return self._read(reply, len(texts))
            if reply is not None and reply.status not in _LATER and reply.status < 500:
                raise self._refused(reply)
            if pause is None:
                break
            self._sleep(pause if reply is None else _pause(reply.headers, pause))
        what = f"The service {self._server.name!r} of encoder model {self._model!r}"
        if reply is not None:
            raise Unavailable(f"{what} answers with status {reply.status}.", fix="ask again later, or see its log.")
        raise Unavailable(
            f"{what} does not answer.", fix=f"start it, or correct its address {self._server.url} in the profile."
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
            raise Invalid(
                f"The service {self._server.name!r} gives vectors of {max(lengths)} dimensions, and the encoder of "
                f"its model {self._model!r} says {self.dimension}.",
                fix=f"write dimension={max(lengths)}.",
            )
        vectors = np.array([rows[place] for place in range(count)], dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(np.divide(vectors, norms, out=vectors, where=norms > 0), dtype=np.float32)

    def _strange(self, what: str) -> Unavailable:
        return Unavailable(f"The service {self._server.name!r} answers with {what}.", fix="check its address.")

    def _refused(self, reply: Reply) -> Invalid | Denied:
        said = f"The service {self._server.name!r} refuses texts for model {self._model!r} with status {reply.status}."
        if reply.status in (401, 403):
            return Denied(said, fix="check the key of the upstream in the profile.")
        return Invalid(said, fix="check the name of the model, and how many tokens it takes.")


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    begin = size = 0
    for place, text in enumerate(texts):
        if place > begin and (place - begin >= _TEXTS or size + len(text) > _CHARACTERS):
            yield texts[begin:place]
            begin, size = place, 0
        size += len(text)
    if begin < len(texts):
        yield texts[begin:]


def _pause(headers: Mapping[str, Any], usual: float) -> float:
    given = headers.get("retry-after", "")
    return min(float(given), 60.0) if given.isascii() and given.isdigit() else usual
