"""Indexes of vectors on a real Milvus, as their port says; and what is particular to the server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings

from kit.conditions import IDS, ROWS, VALUES, conditions, passing_ids
from kit.depth import DEEP, deep, examples
from kit.milvus_server import PASSWORD, MilvusServer
from mainspring.core.errors import Invalid, MainspringError, Unavailable
from mainspring.core.expr.tree import Node
from mainspring.core.schema import DType
from mainspring.core.settings import Url
from mainspring.vectors.adapters.milvus import MOST_FIELDS, MilvusVectorIndex, MilvusVectorStore
from mainspring.vectors.conformance import VectorIndexConformance, VectorStoreConformance
from mainspring.vectors.conformance_oracle import made_vectors
from mainspring.vectors.conformance_store import FIELDS, await_that, check_absent
from mainspring.vectors.model import METRICS, Entries, IndexSpec

_SCHEMAS = map("s{}".format, count())


_SPEC = IndexSpec(dimension=4, fields=FIELDS)  # of most tests of the suite


class _Spares(MilvusVectorStore):
    """Collections that are ready: the server takes a second for one, and not much more for many at once."""

    def __init__(self, url: Url) -> None:
        super().__init__(url, schema="spare")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: self.create(f"i{number}", _SPEC), range(36 if DEEP else 8)))
        self.left = [self._named(name) for name in self.names()]


class _Store(MilvusVectorStore):
    def __init__(self, url: Url, spares: _Spares) -> None:
        super().__init__(url, schema=next(_SCHEMAS))
        self._spares = spares

    def create(self, name: str, spec: IndexSpec) -> MilvusVectorIndex:
        if spec == _SPEC and self._spares.left and name not in self.names():
            spare = self._spares.left.pop()
            self._server.call(lambda client: client.rename_collection(spare, self._named(name)))
        return super().create(name, spec)


@pytest.fixture(scope="module")
def spares(milvus_server: MilvusServer) -> _Spares:
    return _Spares(milvus_server.url)


@pytest.fixture
def store(milvus_server: MilvusServer, spares: _Spares) -> Iterator[MilvusVectorStore]:
    made = _Store(milvus_server.url, spares)
    yield made
    for name in made.names():
        made.drop(name)
    made.close()


_IN_GATE = {
    "test_finds_the_nearest_first_with_their_similarities", "test_filters_pass_what_python_passes",
    "test_upsert_replaces_an_entry_whole",
    "test_what_was_deleted_is_nowhere", "test_gives_entries_back_in_the_order_asked", "test_lists_ids_in_pages",
    "test_keeps_indexes_by_name",
}  # fmt: skip
"""Tests of the suite that do not wait for `make test-deep`: the server takes seconds of processor for some others."""


class TestMilvus(VectorIndexConformance, VectorStoreConformance):
    compares_only = True
    replaces_at_once = False
    chooses_by_id = False
    entries = 300

    @pytest.fixture(autouse=True)
    def _in_gate(self, request: pytest.FixtureRequest) -> None:
        if not DEEP and request.node.originalname not in _IN_GATE:
            pytest.skip("a part of `make test-deep`")

    @pytest.fixture(params=METRICS if DEEP else METRICS[:1])
    def metric(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def store(self, store: MilvusVectorStore) -> MilvusVectorStore:
        return store


@pytest.fixture(scope="module")
def filtered(milvus_server: MilvusServer) -> Iterator[MilvusVectorIndex]:
    store = MilvusVectorStore(milvus_server.url, schema='it\'s "odd"')
    index = store.create("i", IndexSpec(dimension=2, fields=FIELDS))
    index.upsert(Entries(IDS, made_vectors(ROWS, 2), VALUES))
    yield index
    store.drop("i")
    store.close()


@pytest.mark.timeout(3600)
@settings(max_examples=examples(gate=100, deep=2_000), deadline=None)
@given(where=conditions())
def test_a_filter_passes_what_its_evaluation_passes(filtered: MilvusVectorIndex, where: Node) -> None:
    assert set(filtered.ids(where=where)) == passing_ids(where)


@deep
def test_every_metric_has_its_similarities(store: MilvusVectorStore) -> None:
    axes = np.array([[1, 0], [0, 2], [3, 4]], np.float32)
    wanted = {"cosine": [1.0, 0.6, 0.0], "dot": [3.0, 1.0, 0.0], "euclidean": [0.0, -(5**0.5), -(20**0.5)]}
    for metric in METRICS:
        index = store.create(metric, IndexSpec(dimension=2, metric=metric))
        index.upsert(Entries(["x", "y", "xy"], axes))
        found = [hit.score for hit in index.search(axes[:1], 3)[0]]
        assert found == pytest.approx(wanted[metric], rel=1e-5), metric


@deep
def test_one_number_is_a_vector(store: MilvusVectorStore) -> None:
    index = store.create("i", IndexSpec(dimension=1, metric="euclidean"))
    index.upsert(Entries(["a", "b"], np.array([[1], [5]], np.float32)))
    assert [(hit.id, hit.score) for hit in index.search(np.array([[4]], np.float32), 2)[0]] == [("b", -1), ("a", -3)]
    assert index.get(["b"]).vectors.tolist() == [[5]]


@deep
def test_no_byte_of_what_was_deleted_stays_in_a_segment(store: MilvusVectorStore, milvus_server: MilvusServer) -> None:
    fields = {"kind": DType.String}
    index = store.create("i", IndexSpec(dimension=4, fields=fields))
    vectors = made_vectors(50, 4)
    index.upsert(
        Entries([f"zanzibar{n:02}" for n in range(50)], vectors, {"kind": [f"personal{n:02}" for n in range(50)]})
    )
    index.compact()
    await_that(lambda: any(b"zanzibar07" in content for content in milvus_server.stored()), wait_s=20)
    assert index.delete(["zanzibar07"]) == 1
    index.compact()
    await_that(
        lambda: not any(b"personal07" in each or b"zanzibar07" in each for each in milvus_server.stored()), wait_s=60
    )
    assert any(b"zanzibar08" in content for content in milvus_server.stored())
    assert index.count() == 49
    store.drop("i")
    await_that(lambda: not any(b"zanzibar" in each for each in milvus_server.stored()), wait_s=60)
    check_absent(milvus_server.stored, vectors[7].tobytes())


def test_schemas_are_apart(milvus_server: MilvusServer) -> None:
    one, other, third = (MilvusVectorStore(milvus_server.url, schema=each) for each in ("a", "a_", "a__i"))
    one.create("i", IndexSpec(dimension=2)).upsert(Entries(["a"], made_vectors(1, 2)))
    assert other.names() == third.names() == []
    other.drop("i")
    assert one.names() == ["i"]
    assert one.open("i").count() == 1
    one.drop("i")


@deep
def test_what_was_acknowledged_is_there_after_the_server_was_killed(
    store: MilvusVectorStore, milvus_server: MilvusServer
) -> None:
    index = store.create("i", IndexSpec(dimension=4, fields={"part": DType.Int64}))
    written, killed = [0], threading.Event()

    def write() -> None:
        try:
            while not killed.is_set():
                turn = written[0] + 1
                index.upsert(Entries([f"e{turn}", "last"], made_vectors(2, 4, seed=turn), {"part": [turn, turn]}))
                written[0] = turn
        except MainspringError:
            pass

    writer = threading.Thread(target=write)
    writer.start()
    await_that(lambda: written[0] >= 20, wait_s=60)
    milvus_server.stop(signal.SIGKILL)
    killed.set()
    writer.join()
    milvus_server.start()
    again = MilvusVectorStore(milvus_server.url, schema=store.schema).open("i")
    known = written[0]
    await_that(lambda: again.count() >= known + 1, wait_s=60)
    parts = again.get([*(f"e{turn}" for turn in range(1, known + 1)), "last"]).fields["part"]
    assert parts[:-1] == list(range(1, known + 1))
    assert parts[-1] in (known, known + 1)  # a write that was not acknowledged is there whole or not at all
    assert len(again.get([f"e{known + 1}"])) == parts[-1] - known


@deep
def test_what_the_server_cannot_keep_is_refused(store: MilvusVectorStore) -> None:
    with pytest.raises(Invalid, match="32 fields"):
        store.create("i", IndexSpec(dimension=2, fields={f"f{n}": DType.Int64 for n in range(MOST_FIELDS + 1)}))
    index = store.create("i", IndexSpec(dimension=8192))
    with pytest.raises(Invalid, match="write fewer at once"):
        index.upsert(Entries([f"e{n}" for n in range(1100)], np.ones((1100, 8192), np.float32)))
    assert index.count() == 0


@pytest.mark.parametrize(
    ("user", "password", "fix"), [("root", "hidden-word", "user or the password"), ("nobody", PASSWORD, "user or the")]
)
def test_another_password_is_told_without_it(milvus_server: MilvusServer, user: str, password: str, fix: str) -> None:
    with pytest.raises(Unavailable) as caught:
        MilvusVectorStore(milvus_server.as_user(user, password)).names()
    assert fix in str(caught.value)
    assert "hidden-word" not in str(caught.value)


def test_mutual_tls(milvus_server: MilvusServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    only_trust = milvus_server.url.text.split("?")[0] + f"?ca={milvus_server.authority.certificate}"
    with pytest.raises(Unavailable):  # it shows no certificate
        MilvusVectorStore(Url(only_trust)).names()
    with pytest.raises(Unavailable):  # in clear
        MilvusVectorStore(Url(only_trust.split("?")[0].replace("milvuss", "milvus"))).names()
    assert MilvusVectorStore(milvus_server.url).version().startswith("v2.")


def test_a_server_that_is_too_old_is_told(milvus_server: MilvusServer) -> None:
    with pytest.raises(Unavailable, match=r"Milvus v2\.3\.5-lite on .* is older than 9\.0"):
        MilvusVectorStore(milvus_server.url, least=(9, 0)).names()


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    with pytest.raises(Unavailable) as caught:
        MilvusVectorStore(Url("milvus://me:hidden@127.0.0.1:1/x")).names()
    assert "hidden" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert "start Milvus" in str(caught.value)


def test_an_unknown_option_and_a_missing_file_are_told() -> None:
    with pytest.raises(Invalid, match="ca, cert, key"):
        MilvusVectorStore(Url("milvuss://127.0.0.1/?tls=yes"))
    with pytest.raises(Invalid, match=r"nowhere\.pem"):
        MilvusVectorStore(Url("milvuss://127.0.0.1/?ca=/nowhere.pem"))
