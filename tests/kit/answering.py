"""Language models and a search for the tests of answers, all deterministic and in this process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mainspring.core.expr.tree import Node, col
from mainspring.core.schema import String
from mainspring.data.model import Source
from mainspring.llm.answers.model import Passage, Retrieved
from mainspring.llm.model import (
    Call,
    ChatReply,
    ChatRequest,
    Choice,
    EmbeddingsReply,
    EmbeddingsRequest,
    Events,
    Message,
    Text,
    Usage,
)
from mainspring.security.model import Principal
from mainspring.vectors.adapters.memory import MemoryVectorIndex
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.declaring import Collection, Encoder
from mainspring.vectors.model import Entries, Floats, Hit, IndexSpec

CALL = Call(id="r1", caller=Principal("key-1", "key one", frozenset()), begun=0)
PAGES = Source("pages", schema={"path": String, "body": String}, event_time="at", id="path")
COLLECTION = Collection(
    "docs", source=PAGES, text="body", key="path", chunk=chunks.sentences(64), encoder=Encoder("words")
)
_WORD = re.compile(r"\w+")
_SOURCE = re.compile(r'<source number="(\d+)"[^>]*>\n(.*?)\n</source>', re.DOTALL)


def words(text: str) -> list[str]:
    return [each.casefold() for each in _WORD.findall(text)]


class ScriptedModel:
    """A model whose replies a function of the request writes. `asked` has the requests."""

    def __init__(self, reply: Callable[[ChatRequest], str] | str, finish: str = "stop") -> None:
        self._reply, self._finish = reply, finish
        self.asked: list[ChatRequest] = []

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        self.asked.append(request)
        text = self._reply if isinstance(self._reply, str) else self._reply(request)
        said = Message(role="assistant", content=(Text(text),))
        read = sum(len(words(each.text)) for each in request.messages)
        usage = Usage(prompt=read, completion=len(words(text)))
        return ChatReply(id="c1", model="scripted", choices=(Choice(message=said, finish=self._finish),), usage=usage)

    def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        raise NotImplementedError

    async def embed(self, request: EmbeddingsRequest, call: Call) -> EmbeddingsReply:
        raise NotImplementedError


def extracted(request: ChatRequest) -> str:
    """Return the sentence of the sources that shares most words with the question, cited; or that there is none."""
    asked = request.messages[-1].text
    wanted = {word for word in words(asked.rpartition("Question: ")[2]) if len(word) > 3}
    sentences = [
        (len(wanted & set(words(sentence))), -int(number), sentence.strip().rstrip("."))
        for number, text in _SOURCE.findall(asked)
        for sentence in re.split(r"(?<=[.!?])\s+", text)
    ]
    shared, number, sentence = max(sentences)
    return f"{sentence} [{-number}]." if shared >= 2 else "NOT FOUND"


class WordEncoder:
    """Texts as counts of their words, by hashed places."""

    dimension = 256
    digest = "words-256"
    most_tokens = None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(words(text)) for text in texts]

    def encode(self, texts: Sequence[str]) -> Floats:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                vectors[row, int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % self.dimension] += 1.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


@dataclass
class Documents:
    """A search over documents of several tenants, each one chunk. `version` counts the changes."""

    texts: Mapping[str, str]
    owners: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._encoder, self._index = (
            WordEncoder(),
            MemoryVectorIndex(IndexSpec(dimension=256, fields={"owner": String})),
        )
        self._known: dict[str, str] = {}
        self.version = 0
        self.change(self.texts)

    def change(self, texts: Mapping[str, str]) -> None:
        ids, owners = [*texts], [self.owners.get(each, "all") for each in texts]
        self._index.upsert(Entries(ids, self._encoder.encode([*texts.values()]), {"owner": owners}))
        self._known |= texts
        self.version += 1

    def search(self, queries: Sequence[str], k: int, where: Node | None = None) -> list[list[Hit]]:
        return self._index.search(self._encoder.encode(queries), k, where=where)

    def retrieve(self, query: str, k: int, *, where: Node | None = None, tenant: str | None = None) -> Retrieved:
        theirs = None if tenant is None else col("owner") == tenant
        both = theirs if where is None else where if theirs is None else theirs & where
        passages = [
            Passage(
                id=f"{hit.id}#0",
                score=hit.score,
                document=hit.id,
                start=0,
                end=len(self._known[hit.id]),
                text=self._known[hit.id],
            )
            for hit in self.search([query], k, both)[0]
        ]
        return Retrieved(passages=tuple(passages), version=f"documents/{self.version}")
