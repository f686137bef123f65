"""Building of a collection: its documents are cut and embedded, and an index has their chunks.

Two steps, each of which can be repeated. First the table of chunks is brought up to date with the source, some
documents a version; a build that was killed goes on where it stopped. Then the index is brought up to date with the
table. Where chunker or encoder changed that is another index, beside the one that is searched until the record of the
build names the new one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

import msgspec
import numpy as np

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.ids import new_id
from mainspring.core.locks import Locks
from mainspring.core.time import Clock
from mainspring.data import duck
from mainspring.data.model import chunks_table
from mainspring.data.ports import LakeTables
from mainspring.vectors.chunk_table import (
    EXAMPLES,
    ChunkTable,
    Document,
    StoredChunks,
    chunk_id,
    text_digest,
)
from mainspring.vectors.chunking.cutting import cut
from mainspring.vectors.chunking.model import Chunk
from mainspring.vectors.declaring import DOCUMENT, END, NUMBER, START, TEXT, Collection
from mainspring.vectors.indexed_words import ENTRIES_AT_ONCE, Words, pages_of
from mainspring.vectors.model import Build, Floats, GateMark, IndexSpec, PastBuild
from mainspring.vectors.ports import Builds, Encoder, TextIndex, TextStore, VectorIndex, VectorStore

Progress = Callable[[str, int, int], None]  # step, done, total
# A new build, its index, that of its words, and the build that is searched -> the results of its gates.
Approve = Callable[[Build, VectorIndex, TextIndex | None, Build | None], Sequence[GateMark]]

_CHUNKS_AT_ONCE = 512  # about as many are lost when a build is killed
_IDS_AT_ONCE = 10_000
_WAIT_S = 3600.0
MOST_CHUNKS = 250_000  # of a document: of one of 50 MB, chunks have 200 bytes
NO_WORDS, NOT_FINITE = "no words", "the encoder gives no finite vector"
TOO_MANY = f"more than {MOST_CHUNKS:,} chunks: split the document, or give chunks more tokens"


def _silent(_step: str, _done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(slots=True)
class _Tally:
    embedded: int = 0
    added: int = 0
    removed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def refuse(self, document: str, reason: str) -> None:
        self.refused[reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples[document] = reason


@dataclass(frozen=True, slots=True)
class _Cut:
    document: Document
    replaced: Sequence[int]
    chunks: Sequence[Chunk]


class GatesNotMet(Conflict):
    """A new index does not pass its gates."""

    def __init__(self, what: str, gates: Sequence[GateMark], *, fix: str | None = None) -> None:
        super().__init__(what, fix=fix)
        self.gates = tuple(gates)


def _approved(
    _build: Build, _index: VectorIndex, _words: TextIndex | None, _served: Build | None
) -> Sequence[GateMark]:
    return ()


class Builder:
    """Builds collections; one build of a collection at a time, across processes."""

    def __init__(
        self,
        lake: LakeTables,
        store: VectorStore,
        builds: Builds,
        locks: Locks,
        clock: Clock,
        texts: TextStore | None = None,
    ) -> None:
        self._lake, self._store, self._builds, self._locks, self._clock = lake, store, builds, locks, clock
        self._texts = texts

    def build(
        self, collection: Collection, encoder: Encoder, progress: Progress = _silent, approve: Approve = _approved
    ) -> Build:
        """Bring a collection up to date with its source, and return the record, which searches use from then on.

        Args:
            approve: Called with a build of another index than the one that is searched, before searches use it; what it
                raises leaves them with that one, and the new index in the store.

        Raises:
            Invalid: The chunker's chunks are longer than the encoder takes, or the encoder's vectors have another
                dimension than it says.
            NotFound: The source has no data.
            Unavailable: The encoder does not answer; what was embedded is kept.
        """
        _check_size(collection, encoder)
        began = time.monotonic()
        with self._locks.hold(f"collection.{collection.name}", wait_s=_WAIT_S):
            version = self._lake.version(collection.source.name)
            if version is None:
                raise NotFound(
                    f"Source {collection.source.name!r} of collection {collection.name!r} has no data.",
                    fix=f"run `mainspring ingest {collection.source.name} FILE`.",
                )
            recipe, tally = collection.recipe(encoder.digest), _Tally()
            self._fill(collection, encoder, recipe, version, tally, progress)
            stored = StoredChunks(self._lake, collection)
            name = collection.index_name(encoder.digest, encoder.dimension)
            spec = IndexSpec(
                dimension=encoder.dimension, metric=collection.metric, fields=dict(collection.index_fields)
            )
            with closing(self._store.create(name, spec)) as index, self._words(collection, name) as words:
                chunks = _bring(index, stored, recipe, tally, progress, words)
                build = Build(
                    collection=collection.name,
                    index=name,
                    spec=spec,
                    source=collection.source.name,
                    source_version=version,
                    table_version=-1 if stored.version is None else stored.version,
                    encoder_name=collection.encoder.name,
                    encoder=encoder.digest,
                    chunker=str(collection.chunk),
                    recipe=recipe,
                    documents=stored.documents(recipe),
                    chunks=chunks,
                    embedded=tally.embedded,
                    added=tally.added,
                    removed=tally.removed,
                    refused=dict(tally.refused),
                    examples={} if collection.key in collection.source.pii else tally.examples,
                    built_at=self._clock.now(),
                    seconds=round(time.monotonic() - began, 3),
                    words=words is not None,
                )
                served = self._builds.get(collection.name)
                new = served is None or served.index != name
                texts = None if words is None else words.index
                gates = self._gates(build, index, texts, served, approve) if new else ()
                build = msgspec.structs.replace(build, history=_history(build, served, gates))
            self._builds.save(build)
            self._drop_others(collection.name, name)
            if self._texts is not None and not collection.words:
                self._texts.drop(name)
        return build

    def _gates(
        self, build: Build, index: VectorIndex, words: TextIndex | None, served: Build | None, approve: Approve
    ) -> Sequence[GateMark]:
        try:
            return approve(build, index, words, served)
        except GatesNotMet as error:
            if served is not None:
                past = build.past(error.gates, used=False)
                self._builds.save(msgspec.structs.replace(served, history=served.after(past)))
            raise

    def _fill(
        self, collection: Collection, encoder: Encoder, recipe: str, version: int, tally: _Tally, progress: Progress
    ) -> None:
        """Bring the table of chunks up to date with a version of the source."""
        with duck.connect() as con:
            table = ChunkTable(con, self._lake, collection, version, self._clock.now())
            plan = table.plan(recipe)
            tally.refused.update(plan.refused)
            tally.examples.update(plan.examples)
            done = 0
            for group in _groups(_cut(collection, encoder, table, tally)):
                _write(table, group, encoder, recipe, tally)
                done += len(group)
                progress("documents", done, plan.waiting)
            gone = [row for rows in plan.gone.values() for row in rows]
            if gone:
                table.write((), recipe, encoder.digest, gone)
        stored = StoredChunks(self._lake, collection)
        if stored.wasted():
            stored.rewrite()

    @contextmanager
    def _words(self, collection: Collection, name: str) -> Iterator[Words | None]:
        """Context with the index of words of a build that has one.

        Raises:
            Invalid: There is no store of texts.
        """
        if not collection.words:
            yield None
            return
        if self._texts is None:
            raise Invalid(f"Collection {collection.name!r} has words, and the project no index of texts.")
        with closing(Words(self._texts, name, collection.filters)) as words:
            yield words

    def _drop_others(self, collection: str, kept: str) -> None:
        prefix = f"{collection}-"
        stores: list[VectorStore | TextStore] = [self._store, *([] if self._texts is None else [self._texts])]
        for store in stores:
            for name in store.names():
                if name != kept and name.startswith(prefix) and "-" not in name.removeprefix(prefix):
                    store.drop(name)

    def prune(self, collection: Collection) -> None:
        """Remove what the source does not have as it is here, with all bytes: rows of the table in every version, and
        entries of the index that is searched; other indexes are dropped. Nothing is embedded; a document that changed
        comes back with the next build.
        """
        with self._locks.hold(f"collection.{collection.name}", wait_s=_WAIT_S):
            stored, build = StoredChunks(self._lake, collection), self._builds.get(collection.name)
            there = self._documents(collection)
            if stored.version is not None:
                stored.rewrite(there)
                self._lake.forget(stored.name)
            self._drop_others(collection.name, "" if build is None else build.index)
            if build is None:
                return
            with closing(self._store.create(build.index, build.spec)) as index:
                removed, documents = _prune(index, there)
                index.compact()
                chunks = index.count()
                if build.words and self._texts is not None:  # made anew, from what is left
                    self._texts.drop(build.index)
                    with closing(Words(self._texts, build.index, collection.filters)) as words:
                        words.take(index)
            version = self._lake.version(stored.name)
            left = msgspec.structs.replace(
                build,
                documents=documents,
                chunks=chunks,
                removed=removed,
                table_version=-1 if version is None else version,
                examples={},
            )
            self._builds.save(left)

    def _documents(self, collection: Collection) -> dict[str, str]:
        """Return the documents that the source has, with their digests."""
        version = self._lake.version(collection.source.name)
        if version is None:
            return {}
        with duck.connect() as con:
            return ChunkTable(con, self._lake, collection, version, self._clock.now()).documents()

    def remove(self, collection: str) -> None:
        """Remove a collection that is declared no more, with all bytes: its record, its chunks, and its indexes."""
        with self._locks.hold(f"collection.{collection}", wait_s=_WAIT_S):
            self._builds.remove(collection)
            self._drop_others(collection, "")
            table = chunks_table(collection)
            if self._lake.version(table) is not None:
                self._lake.replace(table, (), self._lake.describe(table).schema, key=new_id())
                self._lake.forget(table)


def _history(build: Build, served: Build | None, gates: Sequence[GateMark]) -> tuple[PastBuild, ...]:
    if served is None:
        return (build.past(gates),)
    same = served.index == build.index and served.history and not (build.embedded or build.added or build.removed)
    return served.history if same else served.after(build.past(gates))


def _check_size(collection: Collection, encoder: Encoder) -> None:
    if encoder.most_tokens is not None and collection.chunk.size > encoder.most_tokens:
        raise Invalid(
            f"Chunks of collection {collection.name!r} have up to {collection.chunk.size} tokens, and encoder "
            f"{collection.encoder.name!r} takes {encoder.most_tokens}.",
            fix="give the chunker fewer tokens.",
        )


def _cut(collection: Collection, encoder: Encoder, table: ChunkTable, tally: _Tally) -> Iterator[_Cut]:
    for document, replaced in table.waiting():
        chunks = cut(collection.chunk, document.text.replace("\0", "\ufffd"), encoder.count_tokens, MOST_CHUNKS + 1)
        chunks = [chunk for chunk in chunks if chunk.text.strip()]
        if not chunks:
            tally.refuse(document.id, NO_WORDS)
        elif len(chunks) > MOST_CHUNKS:
            tally.refuse(document.id, TOO_MANY)
            chunks = []
        yield _Cut(document, replaced, chunks)


def _groups(documents: Iterable[_Cut]) -> Iterator[list[_Cut]]:
    group: list[_Cut] = []
    for document in documents:
        group.append(document)
        if sum(len(each.chunks) for each in group) >= _CHUNKS_AT_ONCE or len(group) >= _CHUNKS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _write(table: ChunkTable, group: Sequence[_Cut], encoder: Encoder, recipe: str, tally: _Tally) -> None:
    """Embed what has no vector yet, and write the documents whose vectors are all finite."""
    texts = {text_digest(chunk.embedded): chunk.embedded for each in group for chunk in each.chunks}
    vectors = table.known(encoder.digest, texts) if texts else {}
    new = [digest for digest in texts if digest not in vectors]
    if new:
        vectors |= zip(new, _encoded(encoder, [texts[digest] for digest in new]), strict=True)
        tally.embedded += len(new)
    made: list[tuple[Document, Sequence[Chunk], Floats]] = []
    for each in group:
        found = [vectors[text_digest(chunk.embedded)] for chunk in each.chunks]
        if any(not np.isfinite(vector).all() or not vector.any() for vector in found):
            tally.refuse(each.document.id, NOT_FINITE)
        elif found:
            made.append((each.document, each.chunks, np.stack(found)))
    table.write(made, recipe, encoder.digest, [row for each in group for row in each.replaced])


def _encoded(encoder: Encoder, texts: Sequence[str]) -> Floats:
    vectors = np.asarray(encoder.encode(texts), dtype=np.float32)
    if vectors.shape != (len(texts), encoder.dimension):
        raise Invalid(
            f"The encoder gives vectors of shape {vectors.shape} for {len(texts)} texts, and says that it has "
            f"{encoder.dimension} dimensions.",
            fix="declare the dimension that its model has.",
        )
    return vectors


def _bring(
    index: VectorIndex,
    stored: StoredChunks,
    recipe: str,
    tally: _Tally,
    progress: Progress = _silent,
    words: Words | None = None,
) -> int:
    """Bring an index up to date with the table of chunks, and return how many there are."""
    if words is not None:
        words.bring(index)
    wanted, there = stored.ids(recipe), {each for ids in pages_of(index, _IDS_AT_ONCE) for each in ids}
    missing, extra = wanted - there, sorted(there - wanted)
    for entries in stored.entries(recipe, missing) if missing else ():
        if words is not None:
            words.upsert(entries)
        index.upsert(entries)
        tally.added += len(entries)
        progress("chunks", tally.added, len(missing))
    for begin in range(0, len(extra), _IDS_AT_ONCE):
        gone = extra[begin : begin + _IDS_AT_ONCE]
        if words is not None:
            words.index.delete(gone)
        tally.removed += index.delete(gone)
    return len(wanted)


def _prune(index: VectorIndex, documents: Mapping[str, str]) -> tuple[int, int]:
    """Delete the entries that are not of documents as they are; return how many, and of how many documents others are.

    Args:
        documents: Document -> its digest.
    """
    removed, left = 0, set[str]()
    for ids in pages_of(index, ENTRIES_AT_ONCE):
        entries = index.get(ids)
        places = zip(*(entries.fields[name] for name in (DOCUMENT, NUMBER, START, END, TEXT)), strict=True)
        gone = []
        for id_, (document, *place) in zip(entries.ids, places, strict=True):
            if document in documents and id_ == chunk_id(document, documents[document], *place):
                left.add(document)
            else:
                gone.append(id_)
        removed += index.delete(gone) if gone else 0
    return removed, len(left)


def restore(lake: LakeTables, store: VectorStore, locks: Locks, collection: Collection, build: Build) -> VectorIndex:
    """Return the index of a build; one that lacks entries is filled from the table of chunks, unless a build does."""
    index = store.create(build.index, build.spec)
    if index.count() < build.chunks:
        with suppress(Conflict), locks.hold(f"collection.{collection.name}", wait_s=0):
            version = next(iter(lake.readable(chunks_table(collection.name), [build.table_version])), None)
            _bring(index, StoredChunks(lake, collection, version), build.recipe, _Tally())
    return index
