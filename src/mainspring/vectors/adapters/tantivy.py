"""Text indexes in folders by tantivy, which writes and deletes in place.

An index's folder has `fields.json`, `lock/`, and the file `current`: the name of the folder beside it that tantivy
works in. `compact` makes another one, so that no byte of a deleted text stays. Of a text its words are stored, which is
enough to write it anew.
"""

from __future__ import annotations

import math
import shutil
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tantivy import Document, FieldType, Index, IndexWriter, Occur, Query, SchemaBuilder, Searcher
from tantivy import Schema as Layout

from mainspring.core.errors import Corrupt, StorageFull
from mainspring.core.expr.tree import Node
from mainspring.core.files import is_full, make_folder, sync_folder, write_atomic, write_once
from mainspring.core.ids import check_id, new_id
from mainspring.core.locks import FileLocks
from mainspring.core.schema import DType, Schema
from mainspring.vectors.columns import check_fields, check_ids
from mainspring.vectors.conditions import Among, Between, Condition, Every, Null, Some, condition
from mainspring.vectors.model import Hit, no_index, other_spec
from mainspring.vectors.words import asked_words, words

_FIELDS, _CURRENT, _DROPPED = "fields.json", "current", ".dropped-"
_HEAP = 50_000_000  # bytes that a writer gathers before it writes a segment
_ATTEMPTS = 3
_WRITER_THREADS = 1  # a commit makes one segment for each
_DIGITS = 5  # of a score: sums of the same words in another order differ from the seventh on
_FLOATS = (DType.Float32, DType.Float64)


