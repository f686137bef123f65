"""Conformance suite of text indexes and their stores.

Derive a test class from it, with a fixture `store`: an empty store. The oracle computes each score from the
formula and each filter by its evaluation; one score is computed by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import numpy as np
import pytest

from mainspring.core.errors import Invalid
from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.tree import Node, col, days
from mainspring.core.schema import DType
from mainspring.vectors.bm25 import ranked
from mainspring.vectors.conformance_store import (
    FIELDS,
    Stored,
    await_that,
    check_absent,
    check_names,
    repeated,
    run_at_once,
)
from mainspring.vectors.model import Hit
from mainspring.vectors.ports import TextIndex, TextStore
from mainspring.vectors.words import words

_CLOSE = 1e-3
_ROUNDED = 0.125  # lengths may be rounded by so much from 40 words on
_WORDS = [f"word{number}" for number in range(60)]
_NAN = float("nan")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = ("a", "b", "it's", "", "ünï", "\U0001f980", "zz", None)
_FILTERS: tuple[Node, ...] = (
    col("kind") == "a",
    ~(col("kind") == "a"),
    col("kind") != "it's",
    col("kind") < "b",
    col("kind") <= "b",
    col("kind") > "zz",
    col("kind") >= "",
    ~(col("kind") < "zz"),
    col("kind").is_null(),
    ~col("kind").is_null(),
    col("kind").one_of(["a", "ünï", "nothing"]),
    ~col("kind").one_of(["a", "ünï"]),
    col("kind").one_of([]),
    ~col("kind").one_of([]),
    col("public"),
    ~col("public"),
    col("public") != True,  # noqa: E712
    col("part") < 3,
    ~(col("part") <= 3),
    col("part") > 2.5,
    col("part") == 2.5,
    col("part") != 2.5,
    col("part") >= float(2**63),
    col("part") < 2**63 - 1,
    col("part").one_of([1, 3]),
    col("part").one_of([1, 2.5, 3.0]),
    col("year").one_of([2**40, 2020.5, 2021]),
    ~col("part").one_of([1, 2.5, 3.0]),
    col("year") == 2**31 + 2**31,
    col("year") >= 2021,
    col("price") < 0.5,
    ~(col("price") < 0.5),
    col("price") > 0.5,
    col("price") >= -1e308,
    col("price") == 0.0,
    col("price") != 0.25,
    col("price").is_nan(),
    ~col("price").is_nan(),
    col("price").one_of([0.25, 1]),
    col("rough") < 1,
    col("rough") == 0.1,
    col("rough") >= 0.25,
    col("seen") == _EPOCH,
    col("seen") != _EPOCH.astimezone(timezone(timedelta(hours=14))),
    col("seen") < _EPOCH,
    ~(col("seen") < _EPOCH),
    col("seen") >= _EPOCH - timedelta(microseconds=1),
    col("seen") > _EPOCH.replace(year=2026),
    col("seen") > _EPOCH.replace(year=1),
    col("seen") <= _EPOCH.replace(year=9999),
    col("seen").one_of([_EPOCH, _EPOCH.replace(year=1900)]),
    ~col("seen").one_of([_EPOCH]),
    col("seen").is_null(),
    col("seen").cast(DType.Int64) == -1,
    col("seen").cast(DType.Int64) > 0.5,
    (col("kind") == "a") & (col("part") > 1) & ~col("public"),
    (col("kind") == "a") | (col("part") > 3) | col("public").is_null(),
    ~((col("kind") == "a") & (col("part") > 1)),
    ~((col("kind") == "a") | ~(col("part") > 1)),
)
_REFUSED: tuple[tuple[Node, str], ...] = (
    (col("kind").contains("a"), "contains"),
    (col("kind").lower() == "a", "lower"),
    (col("part") + 1 == 2, "int_add"),
    (col("part") == col("year"), "two fields"),
    (col("rough").cast(DType.Int64) > 1, "cast"),
    (col("price").coalesce(0.0) > 1, "coalesce"),
    (col("seen").day() > 3, "time_part"),
    (col("seen") - col("seen") < days(1), "instant_between"),
    (col("part"), "Int64"),
    (col("colour") == "red", "colour"),
    (col("part") == "x", "part"),
)
"""Filters that are refused, and a word of the message."""
_QUERIES = (
    '"fox', "fox AND", "NOT fox", "-fox", "+fox", "fox*", "fox~2", "fox^3", "words:fox", "id:secret fox", "(fox",
    "[a TO fox]", "{fox}", "/fox/", "fox OR *", "\\fox", "fox\0", "fox'; DROP TABLE x; --", "fox\ud800",
)  # fmt: skip
_UNICODE = (
    ("Straße", "STRASSE"),
    ("café", "CAFE\u0301"),
    ("Ｆｕｌｌ", "full"),
    ("हिन्दी में", "हिन्दी"),
    ("東京都に住む", "京都"),
    ("pass\u200bword", "password"),
    ("snake_case", "case"),
    ("e-mail@example.org", "example"),
    ("№ 5", "no"),
    ("ﬁne", "fine"),
    ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
)
"""Texts, and a query that finds each."""


def made_texts(count: int, *, longest: int = 30, seed: int = 0) -> list[str]:
    """Return texts of a few words, the first words the most common."""
    chance = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(_WORDS) + 1)
    lengths = chance.integers(0, longest + 1, size=count)
    return [" ".join(chance.choice(_WORDS, length, p=weights / weights.sum())) for length in lengths]


def made_fields(count: int, *, seed: int = 0) -> dict[str, list[Any]]:
    """Return fields with nulls, NaN and both zeros."""
    chance = np.random.default_rng(seed)
    among: Mapping[str, Sequence[Any]] = {
        "kind": _KINDS,
        "part": (0, 1, 2, 3, 2**53 + 1, 2**63 - 1, -(2**63), None),
        "year": (2020, 2021, 2**31 - 1, None),
        "price": (0.0, -0.0, 0.25, 0.5, 1.0, _NAN, float("inf"), float("-inf"), None),
        "rough": (0.25, 0.1, _NAN, None),
        "public": (True, False, None),
        "seen": (0, 1785000000_123456, -1, None),
    }
    return {name: [values[int(chance.integers(len(values)))] for _ in range(count)] for name, values in among.items()}


class TextIndexConformance(Stored):
    """Suite of one index, and of the store that it is in."""

    @pytest.fixture
    def index(self, store: TextStore) -> Iterator[TextIndex]:
        made_index = store.create("index", FIELDS)
        yield made_index
        made_index.close()

    def test_a_score_is_the_formula_s(self, index: TextIndex) -> None:
        index.upsert(["a", "b", "c"], ["red fox", "Red, red rose!", "blue"], {})
        ((first, second),) = index.search(["red"], 5)
        # N = 3, n = 2: ln(1 + 1.5 / 2.5) = 0.4700. Lengths 2 and 3, their mean 2.
        assert (first.id, second.id) == ("b", "a")
        assert first.score == pytest.approx(0.4700 * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2)), rel=_CLOSE)
        assert second.score == pytest.approx(0.4700 * 2.2 / (1 + 1.2), rel=_CLOSE)
        assert {type(hit.score) for hit in (first, second)} == {float}

    def test_ranks_as_the_formula_does(self, index: TextIndex) -> None:
        oracle = _filled(index, made_texts(150))
        queries = [*made_texts(25, longest=6, seed=1), "word0", "nothing at all", ""]
        for query, hits, wanted in zip(queries, index.search(queries, 20), oracle.search(queries, 20), strict=True):
            _check(query, hits, wanted, oracle, _CLOSE)
        assert index.search([], 5) == []

    def test_long_texts_are_ranked_nearly_so(self, index: TextIndex) -> None:
        oracle = _filled(index, made_texts(60, longest=900))
        queries = made_texts(15, longest=6, seed=1)
        for query, hits, wanted in zip(queries, index.search(queries, 60), oracle.search(queries, 60), strict=True):
            _check(query, hits, wanted, oracle, _ROUNDED)

    def test_the_best_come_first_and_ties_by_id(self, index: TextIndex) -> None:
        ids = [f"t{number:02}" for number in range(40)]
        np.random.default_rng(3).shuffle(ids)
        for start in (0, 15, 30):
            part = ids[start : start + 15]
            index.upsert(part, ["two words"] * len(part), {})
        index.upsert(["best"], ["two two words words"], {})
        index.compact()
        for k in (1, 2, 7, 41, 100):
            (hits,) = index.search(["words two"], k)
            assert [hit.id for hit in hits] == ["best", *sorted(ids)][:k]

    def test_a_query_is_words_alone(self, index: TextIndex) -> None:
        index.upsert(["secret", "fox"], ["nothing here", "the quick fox"], {})
        for query in _QUERIES:
            assert [hit.id for hit in index.search([query], 5)[0]] == ["fox"]

    def test_a_query_s_length_is_bounded(self, index: TextIndex) -> None:
        index.upsert(["a"], ["w5"], {})
        assert len(index.search(["w5 " * 10_000], 1)[0]) == 1
        assert len(index.search([" ".join(f"w{number}" for number in range(1024))], 1)[0]) == 1
        with pytest.raises(Invalid, match="1025 different words"):
            index.search([" ".join(f"w{number}" for number in range(1025))], 1)
        for k in (0, -1):
            with pytest.raises(Invalid):
                index.search(["w5"], k)
        assert len(index.search(["w5"], 10**9)[0]) == 1

    def test_words_of_any_script_are_found(self, index: TextIndex) -> None:
        index.upsert(["other", *(text for text, _ in _UNICODE)], ["different", *(text for text, _ in _UNICODE)], {})
        for text, query in _UNICODE:
            assert [hit.id for hit in index.search([query], 5)[0]] == [text]

    def test_a_text_may_be_anything(self, index: TextIndex) -> None:
        texts = ["", "\0", "\ud800", "x" * 100_000, "!?" * 50, "a\0b", "word " * 50_000]
        index.upsert([f"t{place}" for place in range(len(texts))], texts, {})
        assert index.count() == len(texts)
        assert [hit.id for hit in index.search(["x" * 100_000], 5)[0]] == ["t3"]
        assert [hit.id for hit in index.search(["word"], 5)[0]] == ["t6"]
        index.compact()
        assert index.count() == len(texts)
        assert [hit.id for hit in index.search(["b"], 5)[0]] == ["t5"]

    def test_filters_pass_what_the_expression_does(self, index: TextIndex) -> None:
        count = 200
        oracle = _filled(index, ["word"] * count, made_fields(count))
        for where in _FILTERS:
            (hits,), (wanted,) = index.search(["word"], count, where=where), oracle.search(["word"], count, where=where)
            assert {hit.id for hit in hits} == {hit.id for hit in wanted}, where
            assert len({hit.score for hit in hits}) <= 1  # a filter does not change a score

    def test_other_filters_are_refused_by_name(self, index: TextIndex) -> None:
        for where, told in _REFUSED:
            with pytest.raises(Invalid, match=told):
                index.search(["word"], 5, where=where)

    @pytest.mark.parametrize(
        ("ids", "texts", "fields"),
        [
            (["new", ""], ["x", "x"], {}),
            (["new", "new"], ["x", "x"], {}),
            (["new", "a\0b"], ["x", "x"], {}),
            (["new", "x" * 513], ["x", "x"], {}),
            (["new", "more"], ["x"], {}),
            (["new", "more"], ["x", "x"], {"colour": ["red", None]}),
            (["new", "more"], ["x", "x"], {"part": [1, "two"]}),
            (["new", "more"], ["x", "x"], {"part": [1]}),
            (["new", "more"], ["x", "x"], {"kind": ["a", "x" * 40_000]}),
        ],
        ids=["empty", "twice", "nul", "long", "few", "unknown", "type", "ragged", "field"],
    )
    def test_texts_that_do_not_fit_are_refused_whole(
        self, index: TextIndex, ids: list[str], texts: list[str], fields: dict[str, list[Any]]
    ) -> None:
        index.upsert(["kept"], ["x"], {})
        with pytest.raises(Invalid):
            index.upsert(ids, texts, fields)
        assert [hit.id for hit in index.search(["x"], 9)[0]] == ["kept"]
        assert index.count() == 1

    def test_upsert_replaces_a_text_whole(self, index: TextIndex) -> None:
        index.upsert(["a", "b"], ["old one", "old two"], {"part": [1, 2], "kind": ["x", "y"]})
        index.upsert(["c", "a"], ["new three", "new one"], {"part": [3, 4]})
        index.upsert([], [], {})
        assert index.count() == 3
        assert [hit.id for hit in index.search(["old"], 9)[0]] == ["b"]
        assert {hit.id for hit in index.search(["new"], 9)[0]} == {"a", "c"}
        assert index.search(["one"], 9, where=col("kind") == "x") == [[]]
        assert [hit.id for hit in index.search(["one"], 9, where=col("part") == 4)[0]] == ["a"]

    def test_what_was_deleted_is_nowhere(self, index: TextIndex, stored: Callable[[], Iterable[bytes]]) -> None:
        index.upsert(
            ["her", "him", "it"], ["zanzibarian secret", "a secret", "thing"], {"kind": ["unmistakable", "b", "c"]}
        )
        index.upsert(["her2"], ["zanzibarian"], {})
        index.upsert(["her2"], ["replaced"], {})
        assert index.delete([]) == 0
        assert index.delete(["her", "nobody", "her"]) == 1
        assert index.delete(["her"]) == 0
        assert index.count() == 3
        assert [hit.id for hit in index.search(["secret zanzibarian"], 9)[0]] == ["him"]
        index.compact()
        assert [hit.id for hit in index.search(["secret zanzibarian"], 9)[0]] == ["him"]
        check_absent(stored, b"zanzibar", b"unmistak")
        index.upsert(["her"], ["secret"], {})
        assert {hit.id for hit in index.search(["secret"], 9)[0]} == {"her", "him"}

    def test_it_is_there_after_it_was_closed(self, store: TextStore) -> None:
        index = store.create("i", FIELDS)
        index.upsert([f"t{place}" for place in range(60)], made_texts(60), made_fields(60))
        index.delete(["t3", "t5"])
        before = index.search(_WORDS, 60, where=col("public"))
        index.close()
        index.close()
        index = store.open("i")
        assert index.fields == FIELDS
        assert index.search(_WORDS, 60, where=col("public")) == before
        index.close()

    def test_another_that_has_it_open_sees_what_is_written(self, store: TextStore) -> None:
        writer, reader = store.create("i", FIELDS), store.open("i")
        writer.upsert(["a", "b"], ["one", "two"], {})
        await_that(lambda: reader.count() == 2)
        writer.delete(["a"])
        writer.compact()
        await_that(lambda: reader.search(["one two"], 5) == writer.search(["one two"], 5))
        reader.upsert(["c"], ["one"], {})
        await_that(lambda: [hit.id for hit in writer.search(["one"], 5)[0]] == ["c"])
        writer.close()
        reader.close()

    def test_a_search_sees_a_write_whole_or_not_at_all(self, store: TextStore) -> None:
        index, ids = store.create("i", FIELDS), [f"t{number:02}" for number in range(20)]
        index.upsert(ids, ["round 0"] * 20, {})

        def read() -> None:
            (hits,) = index.search(["round"], 50)
            assert [hit.id for hit in hits] == ids
            (hits,) = index.search([" ".join(map(str, range(9)))], 50)
            assert len({hit.score for hit in hits}) == 1

        with repeated(read, 2):
            for number in range(1, 5):
                index.upsert(ids, [f"round {number}"] * 20, {})
                if number % 2 == 0:
                    index.compact()
        index.close()

    def test_threads_write_at_once(self, store: TextStore) -> None:
        indexes = [store.create("i", {}) for _ in range(3)]

        def write(number: int) -> None:
            for turn in range(2):
                indexes[number].upsert([f"{number}-{turn}", f"{number}!{turn}"], ["word", "word"], {})
                assert indexes[number].delete([f"{number}!{turn}"]) == 1

        run_at_once(*(partial(write, number) for number in range(3)))
        assert [hit.id for hit in indexes[0].search(["word"], 99)[0]] == [
            f"{a}-{b}" for a in range(3) for b in range(2)
        ]

    def test_keeps_indexes_by_name(self, store: TextStore) -> None:
        assert store.names() == []
        check_names(store, store.create, FIELDS, {}, {**FIELDS, "kind": DType.Int64})
        first, second = store.create("b", FIELDS), store.create("a", {'it\'s "odd"': DType.String})
        assert store.names() == ["a", "b"]
        first.upsert(["x"], ["word"], {})
        second.upsert(["y"], ["word"], {'it\'s "odd"': ["z"]})
        assert (first.count(), second.count()) == (1, 1)
        assert second.search(["word"], 5, where=col('it\'s "odd"') == "z")[0][0].id == "y"
        assert store.create("b", FIELDS).count() == 1

    def test_an_index_that_was_dropped_is_gone_with_its_bytes(
        self, store: TextStore, stored: Callable[[], Iterable[bytes]]
    ) -> None:
        index = store.create("i", FIELDS)
        index.upsert(["secret"], ["zanzibarian"], {"kind": ["unmistakable"]})
        store.create("kept", FIELDS).upsert(["kept"], ["word"], {})
        index.close()
        store.drop("i")
        store.drop("i")
        assert store.names() == ["kept"]
        check_absent(stored, b"secret", b"zanzibar", b"unmistak")
        assert store.create("i", FIELDS).count() == 0
        assert store.open("kept").count() == 1


@dataclass(frozen=True)
class _Oracle:
    ids: Sequence[str]
    texts: Sequence[str]
    fields: Mapping[str, list[Any]]

    def search(self, queries: Sequence[str], k: int, *, where: Node | None = None) -> list[list[Hit]]:
        counted = {each: Counter(words(text)) for each, text in zip(self.ids, self.texts, strict=True)}
        within = set(self.ids)
        if where is not None:
            columns = {name: vector(values, FIELDS[name]) for name, values in self.fields.items()}
            passes = evaluate(where, columns, FIELDS, len(self.ids)).to_list()
            within = {each for each, passed in zip(self.ids, passes, strict=True) if passed}
        return [ranked(counted, list(dict.fromkeys(words(query))), within)[:k] for query in queries]


def _filled(index: TextIndex, texts: Sequence[str], fields: Mapping[str, list[Any]] | None = None) -> _Oracle:
    """Fill an index, with deletions and replacements that it has compacted; return the oracle."""
    ids = [f"t{place:03}" for place in range(len(texts))]
    half = len(ids) // 2
    index.upsert([*ids[:half], "gone"], [*texts[::-1][:half], texts[0]], {})
    index.upsert(ids, texts, fields or {})
    index.delete(["gone"])
    index.compact()
    return _Oracle(ids, texts, fields or {})


def _check(query: str, hits: Sequence[Hit], wanted: Sequence[Hit], oracle: _Oracle, close: float) -> None:
    """Raise unless hits have their scores and are the best."""
    scores = {hit.id: hit.score for hit in oracle.search([query], len(oracle.ids))[0]}
    assert [hit.id for hit in hits] == [hit.id for hit in sorted(hits, key=lambda hit: (-hit.score, hit.id))]
    assert len({hit.id for hit in hits}) == len(hits) == len(wanted)
    for hit, best in zip(hits, wanted, strict=True):
        assert hit.score == pytest.approx(scores[hit.id], rel=close)
        assert hit.score == pytest.approx(best.score, rel=close)
