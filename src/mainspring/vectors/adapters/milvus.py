"""Indexes on Milvus, a server of vectors: a collection each, searched exactly by the server.

A collection's name is that of the schema and of the index, its description the specification. A field is a column of
the widest type of its kind, with a column beside it that says whether it has a value: Milvus compares in the type of
the column, and knows nulls from 2.5 on. `compact` lets Milvus write its segments anew; it deletes the old files, and
its log of messages, when their times have passed (`dataCoord.gc.dropTolerance`, retention of the log).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from mainspring.core.errors import Invalid, Unavailable
from mainspring.core.expr.tree import Node
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.core.settings import Url
from mainspring.vectors.adapters.milvus_connection import CALL_S, LEAST_VERSION, Server
from mainspring.vectors.adapters.milvus_filters import ALL, NONE, compiled, quoted
from mainspring.vectors.columns import LONGEST_ID, LONGEST_TEXT, check_entries, check_search
from mainspring.vectors.conditions import condition
from mainspring.vectors.model import Entries, Floats, Hit, IndexSpec, checked, no_index, other_spec

T = TypeVar("T")

SCHEMA = "mainspring_vectors"
MOST_FIELDS = 31  # two columns each, of the 64 that a collection may have
MOST_HITS = 16_384  # that Milvus gives of one query
_MOST_HITS_AT_ONCE = 200_000
_MOST_BYTES = 32 << 20  # of one write; a message to Milvus may have 64 MiB
_LONGEST_NAME = 255
_AT_ONCE = 1_000  # ids of one expression
_DIGITS = 6  # of a similarity, which Milvus computes in float32
_COMPACT_S = 3600.0
_POLL_S = 0.02
_METRICS = {"cosine": "COSINE", "dot": "IP", "euclidean": "L2"}
_INTEGERS = (DType.Int32, DType.Int64, DType.Timestamp)
_NOTHING: dict[DType, Any] = {DType.String: "", DType.Boolean: False, DType.Float32: 0.0, DType.Float64: 0.0}
_PLAIN = re.compile("[^A-Za-z0-9]")


class MilvusVectorStore:
    """Indexes on a server of Milvus. Those of one schema see nothing of another's.

    Args:
        url: `milvus://user:password@host:port/database`; `milvuss://` with TLS, and after `?` files of the authority
            (`ca`), and of the client's certificate (`cert`, `key`); `server_name` of the certificate if not the host's.
        schema: Beginning of the names of its collections.
        least: Version of the server that is new enough.
    """

    def __init__(self, url: Url, *, schema: str = SCHEMA, least: tuple[int, int] = LEAST_VERSION) -> None:
        self._server = Server(url, least)
        self.schema = schema
        self._prefix = f"{_plain(schema)}__"

    def create(self, name: str, spec: IndexSpec) -> MilvusVectorIndex:
        if len(spec.fields) > MOST_FIELDS:
            raise Invalid(
                f"An index on Milvus has {len(spec.fields)} fields.",
                fix=f"declare {MOST_FIELDS} or fewer, or keep vectors on Postgres.",
            )
        collection = self._named(name)
        self._server.call(lambda client: _make(client, collection, spec))
        found = self.open(name)
        if found.spec != spec:
            raise other_spec(name)
        return found

    def open(self, name: str) -> MilvusVectorIndex:
        collection = self._named(name)
        spec = self._server.call(lambda client: _ready(client, collection))
        if spec is None:
            raise no_index(name)
        return MilvusVectorIndex(self._server, collection, name, spec)

    def names(self) -> list[str]:
        found = self._server.call(lambda client: client.list_collections(timeout=CALL_S))
        return sorted(_read(each[len(self._prefix) :]) for each in found if each.startswith(self._prefix))

    def drop(self, name: str) -> None:
        self._server.call(lambda client: client.drop_collection(self._named(name), timeout=CALL_S))

    def version(self) -> str:
        """Return the version of the server."""
        return self._server.call(lambda client: str(client.get_server_version(timeout=CALL_S)))

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _named(self, name: str) -> str:
        collection = self._prefix + _plain(check_id(name, "index"))
        if len(collection) > _LONGEST_NAME:
            raise Invalid(f"{name!r} is too long for Milvus.", fix="take a shorter name, with fewer '_', '-' and '.'.")
        return collection


def _plain(name: str) -> str:
    """Return a name in letters, digits and single underscores."""
    return _PLAIN.sub(lambda found: f"_{ord(found[0]):x}_", name)


def _read(plain: str) -> str:
    return re.sub("_([0-9a-f]+)_", lambda found: chr(int(found[1], 16)), plain)


def _make(client: Any, collection: str, spec: IndexSpec) -> None:
    """Create a collection if it is missing."""
    from pymilvus import DataType

    if client.has_collection(collection, timeout=CALL_S):
        return
    layout = client.create_schema(
        auto_id=False, enable_dynamic_field=False, description=msgspec.json.encode(spec).decode()
    )
    layout.add_field("id", DataType.VARCHAR, is_primary=True, max_length=4 * LONGEST_ID)
    layout.add_field("vector", DataType.FLOAT_VECTOR, dim=max(2, spec.dimension))
    for dtype, (column, there) in zip(spec.fields.values(), _columns(spec).values(), strict=True):
        if dtype is DType.String:
            layout.add_field(column, DataType.VARCHAR, max_length=LONGEST_TEXT)
        elif dtype is DType.Boolean:
            layout.add_field(column, DataType.BOOL)
        else:
            layout.add_field(column, DataType.INT64 if dtype in _INTEGERS else DataType.DOUBLE)
        layout.add_field(there, DataType.BOOL)
    client.create_collection(
        collection, schema=layout, num_shards=1, consistency_level="Eventually", timeout=CALL_S
    )  # one shard: a search sees a write whole


def _ready(client: Any, collection: str) -> IndexSpec | None:
    """Return the specification of a collection that is indexed and loaded; `None` if there is none."""
    if not client.has_collection(collection, timeout=CALL_S):
        return None
    described = client.describe_collection(collection, timeout=CALL_S)["description"]
    spec = msgspec.json.decode(described, type=IndexSpec)
    if client.get_load_state(collection, timeout=CALL_S)["state"].name != "Loaded":
        if not client.list_indexes(collection):
            # All others are approximate under a filter, without a sign of it, until a segment's index is built.
            index = client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type=_METRICS[spec.metric])
            client.create_index(collection, index, timeout=CALL_S, sync=False)
        client.load_collection(collection, timeout=CALL_S, _async=True)
        _wait(
            lambda: client.get_load_state(collection, timeout=CALL_S)["state"].name == "Loaded",
            CALL_S,
            f"The index {collection!r} is not loaded",
        )
    return spec


def _wait(done: Callable[[], bool], limit_s: float, told: str) -> None:
    end = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > end:
            raise Unavailable(f"{told} after {limit_s:.0f} s.", fix="look at Milvus's log, and try again.")
        time.sleep(_POLL_S)


def _columns(spec: IndexSpec) -> dict[str, tuple[str, str]]:
    """Return for each field its column, and the column that says whether it has a value."""
    return {field: (f"f{place}", f"has{place}") for place, field in enumerate(spec.fields)}


class MilvusVectorIndex:
    def __init__(self, server: Server, collection: str, name: str, spec: IndexSpec) -> None:
        self.spec = spec
        self._server, self._collection, self._name = server, collection, name
        self._columns = _columns(spec)

    def upsert(self, entries: Entries) -> None:
        ids, vectors, columns = check_entries(self.spec, entries)
        if not ids:
            return
        values = [column.to_list() for column in columns.values()]
        size = vectors.nbytes + sum(
            len(each.encode()) for column in (ids, *values) for each in column if type(each) is str
        )
        if size > _MOST_BYTES:
            raise Invalid(
                f"{len(ids)} entries have {size >> 20} MiB; a write to Milvus has up to {_MOST_BYTES >> 20}.",
                fix="write fewer at once.",
            )
        rows: list[dict[str, Any]] = [
            {"id": each, "vector": self._padded(vectors[place])} for place, each in enumerate(ids)
        ]
        for (field, dtype), column in zip(self.spec.fields.items(), values, strict=True):
            own, there = self._columns[field]
            nothing = _NOTHING.get(dtype, 0)
            for row, value in zip(rows, column, strict=True):
                row[own], row[there] = nothing if value is None else value, value is not None

        def work(client: Any) -> None:
            client.upsert(self._collection, rows, timeout=CALL_S)
            self._await_visible(client)

        self._call(work)

    def _padded(self, vector: Floats) -> Floats:
        """Return a vector of two numbers or more, which Milvus wants."""
        return vector if self.spec.dimension > 1 else np.append(vector, np.float32(0))

    def delete(self, ids: Sequence[str]) -> int:
        def work(client: Any) -> int:
            there = 0
            for part in _parts(ids):
                found = client.query(self._collection, filter=part, output_fields=["id"], timeout=CALL_S)
                there += len(found)
                if found:
                    client.delete(self._collection, filter=part, timeout=CALL_S)
            self._await_visible(client)
            return there

        return self._call(work) if ids else 0

    def _await_visible(self, client: Any) -> None:
        """Wait until reads see what was written: one of the strong kind does, all others are then quick."""
        client.query(self._collection, filter=NONE, consistency_level="Strong", timeout=CALL_S)

    def search(self, vectors: Floats, k: int, *, where: Node | None = None, effort: float = 1.0) -> list[list[Hit]]:
        queries = checked(self.spec, vectors, "A query")
        check_search(self.spec, k, where, effort)
        passes = "" if where is None else self._compiled(where)
        if k > MOST_HITS and self.count(where) > MOST_HITS:
            raise Invalid(
                f"A search is for the {k} nearest.", fix=f"ask for {MOST_HITS} or fewer: Milvus gives no more."
            )
        limit = min(k, MOST_HITS)
        at_once = max(1, min(_MOST_BYTES // (4 * self.spec.dimension), _MOST_HITS_AT_ONCE // limit))
        return [
            self._ranked(hits)
            for start in range(0, len(queries), at_once)
            for hits in self._call(partial(self._nearest, queries[start : start + at_once], limit, passes))
        ]

    def _nearest(self, queries: Floats, limit: int, passes: str, client: Any) -> Any:
        asked = [self._padded(query) for query in queries]
        return client.search(self._collection, asked, filter=passes, limit=limit, timeout=CALL_S)

    def _ranked(self, hits: Any) -> list[Hit]:
        ranked = [Hit(str(hit["id"]), self._score(hit["distance"])) for hit in hits]
        return sorted(ranked, key=lambda hit: (-hit.score, hit.id))

    def _score(self, distance: float) -> float:
        """Return the similarity, in so many digits as are the same for equal vectors."""
        return 0.0 + float(f"{-math.sqrt(distance) if self.spec.metric == 'euclidean' else distance:.{_DIGITS}g}")

    def _vectors(self, rows: Sequence[Any]) -> Floats:
        read = np.array([row["vector"] for row in rows], dtype=np.float32)
        return np.ascontiguousarray(read.reshape(len(rows), -1)[:, : self.spec.dimension])

    def get(self, ids: Sequence[str]) -> Entries:
        rows: dict[str, Any] = {}
        fields = ["id", "vector", *(each for pair in self._columns.values() for each in pair)]
        for part in _parts(ids):  # with a limit: without one, entries that are replaced meanwhile are missing
            rows |= {row["id"]: row for row in self._query(part, fields, _AT_ONCE)}
        kept = [each for each in ids if each in rows]
        vectors = (
            self._vectors([rows[each] for each in kept]) if kept else np.empty((0, self.spec.dimension), np.float32)
        )
        return Entries(
            kept,
            vectors,
            {
                field: [rows[each][own] if rows[each][there] else None for each in kept]
                for field, (own, there) in self._columns.items()
            },
        )

    def ids(self, *, after: str = "", count: int = 1000, where: Node | None = None) -> list[str]:
        passes = ALL if where is None else self._compiled(where)
        found: list[str] = []
        while len(found) < count:
            limit = min(count - len(found), MOST_HITS)
            page = self._query(f"id > {quoted(after)} and ({passes})", ["id"], limit)
            found += [str(row["id"]) for row in page]
            if len(page) < limit:
                break
            after = found[-1]
        return found

    def count(self, where: Node | None = None) -> int:
        passes = "" if where is None else self._compiled(where)
        (row,) = self._query(passes, ["count(*)"])
        return int(row["count(*)"])

    def compact(self) -> None:
        def work(client: Any) -> None:
            client.flush(self._collection, timeout=_COMPACT_S)
            job = client.compact(self._collection, timeout=CALL_S)
            _wait(
                lambda: client.get_compaction_state(job, timeout=CALL_S) != "Executing",
                _COMPACT_S,
                f"The compaction of {self._name!r} is not done",
            )

        self._call(work)

    def size_bytes(self) -> int:
        """Return how many bytes its entries have, without Milvus's own: it does not say what a collection takes."""
        columns = 9 * len(self.spec.fields)
        return self.count() * (4 * self.spec.dimension + columns)

    def close(self) -> None:
        """Do nothing: the connection is the store's."""

    def _query(self, passes: str, fields: Sequence[str], limit: int | None = None) -> Any:
        return self._call(
            lambda client: client.query(
                self._collection, filter=passes, output_fields=list(fields), limit=limit, timeout=CALL_S
            )
        )

    def _compiled(self, where: Node) -> str:
        return compiled(condition(where, self.spec.fields), self.spec.fields, self._columns)

    def _call(self, work: Callable[[Any], T]) -> T:
        return self._server.call(work, missing=self._name)


def _parts(ids: Sequence[str]) -> Iterator[str]:
    """Return expressions that choose entries by id."""
    known = [each for each in dict.fromkeys(ids) if "\0" not in each]
    for start in range(0, len(known), _AT_ONCE):
        yield f"id in [{', '.join(map(quoted, known[start : start + _AT_ONCE]))}]"
