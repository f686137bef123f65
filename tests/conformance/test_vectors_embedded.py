"""Embedded vector indexes as files: damage, other processes, a missing extra, dropping."""

from __future__ import annotations

import functools
import gc
import logging
import math
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kit.full_disk import room
from mainspring.core.errors import Corrupt, Invalid, NotFound, StorageFull
from mainspring.core.expr.tree import Node, col
from mainspring.core.schema import DType
from mainspring.vectors.adapters import embedded, embedded_reading, embedded_state
from mainspring.vectors.adapters.embedded import EmbeddedVectorIndex, EmbeddedVectorStore
from mainspring.vectors.conformance_oracle import made_vectors
from mainspring.vectors.model import Entries, Floats, IndexSpec

SPEC = IndexSpec(dimension=8, fields={"part": DType.Int64})
COUNT = 4_000


def _entries(first: int, count: int) -> Entries:
    numbers = range(first, first + count)
    return Entries([f"e{number}" for number in numbers], made_vectors(count, 8, seed=first), {"part": list(numbers)})


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedVectorStore:
    return EmbeddedVectorStore(tmp_path / "vectors", approximate_above=500)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    made = EmbeddedVectorStore(folder, approximate_above=500).create("i", SPEC)
    made.upsert(_entries(0, COUNT))
    made.close()
    return folder


@pytest.fixture
def index(store: EmbeddedVectorStore, filled: Path, tmp_path: Path) -> Iterator[EmbeddedVectorIndex]:
    shutil.copytree(filled, tmp_path / "vectors")
    made = store.open("i")
    yield made
    made.close()


def _graph(index: EmbeddedVectorIndex) -> Path:
    (path,) = index._folder.glob("*.graph")
    return path


def _queries() -> Floats:
    return made_vectors(COUNT, 8)[:20]


def test_its_files_are_private(index: EmbeddedVectorIndex, tmp_path: Path) -> None:
    index.delete(["e1"])
    index.compact()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "vectors").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


@pytest.mark.parametrize(("dimension", "most"), [(64, 1.25), (384, 1.15), (512, 1.25), (768, 1.15), (1024, 1.25)])
def test_vectors_fill_the_pages_of_the_database(store: EmbeddedVectorStore, dimension: int, most: float) -> None:
    count = 2_000_000 // dimension // 4
    index = store.create("i", IndexSpec(dimension=dimension))
    index.upsert(Entries([str(number) for number in range(count)], made_vectors(count, dimension)))
    index.close()
    assert index._file.path.stat().st_size < 4 * count * dimension * most + 200_000


