"""Indexes of vectors on Postgres, exact and with HNSW, as their port says; and what is particular to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count

import psycopg
import pytest
from hypothesis import given, settings

from kit.conditions import IDS, ROWS, VALUES, conditions, passing_ids
from kit.depth import examples
from kit.servers import PostgresServer
from mainspring.core.errors import Invalid, Unavailable
from mainspring.core.expr.tree import Node, col
from mainspring.core.schema import DType
from mainspring.core.settings import Url
from mainspring.vectors.adapters.pgvector import PgVectorIndex, PgVectorStore
from mainspring.vectors.conformance import VectorIndexConformance, VectorStoreConformance
from mainspring.vectors.conformance_oracle import made_vectors, recall
from mainspring.vectors.conformance_store import FIELDS
from mainspring.vectors.model import Entries, IndexSpec

_SCHEMAS = map("s{}".format, count())


@pytest.fixture(scope="module")
def shared(postgres_server: PostgresServer) -> Url:
    return postgres_server.fresh()


class TestExact(VectorIndexConformance, VectorStoreConformance):
    compares_only = True

    @pytest.fixture
    def store(self, shared: Url) -> Iterator[PgVectorStore]:
        made = PgVectorStore(shared, schema=next(_SCHEMAS))
        yield made
        made.close()


class TestErased(VectorStoreConformance):
    """The same with a database of its own, of which all files are read."""

    @pytest.fixture
    def database(self, postgres_server: PostgresServer) -> Url:
        return postgres_server.fresh()

    @pytest.fixture
    def store(self, database: Url) -> Iterator[PgVectorStore]:
        made = PgVectorStore(database)
        yield made
        made.close()

    @pytest.fixture
    def stored(self, postgres_server: PostgresServer, database: Url) -> Callable[[], Iterable[bytes]]:
        return lambda: _tables(postgres_server, database)


class TestHnsw(VectorIndexConformance):
    compares_only = True
    chooses_by_id = False
    least_recall = 0.97
    entries = 3_000

    @pytest.fixture
    def store(self, shared: Url) -> Iterator[PgVectorStore]:
        made = PgVectorStore(shared, schema=next(_SCHEMAS), approximate_above=30)
        yield made
        made.close()


def _tables(server: PostgresServer, database: Url) -> list[bytes]:
    """Return all files of a database: tables, indexes and the server's catalog, not its log."""
    with psycopg.connect(database.text, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        ((oid,),) = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchall()
    return [each.read_bytes() for each in (server.folder / "data" / "base" / str(oid)).iterdir() if each.is_file()]


@pytest.fixture(scope="module")
def filtered(shared: Url) -> Iterator[PgVectorIndex]:
    store = PgVectorStore(shared, schema='it\'s "odd"')
    index = store.create("i", IndexSpec(dimension=2, fields=FIELDS))
    index.upsert(Entries(IDS, made_vectors(ROWS, 2), VALUES))
    yield index
    store.close()


@pytest.mark.timeout(3600)
@settings(max_examples=examples(gate=100, deep=5_000), deadline=None)
@given(where=conditions())
def test_a_filter_passes_what_its_evaluation_passes(filtered: PgVectorIndex, where: Node) -> None:
    assert set(filtered.ids(where=where)) == passing_ids(where)


def test_a_graph_is_used_and_finds_what_is_near(shared: Url) -> None:
    schema = next(_SCHEMAS)
    store = PgVectorStore(shared, schema=schema, approximate_above=500)
    index = store.create("i", IndexSpec(dimension=8, metric="euclidean", fields={"part": DType.Int64}))
    vectors, ids = made_vectors(2_000, 8), [f"e{number:04}" for number in range(2_000)]
    index.upsert(Entries(ids, vectors, {"part": range(2_000)}))
    exact = index.search(vectors[:5], 10)
    index.compact()
    with psycopg.connect(shared.text) as connection:
        found = connection.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = %s", [schema]).fetchall()
        assert [each for (each,) in found if "hnsw" in each and "vector_l2_ops" in each]
    near = index.search(vectors[:5], 10)
    for place, (hits, nearest) in enumerate(zip(near, exact, strict=True)):
        assert recall("euclidean", vectors, ids, vectors[place], hits, 10) >= 0.9
        assert hits[0] == nearest[0]
    # Of few that pass all are found, though the walk in the graph does not come to them.
    assert len(index.search(vectors[:1], 5, where=col("part") > 1_994)[0]) == 5
    store.close()


def test_no_statistics_outlive_an_entry(shared: Url) -> None:
    schema = next(_SCHEMAS)
    store = PgVectorStore(shared, schema=schema)
    index = store.create("i", IndexSpec(dimension=2, fields={"kind": DType.String}))
    index.upsert(Entries(["a", "b"], made_vectors(2, 2), {"kind": ["personal", "personal"]}))
    with psycopg.connect(shared.text, autocommit=True) as connection:
        connection.execute(f"ANALYZE {schema}.entries_1")
        found = connection.execute(
            "SELECT attname FROM pg_stats WHERE schemaname = %s AND tablename <> 'vector_index'", [schema]
        )
        assert found.fetchall() == []
    store.close()


def test_schemas_are_apart(shared: Url) -> None:
    one, other = (PgVectorStore(shared, schema=next(_SCHEMAS)) for _ in range(2))
    one.create("i", IndexSpec(dimension=2)).upsert(Entries(["a"], made_vectors(1, 2)))
    assert other.names() == []
    assert other.create("i", IndexSpec(dimension=3)).count() == 0
    other.drop("i")
    assert one.open("i").count() == 1
    one.close()
    other.close()


def test_a_text_with_nul_is_no_filter(filtered: PgVectorIndex) -> None:
    with pytest.raises(Invalid, match="NUL"):
        filtered.count(col("kind") == "a\0")


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    store = PgVectorStore(Url("postgresql://me:hidden@127.0.0.1:1/x"))
    with pytest.raises(Unavailable) as caught:
        store.names()
    assert "hidden" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.fix == "start the server, or correct the address in the profile."


def test_without_the_extension_it_is_told_what_is_missing(postgres_server: PostgresServer) -> None:
    database = postgres_server.fresh()
    postgres_server.run("DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN PASSWORD 'plain'")
    at = Url(f"postgresql://plain:plain@127.0.0.1:{postgres_server.port}/{database.text.rsplit('/', 1)[1]}")
    with psycopg.connect(database.text, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA mine AUTHORIZATION plain")
    store = PgVectorStore(at, schema="mine")
    with pytest.raises(Unavailable) as caught:
        store.create("i", IndexSpec(dimension=2))
    assert "CREATE EXTENSION vector" in str(caught.value)
    store.close()
