"""A gateway over a collection of two tenants' documents and chains of answers, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec

from kit.encoders import WordEncoder
from kit.language_gateway import LanguageGateway, language_gateway
from kit.serving import Kit
from kit.waiting import wait_until_async
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int64, String
from mainspring.core.settings import UpstreamServer
from mainspring.core.time import DAY, ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.llm.answering import Assemble, assemble
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.usage import Usages
from mainspring.project.catalog import memory_catalog
from mainspring.project.language_models import AppliedModels
from mainspring.project.retrieval import Retrieval
from mainspring.project.served_definitions import (
    ANSWERS,
    COLLECTION,
    MODEL,
    CatalogDefinitions,
)
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.security.model import ApiKey, Binding, Holder, Kind, Role
from mainspring.security.policy import CedarAuthoriser
from mainspring.vectors.adapters.builds import CatalogBuilds
from mainspring.vectors.adapters.memory import MemoryVectorStore
from mainspring.vectors.adapters.memory_text import MemoryTextStore
from mainspring.vectors.building import Builder
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.declaring import Collection, Encoder, Reranker
from mainspring.vectors.model import Build
from mainspring.vectors.open_indexes import OpenIndexes
from mainspring.vectors.ports import CrossEncoder, TextStore, VectorStore

PAGES = Source(
    "pages",
    schema={"path": String, "body": String, "team": String, "section": String, "stars": Int64, "author": String},
    event_time="at",
    id="path",
    pii=["author"],
)
BODIES = {
    "a": {
        "refunds": "Refunds are paid within two weeks to the card.",
        "shipping": "Parcels are shipped abroad by ship.",
        "hours": "The shop opens early on weekdays.",
    },
    "b": {"merger": "The merger with Zebra closes in March.", "salaries": "Salaries are paid on the last weekday."},
}


class Library:
    """Parts that a project has for collections and answers, in memory; and its definitions, as `apply` stores them."""

    def __init__(
        self, *, tenant: bool = True, words: bool = True, vectors: VectorStore | None = None, source: Source = PAGES
    ) -> None:
        self.source = source
        self.lake, self.locks = MemoryLake(), MemoryLocks()
        self.texts: TextStore = MemoryTextStore()
        self.vectors = vectors or MemoryVectorStore()
        self.open_indexes = OpenIndexes(lambda: self.lake, self.vectors, lambda: self.locks, lambda: self.texts)
        self.clock, self.builds = ManualClock(10 * DAY), CatalogBuilds(memory_catalog(), "lake")
        self.prediction_log = MemoryLedger()
        self.collection = Collection(
            "docs", source=source, text="body", key="path", chunk=chunks.sentences(64), encoder=Encoder("words"),
            fields=["section", "stars", "author"], tenant="team" if tenant else None, words=words,
        )  # fmt: skip
        self.words: Any = WordEncoder(64)
        self.judge: CrossEncoder | None = None
        self._encoders: dict[str, Any] = {}
        self.opened_for_queries: list[bool] = []
        self.chains: list[Answers] = []
        self.models: list[LanguageModel] = []
        self.applied = SimpleNamespace(mark=lambda: str(len(self.chains)), current=self.contents)
        self.rollouts = SimpleNamespace(live=tuple)
        self.versions, self.settings = MemoryVersions(), SimpleNamespace(approvals=0)
        self.ingestor = Ingestor(self.lake, self.locks, self.clock, wall=self.clock)

    def land(self, bodies: Mapping[str, Mapping[str, str]] = BODIES) -> None:
        rows = [
            {"path": path, "body": body, "team": team, "section": path[0], "stars": len(path),
             "author": f"{path}@x.org", "at": "1970-01-02T00:00:00Z"}
            for team, pages in bodies.items()
            for path, body in pages.items()
        ]  # fmt: skip
        self.ingestor.ingest(self.source, rows, keyings={}, batch_id=str(sorted(row["path"] for row in rows)))

    def encoder(self, _declared: Encoder, digest: str | None = None, *, for_queries: bool = False) -> Any:
        self.opened_for_queries.append(for_queries)
        self._encoders[self.words.digest] = self.words
        return self._encoders[digest or self.words.digest]

    def reranker(self, _declared: Reranker) -> CrossEncoder:
        assert self.judge is not None
        return self.judge

    def build(self) -> Build:
        texts = self.texts if self.collection.words else None
        builder = Builder(self.lake, self.vectors, self.builds, self.locks, self.clock, texts)
        return builder.build(self.collection, self.encoder(self.collection.encoder))

    def contents(self) -> dict[tuple[str, str], str]:
        stored: Iterable[tuple[str, Any, Any]] = [
            (COLLECTION, self.collection, self.collection.stored()),
            *((ANSWERS, each, each.stored()) for each in self.chains),
            *((MODEL, each, each) for each in self.models),
        ]
        return {(kind, item.name): msgspec.json.encode(told).decode() for kind, item, told in stored}


@dataclass
class HeldKeys:
    """Keys whose owners have roles; others have none."""

    inner: Any
    roles: dict[str, frozenset[Binding]] = field(default_factory=dict)
    groups: dict[str, frozenset[str]] = field(default_factory=dict)

    def find(self, key_id: str) -> ApiKey | None:
        key = self.inner.find(key_id)
        if key is None or key_id not in self.roles:
            return key
        held = Holder(f"of-{key_id}", Kind.SERVICE, "service", self.groups[key_id], self.roles[key_id])
        return replace(key, owner=held.id, holder=held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class Asked:
    """A gateway that is asked over HTTP."""

    gateway: LanguageGateway
    http: httpx.AsyncClient
    models: AppliedModels
    frozen: list[bool]
    looks: list[float]  # at the catalog, that searches waited for
    away: list[bool]  # with an element: such a look finds no catalog

    def freeze(self) -> None:
        """Let the gateway hear of nothing new, unless it looks by itself."""
        self.frozen.append(True)

    def key(self, *resources: str, group: str = "") -> str:
        """Return a key of an account with the role analyst on some resources, in a group."""
        token = self.gateway.kit.key().removeprefix("Bearer ")
        keys: Any = self.gateway.kit.keys
        keys.roles[token.split("_")[1]] = frozenset(Binding(Role.ANALYST, each) for each in resources)
        keys.groups[token.split("_")[1]] = frozenset([group] if group else [])
        return token

    async def post(self, path: str, body: Any, key: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.gateway.key}"}
        return await self.http.post(f"{self.gateway.url}{path}", json=body, headers=headers)

    async def search(self, key: str = "", **body: Any) -> Any:
        answer = await self.post("/collections/docs/search", body, key)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]


@asynccontextmanager
async def answer_gateway(
    project: Any,
    servers: Mapping[str, UpstreamServer] | None = None,
    put_together: Assemble = assemble,
    authoriser: CedarAuthoriser | None = None,
) -> AsyncIterator[Asked]:
    """Serve the chains and collections of a library, or of a project, once they are known."""
    kit = Kit()
    kit.keys = HeldKeys(kit.keys)  # type: ignore[assignment]
    definitions, text, frozen, looks, away = (
        CatalogDefinitions(project),
        [""],
        list[bool](),
        list[float](),
        list[bool](),
    )

    def read() -> str:
        new = text[0] if frozen else definitions.read()
        text[0] = text[0] if text[0] == new else new
        return text[0]

    def look(within_s: float) -> str | None:
        looks.append(within_s)
        return None if away else CatalogDefinitions(project).read()

    retrieval = Retrieval(project, look, Usages(None, project.clock))
    models = AppliedModels(read, servers or {}, put_together, retrieval)
    serving = language_gateway({}, kit=kit, source=models, authoriser=authoriser)
    async with serving as gateway, httpx.AsyncClient(trust_env=False) as http:
        await wait_until_async(lambda: bool(retrieval.collections), "the collection")
        yield Asked(gateway, http, models, frozen, looks, away)


def sources(results: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return the documents of the hits of each query."""
    return [[hit["source"] for hit in hits] for hits in results]
