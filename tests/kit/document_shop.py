"""A shop with documents in a collection, an evaluation set, and what a project has for both, in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kit.console.flights import declared as definitions
from kit.encoders import WordEncoder
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import String
from mainspring.core.time import DAY, ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.delivery.adapters.catalog import CatalogRollouts
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.operations.collection_evaluation import evaluate_collection
from mainspring.operations.collection_measures import approving
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.vectors.adapters.builds import CatalogBuilds
from mainspring.vectors.adapters.memory import MemoryVectorStore
from mainspring.vectors.adapters.memory_text import MemoryTextStore
from mainspring.vectors.building import Builder
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.declaring import Collection, Encoder
from mainspring.vectors.evaluation.declaring import EvaluationSet
from mainspring.vectors.model import Build
from mainspring.vectors.open_indexes import OpenIndexes

PAGES = Source("pages", schema={"path": String, "body": String, "team": String}, event_time="at", id="path")
ASKED = Source("asked", schema={"q": String, "doc": String, "kind": String, "team": String}, event_time="at")
BODIES = {
    "refunds": "Refunds are paid within two weeks to the card.",
    "shipping": "Parcels are shipped abroad by ship.",
    "hours": "The shop opens early on weekdays.",
    "staff": "Only staff may enter the kitchen.",
}
QUESTIONS = [
    ("refunds paid to the card within two weeks", "refunds", "long"),
    ("parcels shipped abroad", "shipping", "short"),
    ("shop opens early", "hours", "short"),
    ("staff kitchen", "staff", "short"),
    ("a zebra on the moon", None, "none"),
]


class Blind(WordEncoder):
    """An encoder to which all documents look nearly alike, and queries like nothing."""

    def __init__(self) -> None:
        super().__init__(dimension=16, seed=9)

    def _word(self, word: str) -> Any:
        return super()._word(word) if word in ("zebra", "moon") else super()._word("one")


class Shop:
    """Parts that a project has for its collections."""

    def __init__(self, tenant: bool = False, **more: Any) -> None:
        self.lake, self.vectors, self.locks = MemoryLake(), MemoryVectorStore(), MemoryLocks()
        self.texts = MemoryTextStore()
        self.open_indexes = OpenIndexes(lambda: self.lake, self.vectors, lambda: self.locks, lambda: self.texts)
        engine = memory_catalog()
        self.clock, self.builds = ManualClock(10 * DAY), CatalogBuilds(engine, "lake")
        self.versions, self.rollouts = MemoryVersions(), CatalogRollouts(engine)
        team = "team" if tenant else None
        questions = EvaluationSet("questions", source=ASKED, query="q", relevant="doc", tags="kind", tenant=team)
        self.declared = Collection(
            "docs", source=PAGES, text="body", key="path", chunk=chunks.sentences(64), encoder=Encoder("words"),
            tenant=team, **{"evaluation": questions, **more},
        )  # fmt: skip
        self.answers: dict[str, Any] = {}
        self.sets = {"questions": questions}
        self.definitions = definitions(
            collections={"docs": self.declared}, evaluation_sets=self.sets, answers=self.answers
        )
        self.prediction_log = self.predictions = MemoryLedger()
        self.events: list[Any] = []
        self.audit, self.wall = SimpleNamespace(append=self.events.extend), self.clock
        self.settings = SimpleNamespace(upstreams={}, approvals=0)
        self.now: Any = WordEncoder(64)
        self._encoders: dict[str, Any] = {}
        self.ingestor = Ingestor(self.lake, self.locks, self.clock, wall=self.clock)
        self.land(BODIES)
        at = "1970-01-02T00:00:00Z"
        rows = [{"q": q, "doc": doc, "kind": kind, "team": "a", "at": at} for q, doc, kind in QUESTIONS]
        self.ingestor.ingest(ASKED, rows, keyings={})

    def land(self, bodies: dict[str, str], team: str = "a") -> None:
        rows = [
            {"path": path, "body": body, "team": team, "at": "1970-01-02T00:00:00Z"} for path, body in bodies.items()
        ]
        self.ingestor.ingest(PAGES, rows, keyings={}, batch_id=f"{len(self._encoders)} {sorted(bodies)} {team}")

    def encoder(self, _declared: Encoder, digest: str | None = None, **_: bool) -> Any:
        self._encoders[self.now.digest] = self.now
        return self._encoders[digest or self.now.digest]

    def build(self, encoder: Any | None = None) -> Build:
        self.now = encoder or self.now
        builder = Builder(self.lake, self.vectors, self.builds, self.locks, self.clock, self.texts)
        return builder.build(self.declared, self.encoder(self.declared.encoder), approve=approving(self, self.declared))

    def evaluate(self, **more: Any) -> Any:
        return evaluate_collection(self, "docs", **more)