class TantivyTextStore:
    """Text indexes in a folder. Threads and processes may share it: one writes, the others wait.

    Args:
        folder: It is created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for left in folder.glob(f"{_DROPPED}*"):
            shutil.rmtree(left, ignore_errors=True)  # another process may be deleting it

    def create(self, name: str, fields: Schema) -> TantivyTextIndex:
        at = self._folder / check_id(name, "index")
        make_folder(at)
        write_once(at / _FIELDS, msgspec.json.encode(fields))
        if _fields(at) != fields:
            raise other_spec(name)
        return TantivyTextIndex(at)

    def open(self, name: str) -> TantivyTextIndex:
        at = self._folder / check_id(name, "index")
        if not (at / _FIELDS).is_file():
            raise no_index(name)
        return TantivyTextIndex(at)

    def names(self) -> list[str]:
        return sorted(at.parent.name for at in self._folder.glob(f"*/{_FIELDS}") if at.parent.name[0] != ".")

    def drop(self, name: str) -> None:
        at, doomed = self._folder / check_id(name, "index"), self._folder / f"{_DROPPED}{new_id()}"
        if at.is_dir():
            at.rename(doomed)  # all of it at once, so that a kill leaves no half of an index
            sync_folder(self._folder)
            shutil.rmtree(doomed)


def _fields(at: Path) -> Schema:
    try:
        return msgspec.json.decode((at / _FIELDS).read_bytes(), type=dict[str, DType])
    except FileNotFoundError:
        raise no_index(at.name) from None
    except msgspec.DecodeError as error:
        raise Corrupt(f"{at / _FIELDS} cannot be read: {error}.", fix="drop the index and build it anew.") from error


_Mark = tuple[str, int, int]  # folder, and the file in it that each commit makes anew


@dataclass(frozen=True, slots=True)
class _Opened:
    """Snapshot of an index. `mark` tells whether there is a newer one."""

    mark: _Mark
    index: Index
    searcher: Searcher


class TantivyTextIndex:
    """One index in its folder.

    Scores are computed with lengths of texts that tantivy rounds down from 40 words on by up to an eighth, and count
    deleted texts until `compact` or a merge.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fields = _fields(folder)
        self._names = {name: f"f{place}" for place, name in enumerate(self.fields)}
        self._locks = FileLocks(folder / "lock")
        self._opened: _Opened | None = None
        self._opening = threading.Lock()
        if not (folder / _CURRENT).is_file():
            with self._locks.hold("write"):
                if not (folder / _CURRENT).is_file():
                    self._begin(new_id(), ())

    def upsert(self, ids: Sequence[str], texts: Sequence[str], fields: Mapping[str, Sequence[Any]]) -> None:
        columns = check_fields(self.fields, check_ids(ids), fields, texts=len(texts))
        values = {name: column.to_list() for name, column in columns.items()}
        documents = [
            self._document(each, " ".join(words(text)), {name: column[place] for name, column in values.items()})
            for place, (each, text) in enumerate(zip(ids, texts, strict=True))
        ]
        if not documents:
            return
        with self._writing() as (index, writer):
            writer.delete_documents_by_query(_with_ids(index.schema, ids))
            for document in documents:
                writer.add_document(document)

    def delete(self, ids: Sequence[str]) -> int:
        if not ids:
            return 0
        with self._writing() as (index, writer):
            index.reload()
            there = len(index.searcher().search(_with_ids(index.schema, ids), len(ids)).hits)
            writer.delete_documents_by_query(_with_ids(index.schema, ids))
        return there

    def search(self, queries: Sequence[str], k: int, *, where: Node | None = None) -> list[list[Hit]]:
        asked = asked_words(queries, k)
        wanted = None if where is None else condition(where, self.fields)
        opened = self._newest()
        schema, searcher = opened.index.schema, opened.searcher
        passes = None if wanted is None else Query.const_score_query(self._query(wanted, opened), 0.0)
        return [_best(searcher, _matching(schema, each, passes), k) if each else [] for each in asked]

    def count(self) -> int:
        return self._newest().searcher.num_docs

    def compact(self) -> None:
        with self._locks.hold("write"):
            opened = self._newest()
            hits = opened.searcher.search(Query.all_query(), max(1, opened.searcher.num_docs)).hits
            kept = (opened.searcher.doc(address) for _, address in hits)
            self._begin(new_id(), kept)

    def size_bytes(self) -> int:
        return sum(each.stat().st_size for each in self._folder.rglob("*") if each.is_file())

    def close(self) -> None:
        self._opened = None

    @contextmanager
    def _writing(self) -> Iterator[tuple[Index, IndexWriter]]:
        """Hold the one writer; commit at the end unless the block raises."""
        with self._locks.hold("write"), self._disk_errors():
            opened = self._newest()
            index = opened.index
            writer = index.writer(_HEAP, _WRITER_THREADS)
            try:
                # A write that was killed or that found the disk full left files, of names that this one may give again.
                writer.garbage_collect_files()
                yield index, writer
                writer.commit()
                sync_folder(self._folder / opened.mark[0])  # of the names, tantivy does not
            finally:
                writer.wait_merging_threads()

    def _begin(self, name: str, documents: Iterable[Document]) -> None:
        """Make documents the content of the index, in a new folder. The caller holds the lock."""
        at = self._folder / name
        with self._disk_errors():
            make_folder(at)
            writer = Index(self._layout(), str(at), reuse=False).writer(_HEAP, _WRITER_THREADS)
            for document in documents:
                writer.add_document(document)
            writer.commit()
            writer.wait_merging_threads()
        sync_folder(at)
        write_atomic(self._folder / _CURRENT, name.encode())
        for old in self._folder.iterdir():
            if old.is_dir() and old.name not in (name, "lock"):
                shutil.rmtree(old)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:  # all that tantivy raises
            if is_full(self._folder):
                raise StorageFull(f"No space left for {self._folder}.", fix="free some space and try again.") from error
            raise Corrupt(
                f"The text index in {self._folder} does not work: {error}.", fix="drop it and build it anew."
            ) from error

    def _newest(self) -> _Opened:
        """Return the last commit, of whatever process."""
        held = self._opened
        if held is not None and held.mark == self._mark():
            return held
        with self._opening:
            mark = self._mark()
            while True:
                try:
                    with self._disk_errors():
                        self._opened = self._reloaded(mark)
                    return self._opened
                except Corrupt:
                    if mark == (mark := self._mark()):
                        raise  # else a compaction has deleted it meanwhile

    def _reloaded(self, mark: _Mark) -> _Opened:
        if self._opened is not None and self._opened.mark[0] == mark[0]:
            index = self._opened.index
        else:
            index = Index.open(str(self._folder / mark[0]))
            index.config_reader("manual")
        index.reload()
        return _Opened(mark, index, index.searcher())

    def _mark(self) -> _Mark:
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # a compaction has deleted it meanwhile
                name = (self._folder / _CURRENT).read_text("utf-8")
                found = (self._folder / name / "meta.json").stat()
                return name, found.st_ino, found.st_mtime_ns
        raise no_index(self._folder.name)

    def _layout(self) -> Layout:
        builder = SchemaBuilder()
        builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
        builder.add_text_field("words", stored=True, tokenizer_name="whitespace", index_option="freq")
        for name, dtype in self.fields.items():
            own = self._names[name]
            if dtype is DType.String:
                builder.add_text_field(own, stored=True, fast=True, tokenizer_name="raw", index_option="basic")
            elif dtype in _FLOATS:
                builder.add_float_field(own, stored=True, indexed=True, fast=True)
            else:
                builder.add_integer_field(own, stored=True, indexed=True, fast=True)
        return builder.build()

    def _document(self, id: str, text: str, values: Mapping[str, Any]) -> Document:
        document = Document()
        document.add_text("id", id)
        document.add_text("words", text)
        for name, value in values.items():
            dtype, own = self.fields[name], self._names[name]
            if value is None:
                continue
            if dtype is DType.String:
                document.add_text(own, value)
            elif dtype in _FLOATS:
                document.add_float(own, float(value) + 0.0)  # -0.0 is another term
            else:
                document.add_integer(own, int(value))
        return document

    def _query(self, wanted: Condition, opened: _Opened) -> Query:
        if isinstance(wanted, Every):
            parts = [(Occur.Must, self._query(each, opened)) for each in wanted.parts]
            return Query.boolean_query(parts) if parts else Query.all_query()
        if isinstance(wanted, Some):
            parts = [(Occur.Should, self._query(each, opened)) for each in wanted.parts]
            return Query.boolean_query(parts) if parts else Query.empty_query()
        there = Query.exists_query(self._names[wanted.field])
        if isinstance(wanted, Null):
            return there if wanted.negated else _without(Query.all_query(), there)
        own = self._within(wanted, opened)
        return _without(there, own) if wanted.negated else own

    def _within(self, wanted: Among | Between, opened: _Opened) -> Query:
        schema, dtype, own = opened.index.schema, self.fields[wanted.field], self._names[wanted.field]
        if isinstance(wanted, Between) and dtype is not DType.String:
            kind = FieldType.Float if dtype in _FLOATS else FieldType.Integer
            return Query.range_query(schema, own, kind, wanted.low, wanted.high, wanted.low_in, wanted.high_in)
        if isinstance(wanted, Between):
            terms = sorted(term for term, _ in opened.searcher.terms_with_prefix(own, ""))
            values: Sequence[Any] = terms[_start(terms, wanted) : _stop(terms, wanted)]
        elif dtype is DType.String:
            values = wanted.values
        else:
            values = [float(each) if dtype in _FLOATS else int(each) for each in wanted.values]
        return Query.term_set_query(schema, own, values) if values else Query.empty_query()


