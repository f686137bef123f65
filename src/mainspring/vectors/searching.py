"""Search in a collection: the chunks that are nearest to a query, with where they stand in their documents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.expr.tree import Node, col
from mainspring.vectors.bm25 import ranked
from mainspring.vectors.columns import similarities
from mainspring.vectors.declaring import (
    DOCUMENT,
    END,
    FIELD_PREFIX,
    NUMBER,
    PAGE,
    PATH,
    START,
    TEXT,
    Collection,
    path_of,
)
from mainspring.vectors.fusion import Place, fuse
from mainspring.vectors.indexed_words import indexed_texts
from mainspring.vectors.model import Build, Floats, Hit, Mode
from mainspring.vectors.ports import Encoder, TextIndex, VectorIndex
from mainspring.vectors.words import asked_words
from mainspring.vectors.words import words as split_words

MOST_HITS = 1_000
LONGEST_QUERY = 100_000  # characters
_SURROGATE = re.compile("[\ud800-\udfff]")
_FUSED = 5  # times as many hits as asked for are fused


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk that was found.

    Attributes:
        id: Name of the chunk in the index.
        score: Of the search: the similarity to the query, of BM25, or of the fusion of both; more is nearer.
        similarity: Of its vector to the query's; `None` for a search by words alone.
        document: Key of its document, as text.
        number: Place among the document's chunks, from 0.
        start: Offset of its first character in the document.
        end: Offset after its last one.
        path: Headings above it, the outermost first.
        places: For a search by both, vectors and words: where each has it, and what that adds to the score.
        page: Page on which it begins, from 1, of a document with pages.
        fields: The document's values of the collection's columns.
    """

    id: str
    score: float
    document: str
    number: int
    start: int
    end: int
    path: tuple[str, ...]
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    page: int | None = None
    places: Mapping[str, Place] = field(default_factory=dict)
    similarity: float | None = None


def search(
    collection: Collection,
    build: Build,
    index: VectorIndex,
    encoder: Encoder,
    queries: Sequence[str] | Floats,
    k: int = 10,
    *,
    where: Node | None = None,
    tenant: str | None = None,
    effort: float = 1.0,
    words: TextIndex | None = None,
    mode: Mode = "vectors",
) -> list[list[Found]]:
    """Return the nearest chunks of each query, the nearest first.

    Args:
        build: Build that made the index.
        encoder: The encoder that it was built with.
        queries: Texts, or vectors of that encoder, shape (queries, dimension), which have no words.
        where: Condition on the collection's fields.
        tenant: Whose documents are searched; required where the collection has a tenant column, and of no use
            otherwise.
        effort: As of `VectorIndex.search`.
        words: Index of the chunks' words.
        mode: "vectors": by meaning; "words": by the query's words; "hybrid": by both, ranked by reciprocal rank fusion.

    Raises:
        Invalid: A query has no word or is too long, `k` is out of range, the tenant is missing, or the condition is
            not one on the fields.
        Conflict: The encoder is not that of the build.
        Unavailable: The encoder does not answer.
    """
    if encoder.digest != build.encoder:
        raise Conflict(
            f"Collection {collection.name!r} was built with another encoder than that of the queries.",
            fix=f"run `mainspring collections build {collection.name}`.",
        )
    _check_count(k)
    vectors = queries if isinstance(queries, np.ndarray) else None
    texts: Sequence[str] = () if isinstance(queries, np.ndarray) else queries
    _check(texts)
    if not len(queries):
        return []
    condition = condition_of(collection, where, tenant)
    if mode != "vectors" and words is None:
        raise Invalid(f"Collection {collection.name!r} is not found by words.", fix="declare it with words=True.")
    if mode != "vectors" and vectors is not None:
        raise Invalid("A vector has no words.", fix="search with a text, or by vectors alone.")
    if mode == "words" and words is not None:
        return found_of(index, _by_words(collection, index, words, texts, k, condition))
    count = k if mode == "vectors" else max(k, min(_FUSED * k, MOST_HITS))
    asked = encoder.encode(texts) if vectors is None else vectors
    hits = index.search(asked, count, where=condition, effort=effort)
    if words is None or mode == "vectors":
        return [[replace(hit, similarity=hit.score) for hit in some] for some in found_of(index, hits)]
    by_words = _by_words(collection, index, words, texts, count, condition)
    fused = [fuse({"vectors": one, "words": other}, k) for one, other in zip(hits, by_words, strict=True)]
    found = found_of(index, [[Hit(each.id, each.score) for each in some] for some in fused], asked)
    places = [{each.id: each.places for each in some} for some in fused]
    return [[replace(hit, places=theirs[hit.id]) for hit in some] for some, theirs in zip(found, places, strict=True)]


