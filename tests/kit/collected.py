"""A lake with pages, and what builds collections of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mainspring.core.catalog import CatalogEngine
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import DType
from mainspring.core.time import DAY, ManualClock
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.data.ports import LakeTables
from mainspring.project.catalog import memory_catalog
from mainspring.vectors import searching
from mainspring.vectors.adapters.builds import CatalogBuilds
from mainspring.vectors.adapters.memory import MemoryVectorStore
from mainspring.vectors.adapters.memory_text import MemoryTextStore
from mainspring.vectors.building import Builder, restore
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.chunking.model import Chunker
from mainspring.vectors.declaring import Collection, Encoder
from mainspring.vectors.model import Build
from mainspring.vectors.ports import TextStore, VectorStore
from mainspring.vectors.searching import Found

NOW = int(datetime(2026, 1, 10, tzinfo=UTC).timestamp() * 1e6)
TEXTS = dict.fromkeys(("path", "body", "section", "team"), DType.String)
PAGES = Source("pages", schema={**TEXTS, "void": DType.Boolean}, event_time="at", id="path", retracted="void")
ENCODER = Encoder("words")
BODY = "# Guide\n\nInstall it with pip.\n\n## Errors\n\nDisk full means no space.\n"


MARKDOWN = chunks.markdown(24, 4)


def collection(chunk: Chunker = MARKDOWN, **others: Any) -> Collection:
    given = {"fields": ["section"], **others}
    return Collection("docs", source=PAGES, text="body", key="path", chunk=chunk, encoder=ENCODER, **given)


class Desk:
    """A lake with pages, and what builds collections of them."""

    def __init__(self, lake: LakeTables, engine: CatalogEngine | None = None) -> None:
        self.lake, self.locks = lake, MemoryLocks()
        self.store: VectorStore = MemoryVectorStore()
        self.texts: TextStore = MemoryTextStore()
        self.clock = ManualClock(NOW)
        self.engine = engine or memory_catalog()
        self.builds = CatalogBuilds(self.engine, "lake")
        self.ingestor = Ingestor(lake, self.locks, self.clock, wall=self.clock)
        self._batch = 0

    def land(self, *rows: dict[str, Any]) -> None:
        self._batch += 1
        at = NOW - 20 * DAY + self._batch * 1_000_000
        base = {"body": None, "section": None, "team": "a", "void": False}
        filled = [{**base, **row, "at": datetime.fromtimestamp((at + n) / 1e6, UTC)} for n, row in enumerate(rows)]
        self.ingestor.ingest(PAGES, pa.Table.from_pylist(filled), keyings={}, batch_id=str(self._batch))

    def build(self, encoder: Any, declared: Collection | None = None) -> Build:
        builder = Builder(self.lake, self.store, self.builds, self.locks, self.clock, self.texts)
        return builder.build(declared or collection(), encoder)

    def search(
        self, encoder: Any, query: str, k: int = 3, declared: Collection | None = None, **given: Any
    ) -> list[Found]:
        declared = declared or collection()
        build = self.builds.get(declared.name)
        assert build is not None
        index = restore(self.lake, self.store, self.locks, declared, build)
        if build.words:
            given["words"] = self.texts.open(build.index)
        return searching.search(declared, build, index, encoder, [query], k, **given)[0]

    def documents(self) -> dict[str, list[str]]:
        """Return document -> texts of its chunks, as the index has them."""
        build = self.builds.get("docs")
        assert build is not None
        index = self.store.open(build.index)
        entries = index.get(index.ids(count=100_000))
        found: dict[str, list[tuple[int, str]]] = {}
        for place in range(len(entries)):
            at = {name: column[place] for name, column in entries.fields.items()}
            found.setdefault(at["chunk_document"], []).append((at["chunk_number"], at["chunk_text"]))
        return {name: [text for _, text in sorted(parts)] for name, parts in sorted(found.items())}
