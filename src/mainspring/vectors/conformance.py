"""Conformance suites of vector indexes and their stores.

Derive a test class from each, with a fixture `store`: an empty store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.expr.tree import Node, col
from mainspring.core.schema import DType
from mainspring.vectors.conditions import condition
from mainspring.vectors.conformance_oracle import (
    CLOSE,
    FILTERS,
    check_order,
    made,
    made_rows,
    made_vectors,
    oracle,
    recall,
)
from mainspring.vectors.conformance_store import (
    FIELDS,
    Stored,
    await_that,
    check_absent,
    check_names,
    repeated,
    run_at_once,
)
from mainspring.vectors.model import METRICS, Entries, IndexSpec, Metric
from mainspring.vectors.ports import VectorIndex, VectorStore

_SELECTIVITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9, 1.0)
_HOSTILE = (
    "'; DROP TABLE entry; --",
    '"',
    "%",
    "_",
    "\\",
    "a/../b",
    " ",
    "\n",
    "é",
    "e\u0301",
    "\U0001f980",
    "x" * 512,
)


class VectorIndexConformance(Stored):
    """Suite of one index.

    Attributes:
        least_recall: Mean recall@10 that each filtered search reaches; 1 for an exact index.
        entries: Number of entries where recall is measured: enough that an approximate index is used.
        compares_only: Whether it takes no other filters than `conditions.condition` does.
        replaces_at_once: Whether an entry that a write replaces is never missing, from no search.
        chooses_by_id: Whether of several entries that are equally near the first by id are chosen, where not all fit.
    """

    least_recall: ClassVar[float] = 1.0
    entries: ClassVar[int] = 1_000
    dimension: ClassVar[int] = 16
    compares_only: ClassVar[bool] = False
    replaces_at_once: ClassVar[bool] = True
    chooses_by_id: ClassVar[bool] = True

    @pytest.fixture
    def beside(self, store: VectorStore) -> VectorStore:
        """Return another store at the same place, where there can be one."""
        return store

    @pytest.fixture(params=METRICS)
    def metric(self, request: pytest.FixtureRequest) -> Metric:
        found: Metric = request.param
        return found

    @pytest.fixture
    def index(self, store: VectorStore) -> Iterator[VectorIndex]:
        made_index = store.create("index", IndexSpec(dimension=4, fields=FIELDS))
        yield made_index
        made_index.close()

    def test_finds_the_nearest_first_with_their_similarities(self, store: VectorStore, metric: Metric) -> None:
        vectors, ids = made_vectors(300, 8), [f"e{number:03}" for number in range(300)]
        index = store.create("i", IndexSpec(dimension=8, metric=metric))
        index.upsert(made(ids, vectors))
        queries = made_vectors(20, 8, seed=1) * np.float32(3)
        for query, hits in zip(queries, index.search(queries, 10), strict=True):
            scores = oracle(metric, vectors, query)
            check_order(hits)
            assert len(hits) == 10
            assert {type(hit.id) for hit in hits} == {str}
            assert {type(hit.score) for hit in hits} == {float}
            np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:10], rtol=CLOSE, atol=CLOSE)
            for hit in hits:
                assert hit.score == pytest.approx(scores[ids.index(hit.id)], rel=CLOSE, abs=CLOSE)

    def test_many_queries_are_answered_as_one_by_one(self, index: VectorIndex) -> None:
        index.upsert(made([f"e{number}" for number in range(200)], made_vectors(200, 4)))
        queries = made_vectors(50, 4, seed=2)
        assert index.search(queries, 5) == [index.search(query[None, :], 5)[0] for query in queries]
        assert index.search(np.empty((0, 4), np.float32), 5) == []

    def test_what_is_equally_near_comes_by_id(self, store: VectorStore, metric: Metric) -> None:
        index = store.create("i", IndexSpec(dimension=3, metric=metric))
        same = np.array([0.3, 0.1, -0.7], dtype=np.float32)
        ids = [*(f"same{number:02}" for number in reversed(range(30))), "other", "opposite"]
        vectors = np.array([*[same] * 30, same * np.float32(0.5) + [0, 0.4, 0], -same], dtype=np.float32)
        index.upsert(made(ids, vectors))
        (hits,) = index.search(same[None, :], 32)
        check_order(hits)
        assert [hit.id for hit in hits] == [*(f"same{number:02}" for number in range(30)), "other", "opposite"]
        (hits,) = index.search(same[None, :], 7)
        if self.chooses_by_id:
            assert [hit.id for hit in hits] == [f"same{number:02}" for number in range(7)]
        assert {hit.id for hit in hits} <= set(ids[:30])

    def test_more_than_there_are_gives_all(self, index: VectorIndex) -> None:
        query = np.ones((1, 4), np.float32)
        assert index.search(query, 10) == [[]]
        assert (index.count(), index.ids(), len(index.get(["a"]))) == (0, [], 0)
        index.upsert(made(["a", "b", "c"], made_vectors(3, 4)))
        assert sorted(hit.id for hit in index.search(query, 10_000)[0]) == ["a", "b", "c"]
        for k in (0, -1):
            with pytest.raises(Invalid):
                index.search(query, k)

    def test_filters_pass_what_python_passes(self, index: VectorIndex) -> None:
        count = 400
        vectors, rows, ids = made_vectors(count, 4), made_rows(count), [f"e{number:03}" for number in range(count)]
        index.upsert(made(ids, vectors, rows))
        query = made_vectors(1, 4, seed=5)
        for where, passes in FILTERS:
            if self.compares_only and not _compares(where):
                with pytest.raises(Invalid, match="cannot filter by"):
                    index.count(where)
                continue
            kept = [place for place, row in enumerate(rows) if passes(row)]
            wanted = [ids[place] for place in kept]
            assert index.ids(where=where) == wanted
            assert index.count(where) == len(wanted)
            (hits,) = index.search(query, 10, where=where)
            check_order(hits)
            assert {hit.id for hit in hits} <= set(wanted)
            assert len(hits) == min(10, len(wanted))
            assert recall("cosine", vectors[kept], wanted, query[0], hits, 10) == 1.0

    @pytest.mark.parametrize(
        "where", [col("colour") == "red", col("part"), col("kind") > 3, col("part") == "x"], ids=range(4)
    )
    def test_a_filter_that_is_no_condition_on_the_fields_is_refused(self, index: VectorIndex, where: Node) -> None:
        for filled in (False, True):
            if filled:
                index.upsert(made(["a"], made_vectors(1, 4)))
            with pytest.raises(Invalid):
                index.search(np.ones((1, 4), np.float32), 3, where=where)
            with pytest.raises(Invalid):
                index.count(where)
            with pytest.raises(Invalid):
                index.ids(where=where)

    @pytest.mark.parametrize(
        "vectors",
        [np.ones((1, 3)), np.ones((1, 5)), np.ones(4), [[1, 2, 3, np.nan]], [[1, 2, np.inf, 3]], [["a"] * 4],
            np.zeros((1, 4)),
        ],
        ids=["short", "long", "flat", "nan", "infinite", "text", "zeros"],
    )  # fmt: skip
    def test_a_vector_that_has_no_similarity_is_refused(self, index: VectorIndex, vectors: Any) -> None:
        index.upsert(made(["kept"], made_vectors(1, 4)))
        with pytest.raises(Invalid):
            index.upsert(Entries(["bad"], vectors))
        with pytest.raises(Invalid):
            index.search(vectors, 3)
        assert index.ids() == ["kept"]

    def test_zeros_are_a_vector_where_they_have_a_similarity(self, store: VectorStore) -> None:
        for metric in ("dot", "euclidean"):
            index = store.create(metric, IndexSpec(dimension=2, metric=metric))
            index.upsert(made(["zero", "one"], np.array([[0, 0], [1, 0]], np.float32)))
            (hits,) = index.search(np.zeros((1, 2), np.float32), 2)
            assert [hit.score for hit in hits] == [0.0, 0.0 if metric == "dot" else -1.0]

    @pytest.mark.parametrize(
        "entries",
        [
            Entries(["new", ""], made_vectors(2, 4)),
            Entries(["new", "new"], made_vectors(2, 4)),
            Entries(["new", "a\0b"], made_vectors(2, 4)),
            Entries(["new", "x" * 513], made_vectors(2, 4)),
            Entries(["new", "\ud800"], made_vectors(2, 4)),
            Entries(["new", "more"], made_vectors(3, 4)),
            Entries(["new", "more"], made_vectors(2, 4), {"colour": ["red", None]}),
            Entries(["new", "more"], made_vectors(2, 4), {"part": [1, "two"]}),
            Entries(["new", "more"], made_vectors(2, 4), {"year": [1, 2**31]}),
            Entries(["new", "more"], made_vectors(2, 4), {"kind": ["a", 5]}),
            Entries(["new", "more"], made_vectors(2, 4), {"kind": ["a", "\ud800"]}),
            Entries(["new", "more"], made_vectors(2, 4), {"part": [1]}),
        ],
        ids=["empty", "twice", "nul", "long", "surrogate", "ragged", "unknown", "type", "range", "number",
            "text", "few"],
    )  # fmt: skip
    def test_entries_that_do_not_fit_are_refused_whole(self, index: VectorIndex, entries: Entries) -> None:
        index.upsert(made(["kept"], made_vectors(1, 4)))
        with pytest.raises(Invalid):
            index.upsert(entries)
        assert index.ids() == ["kept"]

    def test_upsert_replaces_an_entry_whole(self, index: VectorIndex) -> None:
        axes = np.eye(4, dtype=np.float32)
        index.upsert(Entries(["a", "b"], axes[:2], {"part": [1, 2], "kind": ["x", "y"]}))
        index.upsert(Entries(["c", "a"], axes[2:], {"part": [3, 4]}))
        index.upsert(Entries([], np.empty((0, 4), np.float32)))
        assert index.count() == 3
        held = index.get(["a", "b", "c"])
        assert (held.fields["part"], held.fields["kind"]) == ([4, 2, 3], [None, "y", None])
        assert index.ids(where=col("kind") == "x") == []
        assert index.ids(where=col("part") == 1) == []
        (hits,) = index.search(axes[:1], 3)
        assert [hit.score for hit in hits] == [pytest.approx(0.0, abs=CLOSE)] * 3
        (hits,) = index.search(axes[3:], 1)
        assert hits[0].id == "a"
        assert hits[0].score == pytest.approx(1.0, abs=CLOSE)

    def test_what_was_deleted_is_nowhere(self, index: VectorIndex) -> None:
        ids, vectors = [f"e{number}" for number in range(50)], made_vectors(50, 4)
        index.upsert(made(ids, vectors, made_rows(50)))
        assert index.delete([]) == 0
        assert index.delete(["e7", "nobody", "e8", "e7"]) == 2
        assert index.delete(["e7"]) == 0
        assert index.count() == 48
        assert not {"e7", "e8"} & {hit.id for hit in index.search(vectors[7:8], 50)[0]}
        assert not {"e7", "e8"} & set(index.ids())
        assert index.get(["e7", "e9", "e8"]).ids == ["e9"]
        index.upsert(made(["e7"], vectors[7:8]))
        assert index.search(vectors[7:8], 1)[0][0].id == "e7"
        assert index.get(["e7"]).fields["part"] == [None]

    def test_gives_entries_back_in_the_order_asked(self, index: VectorIndex) -> None:
        vectors, rows = made_vectors(20, 4), made_rows(20)
        index.upsert(made([f"e{number:02}" for number in range(20)], vectors, rows))
        asked = [3, 17, 0]
        held = index.get(["e03", "nobody", "e17", "e00"])
        assert list(held.ids) == ["e03", "e17", "e00"]
        for name in FIELDS:
            assert list(held.fields[name]) == [rows[place][name] for place in asked]
        wanted = vectors[asked] / np.linalg.norm(vectors[asked], axis=1, keepdims=True)
        np.testing.assert_allclose(
            held.vectors / np.linalg.norm(held.vectors, axis=1, keepdims=True), wanted, atol=CLOSE
        )
        assert held.vectors.dtype == np.float32
        assert index.get([]).vectors.shape == (0, 4)

    def test_vectors_without_a_cosine_come_back_as_given(self, store: VectorStore) -> None:
        vectors = made_vectors(5, 4) * np.float32(1e6)
        for metric in ("dot", "euclidean"):
            index = store.create(metric, IndexSpec(dimension=4, metric=metric))
            index.upsert(made(list("abcde"), vectors))
            np.testing.assert_allclose(index.get(list("edcba")).vectors, vectors[::-1], rtol=1e-6)

    def test_lists_ids_in_pages(self, index: VectorIndex) -> None:
        ids = [*(f"e{number}" for number in range(25)), "Z", "z", "é", "Ω", "\U0001f980", "\uffff"]
        index.upsert(made(ids, made_vectors(len(ids), 4), made_rows(len(ids))))
        wanted, pages, after = sorted(ids), list[str](), ""
        while page := index.ids(after=after, count=7):
            pages += page
            after = page[-1]
        assert pages == wanted
        part = col("part") < 500
        assert (
            index.ids(after=wanted[3], count=2, where=part)
            == [each for each in index.ids(where=part) if each > wanted[3]][:2]
        )

    def test_any_text_is_an_id_and_a_field(self, index: VectorIndex) -> None:
        count = len(_HOSTILE)
        index.upsert(Entries(_HOSTILE, made_vectors(count, 4), {"kind": _HOSTILE, "part": range(count)}))
        assert index.ids() == sorted(_HOSTILE)
        for place, text in enumerate(_HOSTILE):
            assert index.get([text]).fields["kind"] == [text]
            assert index.ids(where=col("kind") == text) == [text]
            assert index.ids(where=col("part") == place) == [text]
        assert index.delete(_HOSTILE) == count
        assert index.count() == 0

    def test_numbers_come_back_exactly(self, index: VectorIndex) -> None:
        values: dict[str, list[Any]] = {
            "part": [2**63 - 1, -(2**63), 2**53 + 1, 0],
            "year": [2**31 - 1, -(2**31), 0, None],
            "price": [0.1, 1.7976931348623157e308, 5e-324, -0.0],
            "rough": [0.10000000149011612, 3.4028234663852886e38, None, -1.5],
            "seen": [0, 1, -1, 1785000000_123456],
        }
        index.upsert(Entries(list("abcd"), made_vectors(4, 4), values))
        held = index.get(list("abcd")).fields
        assert {name: list(held[name]) for name in values} == values
        assert index.ids(where=col("part") == 2**53 + 1) == ["c"]
        assert index.ids(where=col("price") > 1e308) == ["b"]

    def test_it_is_there_after_it_was_closed(self, store: VectorStore) -> None:
        spec = IndexSpec(dimension=4, metric="dot", fields=FIELDS)
        ids, vectors, rows = [f"e{number}" for number in range(60)], made_vectors(60, 4), made_rows(60)
        index = store.create("i", spec)
        index.upsert(made(ids, vectors, rows))
        index.upsert(made(ids[:5], vectors[5:10], rows[5:10]))
        index.delete(ids[10:20])
        before = index.search(vectors[:9], 60, where=col("part") < 900)
        held = index.get(ids)
        index.close()
        index.close()
        index = store.open("i")
        assert index.spec == spec
        assert index.search(vectors[:9], 60, where=col("part") < 900) == before
        again = index.get(ids)
        assert (list(again.ids), again.fields) == (list(held.ids), held.fields)
        np.testing.assert_array_equal(again.vectors, held.vectors)
        index.close()

    def test_another_that_has_it_open_sees_what_is_written(self, store: VectorStore, beside: VectorStore) -> None:
        writer = store.create("i", IndexSpec(dimension=4, fields=FIELDS))
        reader = beside.open("i")
        axes = np.eye(4, dtype=np.float32)
        writer.upsert(made(list("abcd"), axes))
        await_that(lambda: reader.count() == 4)
        writer.upsert(made(["a"], axes[1:2]))
        writer.delete(["b"])
        await_that(lambda: [hit.id for hit in reader.search(axes[1:2], 1)[0]] == ["a"])
        writer.compact()
        writer.delete(["a"])
        await_that(lambda: reader.ids() == ["c", "d"])
        reader.upsert(made(["e"], axes[:1]))
        await_that(lambda: writer.search(axes[:1], 1)[0][0].id == "e")
        writer.close()
        reader.close()

    def test_a_search_sees_a_write_whole_or_not_at_all(self, index: VectorIndex) -> None:
        ids = [f"e{number:02}" for number in range(40)]
        query = np.ones((1, 4), np.float32)

        def write(round_number: int) -> None:
            vectors = made_vectors(40, 4, seed=round_number)
            index.upsert(Entries(ids, vectors, {"part": [round_number] * 40}))

        def read() -> None:
            (hits,) = index.search(query, 100)
            check_order(hits)
            held = index.get(ids)
            assert len(set(held.fields["part"])) <= 1
            assert max(len(hits), len(held)) <= 40
            assert not self.replaces_at_once or (len(hits), len(held)) == (40, 40)

        write(0)
        with repeated(read, 3):
            for number in range(1, 25):
                write(number)
                if number % 8 == 0:
                    index.compact()
        assert index.get(ids).fields["part"] == [24] * 40

    def test_threads_write_at_once(self, index: VectorIndex) -> None:
        def write(name: str) -> None:
            for number in range(10):
                index.upsert(made([f"{name}{number}", f"{name}!{number}"], made_vectors(2, 4)))
                assert index.delete([f"{name}!{number}"]) == 1

        run_at_once(*(partial(write, name) for name in "abcd"))
        assert index.ids() == sorted(f"{name}{number}" for name in "abcd" for number in range(10))

    def test_compaction_keeps_what_is_there_and_no_byte_of_what_was(
        self, store: VectorStore, stored: Callable[[], Iterable[bytes]], metric: Metric
    ) -> None:
        count, dimension = self.entries, self.dimension
        index = store.create("i", IndexSpec(dimension=dimension, metric=metric, fields=FIELDS))
        ids, vectors, rows = [f"secret-{number}!" for number in range(count)], made_vectors(count, dimension), []
        rows = made_rows(count)
        rows[5]["kind"], rows[6]["kind"] = "personal", "replaced-text"
        index.upsert(made(ids, vectors, rows))
        index.compact()
        gone = [5, 100, count - 1]
        held = [index.get([ids[place]]).vectors[0] for place in (*gone, 6)]
        assert index.delete([ids[place] for place in gone]) == 3
        index.upsert(made([ids[6]], vectors[7:8]))
        index.compact()
        kept = [place for place in range(count) if place not in (*gone, 6)]
        assert index.count() == count - 3
        hits = index.search(vectors[:30], 10)
        found = [
            recall(metric, vectors[[*kept, 7]], [*(ids[place] for place in kept), ids[6]], query, each, 10)
            for query, each in zip(vectors[:30], hits, strict=True)
        ]
        assert np.mean(found) >= self.least_recall
        assert not {ids[place] for place in gone} & {hit.id for each in hits for hit in each}
        texts = [b"personal", b"replaced-text", *(ids[place].encode() for place in gone)]
        parts = [*texts, *(vector.astype(np.float32).tobytes()[:12] for vector in (*held, *vectors[[*gone, 6]]))]
        check_absent(stored, *parts)
        assert index.size_bytes() > 0
        index.close()

    def test_recall_holds_at_every_selectivity(self, store: VectorStore, metric: Metric) -> None:
        count, clusters = self.entries, 20
        vectors, rows = made_vectors(count, self.dimension), made_rows(count)
        ids = [f"e{number}" for number in range(count)]
        index = store.create("i", IndexSpec(dimension=self.dimension, metric=metric, fields=FIELDS))
        index.upsert(made(ids, vectors, rows))
        index.compact()
        asked = np.array([20 * place for place in range(10)])  # near the first cluster, whose kind is "a"
        queries = vectors[asked] + made_vectors(10, self.dimension, clusters=clusters, seed=9) * np.float32(0.05)
        cases = [
            (col("part") < round(1000 * share), [r["part"] < round(1000 * share) for r in rows])
            for share in _SELECTIVITIES
        ]
        # Fields that go with the vectors: what passes lies far from the queries, or around them.
        cases.append((~(col("kind") == "a"), [r["kind"] not in ("a", None) for r in rows]))
        cases.append(
            ((col("kind") == "it's") & (col("part") < 500), [r["kind"] == "it's" and r["part"] < 500 for r in rows])
        )
        cases.append((col("kind") == "a", [r["kind"] == "a" for r in rows]))
        for where, passes in cases:
            kept = np.flatnonzero(passes)
            names = [ids[place] for place in kept]
            found = []
            for query, hits in zip(queries, index.search(queries, 10, where=where), strict=True):
                check_order(hits)
                assert len(hits) == min(10, len(kept))
                assert {hit.id for hit in hits} <= set(names)
                found.append(recall(metric, vectors[kept], names, query, hits, 10))
            assert np.mean(found) >= self.least_recall, (where, len(kept))
        index.close()

    def test_lengths_at_the_ends_of_float32_are_compared(self, store: VectorStore, metric: Metric) -> None:
        vectors = made_vectors(60, 4)
        for scale in (1e-12, 1e12):
            scaled = vectors * np.float32(scale)
            index = store.create(f"i{scale}", IndexSpec(dimension=4, metric=metric))
            index.upsert(made([f"e{number:02}" for number in range(60)], scaled))
            (hits,) = index.search(scaled[:1], 60)
            assert len(hits) == 60
            nearest = np.argsort(-oracle(metric, scaled, scaled[0]), kind="stable")
            assert [hit.id for hit in hits][:5] == [f"e{place:02}" for place in nearest[:5]]


def _compares(where: Node) -> bool:
    with suppress(Invalid):
        return bool(condition(where, FIELDS))
    return False


class VectorStoreConformance(Stored):
    """Suite of a store of indexes."""

    def test_keeps_indexes_by_name(self, store: VectorStore) -> None:
        assert store.names() == []
        first = store.create("b", IndexSpec(dimension=2))
        second = store.create("a", IndexSpec(dimension=3, fields={"kind": DType.String}))
        assert store.names() == ["a", "b"]
        first.upsert(made(["x"], np.ones((1, 2), np.float32)))
        assert (first.count(), second.count()) == (1, 0)
        assert store.open("a").spec == second.spec

    def test_an_equal_specification_opens_and_another_is_a_conflict(self, store: VectorStore) -> None:
        spec = IndexSpec(dimension=2, fields={"kind": DType.String})
        store.create("i", spec).upsert(made(["x"], np.ones((1, 2), np.float32)))
        assert store.create("i", spec).ids() == ["x"]
        check_names(
            store,
            store.create,
            spec,
            IndexSpec(dimension=3, fields=spec.fields),
            IndexSpec(dimension=2, metric="dot", fields=spec.fields),
            IndexSpec(dimension=2),
            IndexSpec(dimension=2, fields={"kind": DType.Int64}),
        )
        assert store.names() == ["i"]
        assert store.open("i").ids() == ["x"]

    def test_an_index_that_was_dropped_is_gone_with_its_bytes(
        self, store: VectorStore, stored: Callable[[], Iterable[bytes]]
    ) -> None:
        spec = IndexSpec(dimension=2, fields={"kind": DType.String})
        index = store.create("i", spec)
        store.create("kept", spec).upsert(Entries(["kept"], np.ones((1, 2), np.float32)))
        index.upsert(Entries(["secret"], np.array([[0.123, 0.456]], np.float32), {"kind": ["personal"]}))
        index.close()
        store.drop("i")
        assert store.names() == ["kept"]
        with pytest.raises(NotFound):
            store.open("i")
        check_absent(stored, b"secret", b"personal")
        assert store.create("i", spec).count() == 0
        assert store.open("kept").ids() == ["kept"]
