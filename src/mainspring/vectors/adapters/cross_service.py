"""Cross-encoder behind a `/rerank`, as Cohere, Jina, vLLM and the server of llama.cpp have it.

Only the address of the profile is called, once for each query: who asks has an order to go on with, and no time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence

import msgspec

from mainspring.core.errors import Denied, Invalid, Unavailable
from mainspring.core.http_exchange import Reply
from mainspring.core.settings import UpstreamServer
from mainspring.vectors.adapters.service_calls import Circuit, post

_LATER = (408, 409, 425, 429)


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Answer(msgspec.Struct):
    results: list[_Result]


class ServiceCrossEncoder:
    """`CrossEncoder` that a server has.

    Args:
        server: Address and credentials, from the profile.
        key: Tells its key; empty: none is sent.
        model: Name of the model there.
    """

    def __init__(self, server: UpstreamServer, key: Callable[[], str], model: str) -> None:
        self._server, self._key, self._model = server, key, model
        self._circuit = Circuit()
        named = json.dumps(["rerank", server.name, model])
        self.digest = hashlib.sha256(named.encode()).hexdigest()

    def score(self, query: str, texts: Sequence[str], *, within_s: float) -> list[float]:
        if not texts:
            return []
        asked = {"model": self._model, "query": query, "documents": list(texts), "top_n": len(texts)}
        what = f"The service {self._server.name!r} of reranker model {self._model!r}"
        if not self._circuit.begin():
            raise Unavailable(f"{what} did not answer within {within_s:g} s, and is not asked for a while.")
        reply = None
        try:
            reply = post(self._server, self._key(), "rerank", json.dumps(asked).encode(), within_s)
        finally:
            self._circuit.ended(answered=reply is not None)
        if reply is None:
            raise Unavailable(f"{what} does not answer within {within_s:g} s.")
        if reply.status in (401, 403):
            raise Denied(f"{what} refuses with status {reply.status}.", fix="check the key of the upstream.")
        if reply.status in _LATER or reply.status >= 500:
            raise Unavailable(f"{what} answers with status {reply.status}.")
        if reply.status != 200:
            raise Invalid(f"{what} refuses with status {reply.status}.", fix="check the name of the model.")
        return self._read(what, reply, len(texts))

    def _read(self, what: str, reply: Reply, count: int) -> list[float]:
        try:
            answer = msgspec.json.decode(reply.body, type=_Answer)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"{what} answers with no list of scores: {error}.", fix="check its address.") from error
        scores = {each.index: each.relevance_score for each in answer.results}
        if scores.keys() != set(range(count)) or len(answer.results) != count:
            raise Unavailable(f"{what} answers with {len(answer.results)} scores for {count} texts.")
        if not all(map(math.isfinite, scores.values())):
            raise Unavailable(f"{what} answers with a score that is no finite number.")
        return [scores[place] for place in range(count)]