def _by_words(
    collection: Collection,
    index: VectorIndex,
    words: TextIndex,
    texts: Sequence[str],
    k: int,
    condition: Node | None,
) -> list[list[Hit]]:
    """Return the chunks that share words with each query.

    How rare a word is counts among all chunks of an index, so scores and order would tell a tenant about the others'.
    Of a collection with tenants its best `MOST_HITS` chunks are ranked anew, among themselves alone.
    """
    if collection.tenant is None:
        return words.search(texts, k, where=condition)
    found = words.search(texts, MOST_HITS, where=condition)
    ids = list(dict.fromkeys(hit.id for hits in found for hit in hits))
    entries = index.get(ids)
    counted = {id_: Counter(split_words(text)) for id_, text in zip(entries.ids, indexed_texts(entries), strict=True)}
    asked = asked_words(texts, k)
    theirs = [{hit.id: counted[hit.id] for hit in hits if hit.id in counted} for hits in found]
    return [ranked(some, each, set(some))[:k] for each, some in zip(asked, theirs, strict=True)]


def condition_of(collection: Collection, where: Node | None, tenant: str | None) -> Node | None:
    """Return the condition of a search: its own, and the tenant's, which no condition of a caller widens.

    Raises:
        Invalid: The tenant is missing, or the collection has none.
    """
    if (collection.tenant is None) != (tenant is None):
        need = "is of several tenants, and the search of none" if tenant is None else "has no tenants"
        fix = "name the tenant whose documents are searched." if tenant is None else "leave the tenant out."
        raise Invalid(f"Collection {collection.name!r} {need}.", fix=fix)
    if collection.tenant is None:
        return where
    theirs = col(collection.tenant) == tenant
    return theirs if where is None else theirs & where


def found_of(index: VectorIndex, hits: Sequence[Sequence[Hit]], asked: Floats | None = None) -> list[list[Found]]:
    """Return hits with their chunks; those that were deleted since are left out.

    Args:
        asked: Vectors of the queries, for the similarity of each hit.
    """
    ids = list(dict.fromkeys(hit.id for each in hits for hit in each))
    entries = index.get(ids)
    places = {id_: place for place, id_ in enumerate(entries.ids)}

    def similarity(hit: Hit, query: int) -> float | None:
        if asked is None:
            return None
        return float(similarities(index.spec.metric, entries.vectors[places[hit.id]], asked[query]))

    def found(hit: Hit, query: int) -> Found:
        values = {name: column[places[hit.id]] for name, column in entries.fields.items()}
        return Found(
            hit.id,
            hit.score,
            values[DOCUMENT],
            values[NUMBER],
            values[START],
            values[END],
            path_of(str(values[PATH])),
            values[TEXT],
            {name: value for name, value in values.items() if not name.startswith(FIELD_PREFIX)},
            values.get(PAGE),
            similarity=similarity(hit, query),
        )

    return [[found(hit, query) for hit in each if hit.id in places] for query, each in enumerate(hits)]


def _check_count(k: int) -> None:
    if not 1 <= k <= MOST_HITS:
        raise Invalid(f"A search is for {k} chunks.", fix=f"ask for 1 to {MOST_HITS:,}.")


def _check(queries: Sequence[str]) -> None:
    for query in queries:
        if not query.strip():
            raise Invalid("A query has no words.", fix="write what is searched for.")
        if len(query) > LONGEST_QUERY:
            raise Invalid(f"A query has {len(query):,} characters.", fix=f"write at most {LONGEST_QUERY:,}.")
        if _SURROGATE.search(query):
            raise Invalid("A query has a lone surrogate, which is no character.", fix="send it as UTF-8.")