def _start(terms: Sequence[str], wanted: Between) -> int:
    if wanted.low is None:
        return 0
    return (bisect_left if wanted.low_in else bisect_right)(terms, wanted.low)


def _stop(terms: Sequence[str], wanted: Between) -> int:
    if wanted.high is None:
        return len(terms)
    return (bisect_right if wanted.high_in else bisect_left)(terms, wanted.high)


def _without(all_of: Query, but: Query) -> Query:
    return Query.boolean_query([(Occur.Must, all_of), (Occur.MustNot, but)])


def _with_ids(schema: Layout, ids: Sequence[str]) -> Query:
    return Query.term_set_query(schema, "id", ids)


def _matching(schema: Layout, query: Sequence[str], passes: Query | None) -> Query:
    any_of = [(Occur.Should, Query.term_query(schema, "words", word, "freq")) for word in query]
    found = Query.boolean_query(any_of)
    return found if passes is None else Query.boolean_query([(Occur.Must, found), (Occur.Must, passes)])


def _best(searcher: Searcher, query: Query, k: int) -> list[Hit]:
    """Return the best hits; tantivy orders ties by their place, so all that tie with the last are asked for."""
    most = max(1, searcher.num_docs)
    limit = min(k + 1, most)
    while True:
        hits = [(_rounded(score), at) for score, at in searcher.search(query, limit, count=False).hits]
        if len(hits) < limit or limit == most or hits[-1][0] < hits[k - 1][0]:
            break
        limit = min(4 * limit, most)
    last = hits[k - 1][0] if len(hits) >= k else -math.inf
    found = [Hit(str(searcher.doc(at).get_first("id")), score) for score, at in hits if score >= last]
    return sorted(found, key=lambda hit: (-hit.score, hit.id))[:k]


def _rounded(score: float) -> float:
    return float(f"{score:.{_DIGITS}g}")