def test_places_that_a_filter_selected_are_freed_with_the_state_that_has_them(index: EmbeddedVectorIndex) -> None:
    index.search(_queries()[:1], 5, where=col("part") < COUNT * 3 // 10)
    (kept,) = [each.sample[0] for each in index._state().filters.values()]
    selection = weakref.ref(kept)
    gc.disable()  # which comes seldom in a process with many entries
    try:
        del kept
        index.delete(["e1"])
        index.count()
        assert selection() is None
    finally:
        gc.enable()


def test_a_write_changes_what_a_filter_passes_in_the_graph(index: EmbeddedVectorIndex) -> None:
    queries, where = _queries(), col("part") < COUNT * 3 // 10
    for effort in (1.0, 2.0):
        hits = index.search(queries[:1], 5, where=where, effort=effort)[0]
        index.delete([hits[0].id])
        index.upsert(Entries([hits[1].id], index.get([hits[1].id]).vectors, {"part": [COUNT]}))
        left = index.search(queries[:1], 5, where=where, effort=effort)[0]
        assert left[:3] == hits[2:]
        assert index._state().graph is not None


@pytest.mark.parametrize("damage", ["torn", "flipped", "missing", "empty", "foreign"])
def test_a_graph_that_is_not_as_written_is_not_used_and_is_made_anew(
    index: EmbeddedVectorIndex, store: EmbeddedVectorStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, path = index.search(_queries(), 5), _graph(index)
    index.close()
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"IxF2" + bytes(1000))
    again = store.open("i")
    assert again.search(_queries(), 5) == before
    assert again._state().graph is None
    assert "is not used" in caplog.text
    again.compact()
    assert again._state().graph is not None
    assert _graph(again) != path
    again.close()


def test_a_database_that_is_none_is_refused(index: EmbeddedVectorIndex) -> None:
    path = index._file.path
    index.close()
    for each in path.parent.glob(f"{path.name}*"):
        each.write_bytes(b"this is no database" * 500)
    with pytest.raises(Corrupt, match=str(path)) as refused:
        EmbeddedVectorStore(path.parents[1]).open("i")
    assert str(path.parent) in str(refused.value.fix)


def test_the_graph_follows_the_writes(index: EmbeddedVectorIndex) -> None:
    first = _graph(index)
    index.upsert(_entries(COUNT, COUNT // 10))
    assert _graph(index) == first
    assert index._state().indexed == COUNT
    index.upsert(_entries(COUNT * 2, COUNT // 2))
    assert index._state().indexed == COUNT * 16 // 10
    assert _graph(index) != first
    index.delete(index.ids(where=col("part") >= 300, count=COUNT * 2))
    index.compact()
    assert index._state().graph is None
    assert list(index._folder.glob("*.graph")) == []
    assert index.count() == 300


def test_what_neither_adds_nor_deletes_does_not_make_a_graph_anew(index: EmbeddedVectorIndex) -> None:
    first, size = _graph(index), index.size_bytes()
    index.compact()
    assert _graph(index) == first
    assert index.size_bytes() == pytest.approx(size, rel=0.5)


def test_a_compaction_renews_the_graph_and_builds_it_anew_where_too_many_are_dead(index: EmbeddedVectorIndex) -> None:
    vectors = index.get(["e7"]).vectors
    for first, count, places in ((0, 100, COUNT), (100, 300, COUNT), (400, 100, COUNT - 500)):
        index.delete([f"e{number}" for number in range(first, first + count)])
        index.compact()
        assert index._state().indexed == places
        assert vectors.tobytes()[:16] not in _graph(index).read_bytes()
        queries = made_vectors(COUNT, 8)[600:900]
        found = [hits[0].id for hits in index.search(queries, 1)]
        assert np.mean([name == f"e{number}" for number, name in enumerate(found, 600)]) > 0.99
    index.upsert(_entries(COUNT, COUNT // 4))
    index.compact()
    assert index._state().indexed == COUNT - 500 + COUNT // 4
    found = [hits[0].id for hits in index.search(made_vectors(COUNT // 4, 8, seed=COUNT)[:300], 1)]
    assert np.mean([name == f"e{number}" for number, name in enumerate(found, COUNT)]) > 0.99


@pytest.mark.parametrize("at_once", [7, 300, 10_000])
def test_entries_are_read_in_parts_with_places_of_the_dead_between(
    index: EmbeddedVectorIndex, tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = {0, *range(1_000, 1_300), COUNT - 1}
    index.delete([f"e{number}" for number in dead])
    index.compact()
    monkeypatch.setattr(embedded_state, "_LOADED_AT_ONCE", at_once)
    state = EmbeddedVectorStore(tmp_path / "vectors", approximate_above=500).open("i")._state()
    assert state.indexed == COUNT
    assert state.ids == ["" if number in dead else f"e{number}" for number in range(COUNT)]
    assert state.live.tolist() == [number not in dead for number in range(COUNT)]
    parts = state.columns["part"]
    assert parts.valid.tolist() == state.live.tolist()
    assert parts.values[state.live].tolist() == [number for number in range(COUNT) if number not in dead]


def test_a_graph_finds_what_exact_search_finds(index: EmbeddedVectorIndex) -> None:
    state = index._state()
    assert state.graph is not None
    queries = made_vectors(200, 8, seed=3)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    truth = np.argsort(-(queries @ state.graph.vectors.T), axis=1)[:, :10]
    near = state.graph.search(queries, 10, 64)
    assert np.mean([len({*some} & {*wanted}) for some, wanted in zip(near, truth, strict=True)]) > 9.5


def test_vectors_of_a_graph_begin_where_a_line_of_the_cache_does(index: EmbeddedVectorIndex) -> None:
    for _ in range(2):
        graph = index._state().graph
        assert graph is not None
        assert graph.vectors.ctypes.data % 64 == 0
        index.upsert(_entries(COUNT, COUNT // 4 + 1))
        index.compact()


def test_a_graph_for_which_there_is_no_room_is_said_and_leaves_the_one_before(index: EmbeddedVectorIndex) -> None:
    first, before = _graph(index), index.search(_queries(), 5)
    index.upsert(_entries(COUNT, COUNT // 10))
    index.delete([f"e{number}" for number in range(COUNT, COUNT + COUNT // 10)])
    with room(first.stat().st_size // 2), pytest.raises(StorageFull, match="graph"):
        index.compact()
    assert _graph(index) == first
    assert index.search(_queries(), 5) == before


def test_entries_are_stored_where_their_graph_finds_no_room(
    index: EmbeddedVectorIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "_NO_ROOM_S", 0.0)
    first = _graph(index)
    index.compact()  # and its log is short
    with room(_graph(index).stat().st_size):
        index.upsert(_entries(COUNT, COUNT // 4))
    assert "no room" in caplog.text or "No space" in caplog.text
    assert _graph(index) == first
    assert index.count() == COUNT + COUNT // 4
    assert index.search(made_vectors(COUNT // 4, 8, seed=COUNT)[:1], 1)[0][0].id == f"e{COUNT}"
    index.upsert(_entries(2 * COUNT, 1))
    assert _graph(index) != first


def test_a_database_of_the_format_before_is_brought_up(index: EmbeddedVectorIndex, tmp_path: Path) -> None:
    index.delete(["e3"])
    found, path = index.search(_queries(), 5), index._file.path
    index.close()
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE before (
                number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, vector BLOB NOT NULL,
                fields BLOB NOT NULL
            );
            INSERT INTO before SELECT number, id, vector, fields FROM entry JOIN vector USING (number);
            DROP TABLE entry; DROP TABLE vector; ALTER TABLE before RENAME TO entry;
        """)
    connection.close()
    again = EmbeddedVectorStore(tmp_path / "vectors", approximate_above=500).open("i")
    assert again.search(_queries(), 5) == found
    again.upsert(_entries(COUNT, 1))
    assert again.count() == COUNT
    assert again.get([f"e{COUNT}"]).fields == {"part": [COUNT]}
    again.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE vector")
    connection.close()
    with pytest.raises(Corrupt, match=r"no tables \['vector'\].*collections build"):
        EmbeddedVectorStore(tmp_path / "vectors").open("i")


def test_inner_products_have_a_graph_only_where_all_vectors_are_as_long(store: EmbeddedVectorStore) -> None:
    spec = IndexSpec(dimension=8, metric="dot")
    for name, vectors in (
        ("any", made_vectors(1_000, 8)),
        ("unit", made_vectors(1_000, 8) / np.linalg.norm(made_vectors(1_000, 8), axis=1, keepdims=True)),
    ):
        index = store.create(name, spec)
        index.upsert(Entries([f"e{number}" for number in range(1_000)], vectors))
        index.compact()
        assert (index._state().graph is not None) == (name == "unit")
        index.close()


def test_another_process_sees_writes_and_writes_itself(index: EmbeddedVectorIndex, tmp_path: Path) -> None:
    program = """
import sys, numpy as np
from pathlib import Path
from mainspring.vectors.adapters.embedded import EmbeddedVectorStore
from mainspring.vectors.model import Entries
index = EmbeddedVectorStore(Path(sys.argv[1]), approximate_above=500).open("i")
for line in sys.stdin:
    (hits,) = index.search(np.ones((1, 8), np.float32), 1)
    print(index.count(), hits[0].id, index._state().graph is None, flush=True)
    index.upsert(Entries([line.strip()], np.full((1, 8), -1, np.float32)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "vectors")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        index.upsert(Entries(["ones"], np.ones((1, 8), np.float32)))
        other.stdin.write("first\n")
        assert other.stdout.readline().split() == [str(COUNT + 1), "ones", "False"]
        index.delete(["ones"])
        index.upsert(Entries(["twos"], np.full((1, 8), 2, np.float32)))
        index.compact()
        other.stdin.write("second\n")
        assert other.stdout.readline().split() == [str(COUNT + 2), "twos", "False"]
        other.stdin.close()
        other.wait()
    assert index.get(["first", "second"]).ids == ["first", "second"]


def test_an_acknowledged_write_is_in_the_next_search_of_others(
    index: EmbeddedVectorIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_reading, "_BELIEVED_S", math.inf)
    other = EmbeddedVectorStore(tmp_path / "vectors", approximate_above=500).open("i")
    query = np.full((1, 8), -1, np.float32)
    for number in range(50):
        index.upsert(Entries([f"new{number:02}"], query * (1 + number)))
        assert [hit.id for hit in other.search(query, number + 1)[0]] == [f"new{n:02}" for n in range(number + 1)]
        assert other.count() == COUNT + 1 + number
    index.delete([f"new{number:02}" for number in range(49)])
    assert other.count() == COUNT + 1
    other.compact()
    assert index.count() == COUNT + 1
    EmbeddedVectorStore(tmp_path / "vectors").drop("i")
    for each in (index, other):
        with pytest.raises(NotFound):
            each.search(query, 1)
    other.close()


@pytest.mark.parametrize("kept", [10, 100_000])
def test_searches_go_on_while_another_graph_is_read(
    index: EmbeddedVectorIndex, tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_KEPT_REMOVALS", kept)
    other = EmbeddedVectorStore(tmp_path / "vectors", approximate_above=500).open("i")
    ones = np.ones((1, 8), np.float32)
    first = other._state().graph
    with other._reader._renewing:  # nobody reads another graph meanwhile
        index.delete(index.ids(where=col("part") < 100))
        index.upsert(Entries(["new"], ones))
        index.compact()
        assert (other._state().graph is first) == (kept > 100)
        index.delete(index.ids(where=(col("part") >= 100) & (col("part") < 200)))
        index.upsert(Entries(["newer", "e3999"], np.concatenate([ones * 2, -ones])))
        queries = made_vectors(COUNT, 8)[:300]
        found, wanted = (
            [{hit.id for hit in hits} for hits in each.search(queries, 5, effort=4)] for each in (other, index)
        )
        assert np.mean([len(some & others) / 5 for some, others in zip(found, wanted, strict=True)]) > 0.99
        assert [hit.id for hit in other.search(ones, 2)[0]] == ["new", "newer"]
        assert other.count() == index.count() == COUNT - 200 + 2
    end = time.monotonic() + 5
    while other._state().epoch != index._state().epoch:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert other._state().graph is not first
    assert [hit.id for hit in other.search(ones, 2)[0]] == ["new", "newer"]
    assert other.count() == COUNT - 200 + 2
    other.close()


def test_who_searches_by_the_graph_before_compacts_the_one_in_use(index: EmbeddedVectorIndex, tmp_path: Path) -> None:
    other = EmbeddedVectorStore(tmp_path / "vectors", approximate_above=500).open("i")
    first = other._state().graph
    other._reader._renewal_from = math.inf  # it has not come to reading another graph
    index.delete(["e0"])
    index.compact()
    assert other._state().graph is first
    index.delete(["e1"])
    other.compact()
    assert other._state().graph is not first
    assert other.count() == index.count() == COUNT - 2
    other.close()


def test_a_write_whose_writer_was_killed_before_it_told_others_is_found_soon(index: EmbeddedVectorIndex) -> None:
    assert index.count() == COUNT
    with sqlite3.connect(index._file.path) as killed:  # after its commit
        killed.execute("DELETE FROM entry WHERE id = 'e7'")
        killed.execute("INSERT INTO removed (number) VALUES (8)")
        killed.execute("UPDATE version SET writes = writes + 1")
    killed.close()
    end = time.monotonic() + 5
    while index.count() == COUNT:
        assert time.monotonic() < end
    assert index.count() == COUNT - 1


def test_without_faiss_searches_are_exact(
    store: EmbeddedVectorStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "mainspring.vectors.adapters.graph", raising=False)
    embedded_reading.graphs.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            index = store.create("i", SPEC)
            index.upsert(_entries(0, COUNT))
            index.compact()
        assert "pip install 'mainspring[vectors]'" in caplog.text
        assert [hits[0].id for hits in index.search(_queries(), 1)] == [f"e{number}" for number in range(20)]
        assert list(index._folder.glob("*.graph")) == []
        index.close()
    finally:
        embedded_reading.graphs.cache_clear()


def test_an_index_that_was_dropped_is_not_written_by_who_has_it_open(
    index: EmbeddedVectorIndex, store: EmbeddedVectorStore
) -> None:
    store.drop("i")
    for call in (lambda: index.upsert(_entries(0, 1)), index.compact, lambda: index.search(_queries(), 1)):
        with pytest.raises(NotFound):
            call()
    for _ in range(8):  # a file system may give its number to another file at once
        store.create("i", SPEC).close()
        assert not index.there
        store.drop("i")
    store.create("i", SPEC).close()
    for call in (lambda: index.upsert(_entries(0, 1)), lambda: index.delete(["e1"]), index.compact, index.ids):
        with pytest.raises(NotFound):
            call()
    for read in (lambda: index.get(["e1"]), index.count, lambda: index.search(_queries(), 1)):
        with pytest.raises(NotFound):
            read()
    assert store.open("i").count() == 0


def test_what_a_killed_drop_or_creation_left_is_swept(store: EmbeddedVectorStore, tmp_path: Path) -> None:
    store.create("i", SPEC).close()
    (tmp_path / "vectors" / "i").rename(tmp_path / "vectors" / ".i.0123.partial")
    assert store.names() == []
    store.create("i", SPEC).close()
    store.drop("i")
    assert list((tmp_path / "vectors").iterdir()) == []


@pytest.mark.parametrize(
    "where",
    [
        col("part") < 2**70,
        col("kind") == "\ud800",
        functools.reduce(lambda left, right: left | right, [col("part") == number for number in range(3_000)]),
    ],
    ids=["large", "surrogate", "deep"],
)
def test_a_condition_that_cannot_be_written_down_is_refused(index: EmbeddedVectorIndex, where: Node) -> None:
    for _ in range(2):
        with pytest.raises(Invalid):
            index.search(_queries(), 3, where=where)
        with pytest.raises(Invalid):
            index.count(where)


def test_an_id_that_cannot_be_is_not_there(index: EmbeddedVectorIndex) -> None:
    impossible = ["\ud800", "a\0b", "", "x" * 600]
    assert index.get([*impossible, "e1"]).ids == ["e1"]
    assert index.delete(impossible) == 0
    with pytest.raises(Invalid):
        index.ids(after="\ud800")


@pytest.mark.parametrize("effort", [0.0, -1.0, math.nan, math.inf])
def test_an_effort_that_is_none_is_refused(index: EmbeddedVectorIndex, effort: float) -> None:
    with pytest.raises(Invalid):
        index.search(_queries(), 3, effort=effort)


def test_data_of_any_offset_is_searched_exactly(tmp_path: Path) -> None:
    # Distances that float32 cannot tell apart: squared lengths are 1e8, the squared distances below 1.
    vectors = (made_vectors(500, 8) * np.float32(0.1) + np.float32(1e4)).astype(np.float32)
    index = EmbeddedVectorStore(tmp_path).create("i", IndexSpec(dimension=8, metric="euclidean"))
    index.upsert(Entries([f"e{number}" for number in range(500)], vectors))
    for query, hits in zip(vectors[:20], index.search(vectors[:20], 3), strict=True):
        distances = np.linalg.norm(vectors.astype(np.float64) - query.astype(np.float64), axis=1)
        assert [-hit.score for hit in hits] == pytest.approx(np.sort(distances)[:3].tolist())
