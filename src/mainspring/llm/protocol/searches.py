"""Searches in collections over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from mainspring.llm.protocol.reading import Fields, InvalidField, read_bounded, split
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import MODES, Build, Floats, Mode
from mainspring.vectors.searching import MOST_HITS, Found

MOST_QUERIES = 100
_MOST_RESULTS = 2_000


class _Asked(msgspec.Struct):
    query: str | list[str] | None = None
    vector: list[float | list[float]] | None = None
    k: int = 10
    filter: Fields | None = None
    tenant: str | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """A search as a caller asks for it.

    Attributes:
        queries: Texts, or vectors of shape (queries, dimensions).
        mode: `None` for that of the collection.
        one: Whether it is a single query, not in a list.
    """

    queries: Sequence[str] | Floats
    k: int
    filter: Fields | None
    tenant: str | None
    mode: Mode | None
    one: bool


def read_search(body: bytes | memoryview) -> Search:
    """Return a search.

    Raises:
        InvalidField: It is none, or it is too large.
    """
    asked, more = split(read_bounded(body), _Asked)
    if more:
        name = min(more)
        raise InvalidField(f"{name[:80]}: there is no such field.", name[:80])
    if (asked.query is None) == (asked.vector is None):
        raise InvalidField("query: give either query or vector.", "query")
    queries: Sequence[str] | Floats
    if asked.vector is None:
        given = asked.query
        queries = [given] if isinstance(given, str) else given or []
        field, one = "query", isinstance(given, str)
    else:
        field, one = "vector", bool(asked.vector) and isinstance(asked.vector[0], float | int)
        queries = _rows([asked.vector] if one else asked.vector)
        if asked.mode not in (None, "vectors"):
            raise InvalidField("mode: a vector has no words.", "mode")
    if not 1 <= len(queries) <= MOST_QUERIES:
        raise InvalidField(f"{field}: give 1 to {MOST_QUERIES} queries.", field)
    if not 1 <= asked.k <= MOST_HITS or asked.k * len(queries) > _MOST_RESULTS:
        raise InvalidField(f"k: ask for 1 to {MOST_HITS:,}, and {_MOST_RESULTS:,} of all queries together.", "k")
    mode = "vectors" if asked.vector is not None else None if asked.mode is None else _mode(asked.mode)
    return Search(queries, asked.k, asked.filter, asked.tenant, mode, one)


def _mode(given: str) -> Mode:
    for mode in MODES:
        if mode == given:
            return mode
    raise InvalidField(f"mode: {given[:80]!r} is none of {', '.join(MODES)}.", "mode")


def _rows(vectors: Any) -> Floats:
    try:
        with np.errstate(over="ignore"):
            return np.array(vectors, dtype=np.float32)
    except ValueError:
        raise InvalidField("vector: the vectors have different lengths.", "vector") from None


def search_document(
    collection: Collection, build: Build, found: Sequence[Sequence[Found]], personal: frozenset[str]
) -> dict[str, Any]:
    """Return what was found as a caller gets it.

    Args:
        personal: Columns of the collection whose values are withheld.
    """
    return {
        "object": "search",
        "collection": collection.name,
        "index": f"{build.index}.{build.table_version}",
        "withheld": sorted(personal),
        "results": [[_result(each, collection, personal) for each in hits] for hits in found],
    }


def _result(hit: Found, collection: Collection, personal: frozenset[str]) -> dict[str, Any]:
    hidden = collection.text in personal
    places: Mapping[str, Any] = {name: msgspec.to_builtins(place) for name, place in hit.places.items()}
    return {
        "chunk": hit.id if collection.key not in personal else None,
        "score": hit.score,
        "source": hit.document if collection.key not in personal else None,
        "number": hit.number,
        "start": hit.start,
        "end": hit.end,
        **({} if hit.page is None else {"page": hit.page}),
        "path": [] if hidden else hit.path,
        "text": None if hidden else hit.text,
        "fields": {name: value for name, value in hit.fields.items() if name not in personal},
        **({"places": places} if places else {}),
    }
