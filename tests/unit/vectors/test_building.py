"""Builds of collections: what is embedded, what the index has, and what searches see meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from kit.collected import BODY, Desk, collection
from kit.encoders import WordEncoder
from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.expr.tree import col
from mainspring.core.time import DAY
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.model import chunks_table
from mainspring.vectors.adapters.embedded import EmbeddedVectorStore
from mainspring.vectors.adapters.memory import MemoryVectorStore
from mainspring.vectors.adapters.memory_text import MemoryTextStore
from mainspring.vectors.building import NO_WORDS, NOT_FINITE, Builder
from mainspring.vectors.chunk_table import EMPTY, NO_TEXT
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.model import Build, IndexSpec
from mainspring.vectors.open_indexes import OpenIndexes

pytestmark = pytest.mark.slow


@pytest.fixture(params=["memory", "delta"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(MemoryLake() if request.param == "memory" else DeltaLake(tmp_path / "lake"))
    yield desk
    desk.engine.dispose()


@pytest.fixture
def memory() -> Iterator[Desk]:
    desk = Desk(MemoryLake())
    yield desk
    desk.engine.dispose()


def test_documents_are_found_with_their_place(desk: Desk) -> None:
    encoder = WordEncoder()
    desk.land({"path": "guide", "body": BODY, "section": "start"}, {"path": "other", "body": "Nothing of it here."})
    build = desk.build(encoder)
    assert (build.documents, build.chunks, build.added, build.embedded) == (2, 3, 3, 3)
    best = desk.search(encoder, "disk full", 1)[0]
    assert (best.document, best.path, best.fields["section"]) == ("guide", ("Guide", "Errors"), "start")
    assert BODY[best.start : best.end] == best.text == "## Errors\n\nDisk full means no space.\n"
    assert [hit.document for hit in desk.search(encoder, "disk full", where=col("section") == "start")] == ["guide"] * 2


def test_only_what_changed_is_embedded_and_what_vanished_is_gone(desk: Desk) -> None:
    encoder = WordEncoder()
    desk.land({"path": "a", "body": "One two."}, {"path": "b", "body": "Three four."}, {"path": "c", "body": BODY})
    desk.build(encoder)
    same = desk.build(encoder)
    assert (same.embedded, same.added, same.removed) == (0, 0, 0)
    encoder.asked.clear()
    desk.land(
        {"path": "a", "body": "One two.", "section": "x"},
        {"path": "b", "void": True},
        {"path": "d", "body": "Three four."},
    )
    desk.land({"path": "c", "body": BODY.replace("pip", "uv")})
    build = desk.build(encoder)
    assert encoder.asked == ["Guide\n\n# Guide\n\nInstall it with uv.\n\n"]  # the others' texts were known
    assert desk.documents() == {
        "a": ["One two."],
        "c": ["# Guide\n\nInstall it with uv.\n\n", "## Errors\n\nDisk full means no space.\n"],
        "d": ["Three four."],
    }
    assert (build.documents, build.chunks, build.embedded) == (3, 4, 1)
    assert desk.search(encoder, "one two", 1)[0].fields["section"] == "x"


class WatchingStore(MemoryVectorStore):
    """Remembers which build searches used when an index was dropped."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk, self.dropped = desk, dict[str, Build | None]()

    def drop(self, name: str) -> None:
        self.dropped[name] = self.desk.builds.get("docs")
        super().drop(name)


@pytest.mark.parametrize("change", ["encoder", "chunker"])
def test_another_encoder_or_chunker_is_built_beside_and_swapped(memory: Desk, change: str) -> None:
    memory.store = watching = WatchingStore(memory)
    memory.land({"path": "a", "body": BODY})
    first = memory.build(WordEncoder())

    class Looking(WordEncoder):
        def encode(self, texts: Sequence[str]) -> Any:
            assert memory.builds.get("docs") == first
            assert memory.search(WordEncoder(), "disk full", 1)[0].document == "a"
            return super().encode(texts)

    encoder = Looking(dimension=8 if change == "encoder" else 16)
    declared = collection(chunks.sentences(9)) if change == "chunker" else collection()
    second = memory.build(encoder, declared)
    assert encoder.asked
    assert second.index != first.index
    assert watching.dropped == {first.index: second}  # the old one is dropped once the new one is in use
    assert watching.names() == [second.index]


def test_headings_are_embedded_and_found_by_words_and_are_not_in_what_is_quoted(memory: Desk) -> None:
    body = "# Lifts\n\n" + "They go up. " * 8 + "\n\n## Doors\n\nPress the button twice, then wait a moment.\n"
    declared, encoder = collection(chunks.markdown(12), words=True), WordEncoder(64)
    memory.land({"path": "lifts", "body": body}, {"path": "b", "body": "Press the button once and wait for a moment."})
    memory.build(encoder, declared)
    assert {text.partition("\n")[0] for text in encoder.asked} == {
        "Lifts",
        "Lifts > Doors",
        "Press the button once and wait for a moment.",
    }
    assert memory.build(encoder, declared).embedded == 0
    for mode in ("vectors", "words", "hybrid"):
        for hit in memory.search(encoder, "lifts", 3, declared, mode=mode):
            assert (hit.document, body[hit.start : hit.end]) == ("lifts", hit.text)
    below = memory.search(encoder, "doors", 9, declared, mode="words")
    assert {(hit.path, hit.similarity) for hit in below} == {(("Lifts", "Doors"), None)}
    assert any("doors" not in hit.text.lower() for hit in below)
    encoder.asked.clear()
    memory.land({"path": "lifts", "body": body.replace("# Lifts", "# Escalators")})
    assert memory.build(encoder, declared).embedded == len(encoder.asked) == len(memory.documents()["lifts"])
    assert all(text.startswith("Escalators") for text in encoder.asked)  # other headings are another text


def test_a_hit_by_both_says_how_similar_its_vector_is(memory: Desk) -> None:
    declared, encoder = collection(words=True), WordEncoder(64)
    memory.land(*({"path": f"p{n}", "body": f"Page {n} of the guide to form f{n}."} for n in range(30)))
    memory.build(encoder, declared)
    by_vectors = {hit.document: hit for hit in memory.search(encoder, "form f7", 30, declared)}
    found = memory.search(encoder, "form f7", 5, declared, mode="hybrid")
    assert found[0].document == "p7"
    for hit in found:
        assert hit.similarity == pytest.approx(by_vectors[hit.document].score, abs=1e-6)
        assert by_vectors[hit.document].similarity == by_vectors[hit.document].score
        assert hit.score < 0.04  # of the fusion


def test_documents_without_text_are_named_and_no_build_fails(desk: Desk) -> None:
    desk.land(
        {"path": "null", "body": None}, {"path": "empty", "body": ""}, {"path": "blank", "body": " \n\t"},
        {"path": "nul", "body": "with\0nul"}, {"path": "a", "body": "Same."}, {"path": "b", "body": "Same."},
    )  # fmt: skip
    build = desk.build(WordEncoder())
    assert build.refused == {NO_TEXT: 1, EMPTY: 2}
    assert build.examples == {"null": NO_TEXT, "empty": EMPTY, "blank": EMPTY}
    assert desk.documents() == {"a": ["Same."], "b": ["Same."], "nul": ["with\ufffdnul"]}
    desk.land({"path": "a", "body": None})
    desk.build(WordEncoder())
    assert "a" not in desk.documents()


def test_a_document_of_markup_alone_has_no_words(memory: Desk) -> None:
    memory.land({"path": "a", "body": "<p><br/></p>"})
    assert memory.build(WordEncoder(), collection(chunks.html(9))).refused == {NO_WORDS: 1}


class BrokenEncoder(WordEncoder):
    """Gives no number for texts with a word, and zeros for those with another."""

    def encode(self, texts: Sequence[str]) -> Any:
        factors = [np.nan if "bad" in text else 0 if "zero" in text else 1 for text in texts]
        return super().encode(texts) * np.array(factors)[:, None]


def test_a_document_with_a_vector_of_no_number_is_left_out_whole(memory: Desk) -> None:
    memory.land(
        {"path": "a", "body": "# x\n\nGood.\n\n# y\n\nbad."},
        {"path": "b", "body": "Good."},
        {"path": "c", "body": "zero"},
    )
    build = memory.build(BrokenEncoder())
    assert build.refused == {NOT_FINITE: 2}
    assert set(build.examples) == {"a", "c"}
    assert memory.documents() == {"b": ["Good."]}


class SmallerEncoder(WordEncoder):
    """Gives vectors of another dimension than it says."""

    def encode(self, texts: Sequence[str]) -> Any:
        return super().encode(texts)[:, :3]


def test_an_encoder_of_another_dimension_than_it_says_is_refused(memory: Desk) -> None:
    memory.land({"path": "a", "body": "One."})
    memory.build(WordEncoder())
    with pytest.raises(Invalid, match="16 dimensions"):
        memory.build(SmallerEncoder(seed=1))
    assert memory.search(WordEncoder(), "one")[0].document == "a"  # the build before is still searched


def test_chunks_that_the_encoder_would_cut_are_refused(memory: Desk) -> None:
    memory.land({"path": "a", "body": "One."})
    with pytest.raises(Invalid, match="takes 20"):
        memory.build(WordEncoder(most_tokens=20))


def test_a_source_without_data_is_named(memory: Desk) -> None:
    with pytest.raises(NotFound, match="ingest pages"):
        memory.build(WordEncoder())


def test_a_build_that_fails_goes_on_where_it_stopped(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.vectors.building._CHUNKS_AT_ONCE", 4)
    desk.land(*({"path": f"p{n:02}", "body": f"Word{n} of page {n}."} for n in range(20)))

    class Failing(WordEncoder):
        def encode(self, texts: Sequence[str]) -> Any:
            if len(self.asked) >= 8:
                raise KeyboardInterrupt
            return super().encode(texts)

    failing, encoder = Failing(), WordEncoder()
    with pytest.raises(KeyboardInterrupt):
        desk.build(failing)
    assert desk.builds.get("docs") is None
    build = desk.build(encoder)
    assert (build.embedded, build.chunks) == (12, 20)
    assert not set(encoder.asked) & set(failing.asked)


def test_an_index_that_was_lost_is_made_again_without_the_encoder(memory: Desk) -> None:
    encoder = WordEncoder()
    memory.land({"path": "a", "body": BODY})
    memory.build(encoder)
    encoder.asked.clear()
    memory.store = MemoryVectorStore()
    assert memory.search(encoder, "disk full", 1)[0].document == "a"
    assert encoder.asked == ["disk full"]


def test_a_tenant_finds_its_own_documents_alone(memory: Desk) -> None:
    declared, encoder = collection(tenant="team"), WordEncoder()
    memory.land({"path": "a", "body": "Secret of a.", "team": "a"}, {"path": "b", "body": "Secret of b.", "team": "b"})
    memory.build(encoder, declared)
    either = (col("team") == "a") | (col("team") == "b")
    assert [hit.document for hit in memory.search(encoder, "secret", 5, declared, tenant="b", where=either)] == ["b"]
    with pytest.raises(Invalid, match="several tenants"):
        memory.search(encoder, "secret", 5, declared)
    with pytest.raises(Invalid, match="no tenants"):
        memory.search(encoder, "secret", tenant="a")


def test_rows_that_are_gone_are_written_out_of_the_table(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.vectors.chunk_table._LEAST_GONE", 0)
    for turn in range(4):
        desk.land({"path": "a", "body": f"Turn {turn}."})
        desk.build(WordEncoder())
    assert desk.lake.describe(chunks_table("docs")).rows <= 2
    assert desk.documents() == {"a": ["Turn 3."]}


@pytest.mark.parametrize(("query", "k"), [("", 1), (" \n", 1), ("x" * 100_001, 1), ("x", 0), ("x", 1001)])
def test_queries_that_ask_nothing_are_refused(memory: Desk, query: str, k: int) -> None:
    memory.land({"path": "a", "body": "One."})
    memory.build(WordEncoder())
    with pytest.raises(Invalid):
        memory.search(WordEncoder(), query, k)


def test_what_the_source_lost_is_pruned_from_every_version_without_the_encoder(desk: Desk) -> None:
    encoder = WordEncoder()
    desk.land(*({"path": name, "body": f"The secret of {name}."} for name in "abc"), {"path": "d", "body": "Old."})
    desk.build(encoder)
    desk.land({"path": "d", "body": "New."}, {"path": "c", "body": "Another c."})
    desk.build(encoder)
    first = desk.lake.version(chunks_table("docs"))
    desk.land({"path": "d", "body": "Newest."})
    desk.lake.erase("pages", {"path": ["a", "c"]})
    encoder.asked.clear()
    Builder(desk.lake, desk.store, desk.builds, desk.locks, desk.clock).prune(collection())
    assert not encoder.asked
    assert desk.documents() == {"b": ["The secret of b."]}  # d changed since, and comes back with a build
    assert desk.lake.readable(chunks_table("docs"), range(first + 1)) == []
    build = desk.builds.get("docs")
    assert build is not None
    assert (build.documents, build.chunks) == (1, 1)
    desk.build(encoder)
    assert desk.documents() == {"b": ["The secret of b."], "d": ["Newest."]}


def test_what_is_searched_stays_when_a_refused_build_is_pruned(memory: Desk) -> None:
    memory.land(*({"path": name, "body": f"The secret of {name}."} for name in "abc"))
    first = memory.build(WordEncoder())

    def refuse(*_: object) -> None:
        raise Conflict("no")

    builder = Builder(memory.lake, memory.store, memory.builds, memory.locks, memory.clock)
    with pytest.raises(Conflict):
        builder.build(collection(chunks.sentences(9)), WordEncoder(seed=1), approve=refuse)
    assert len(memory.store.names()) == 2
    memory.lake.erase("pages", {"path": ["b"]})
    builder.prune(collection(chunks.sentences(9)))
    assert memory.store.names() == [first.index]
    assert memory.documents() == {"a": ["The secret of a."], "c": ["The secret of c."]}


def test_a_collection_that_is_declared_no_more_is_removed(desk: Desk) -> None:
    desk.land({"path": "a", "body": "One."})
    desk.build(WordEncoder())
    Builder(desk.lake, desk.store, desk.builds, desk.locks, desk.clock).remove("docs")
    assert (desk.builds.all(), desk.store.names()) == ([], [])
    assert desk.lake.describe(chunks_table("docs")).rows == 0


def test_a_process_opens_an_index_once_and_the_next_when_a_build_made_another(memory: Desk) -> None:
    closed = []

    class Closing(MemoryVectorStore):
        def create(self, name: str, spec: IndexSpec) -> Any:
            index: Any = copy(super().create(name, spec))
            index.close = partial(closed.append, name)
            return index

    memory.store = Closing()
    memory.land({"path": "a", "body": "One."})
    builds = [memory.build(WordEncoder(seed=0))]
    closed.clear()
    indexes = OpenIndexes(lambda: memory.lake, memory.store, lambda: memory.locks)
    first = indexes.of(collection(), builds[0])
    assert indexes.of(collection(), builds[0]) is first
    for seed in (1, 2):
        builds.append(memory.build(WordEncoder(seed=seed)))
        closed.clear()
        assert indexes.of(collection(), builds[-1]) is not first
    assert closed == [builds[0].index]  # a search may still be in the one between
    indexes.close()
    assert sorted(closed) == sorted(each.index for each in builds)


def test_an_index_that_was_made_again_in_part_is_completed(memory: Desk) -> None:
    encoder = WordEncoder()
    memory.land(*({"path": str(n), "body": f"Number {n}."} for n in range(9)))
    build = memory.build(encoder)
    index = memory.store.open(build.index)
    index.delete(index.ids(count=5))  # as a process leaves it that is killed while it restores
    with memory.locks.hold("collection.docs"):
        assert len(memory.search(encoder, "number", 20)) == 4  # a build is at work, which completes it
    assert len(memory.search(encoder, "number", 20)) == 9


def test_an_index_that_was_dropped_and_built_anew_is_opened_again(memory: Desk, tmp_path: Path) -> None:
    memory.store = EmbeddedVectorStore(tmp_path)
    memory.land({"path": "a", "body": "One."})
    one, other = WordEncoder(seed=0), WordEncoder(seed=1)
    first = memory.build(one)
    there = OpenIndexes(lambda: memory.lake, EmbeddedVectorStore(tmp_path), lambda: memory.locks)
    assert there.of(collection(), first).count() == 1
    memory.build(other)
    memory.clock.advance(DAY)
    again = memory.build(one)
    assert again.index == first.index
    assert there.of(collection(), again).count() == 1
    there.close()


def test_keys_that_identify_a_person_are_no_examples_of_what_was_refused(memory: Desk) -> None:
    memory.land({"path": "ana@example.org", "body": " "}, {"path": "b", "body": "One."})
    declared = collection()
    assert memory.build(WordEncoder(), declared).examples == {"ana@example.org": EMPTY}
    object.__setattr__(declared, "source", replace(declared.source, pii=("path",)))
    build = memory.build(WordEncoder(), declared)
    assert (build.refused, build.examples) == ({EMPTY: 1}, {})


def test_a_query_that_is_no_text_is_refused(memory: Desk) -> None:
    memory.land({"path": "a", "body": "One."})
    memory.build(WordEncoder())
    with pytest.raises(Invalid, match="lone surrogate"):
        memory.search(WordEncoder(), "one \ud800", 1)


def test_chunks_are_found_by_words_and_by_both(desk: Desk) -> None:
    declared, encoder = collection(words=True, tenant="team"), WordEncoder()
    desk.land({"path": "a", "body": "Form F12 is green."}, {"path": "b", "body": "Green forms of any kind."})
    desk.land({"path": "c", "body": "F12 of others.", "team": "b"})
    assert desk.build(encoder, declared).words
    given = {"declared": declared, "tenant": "a"}
    assert [hit.document for hit in desk.search(encoder, "F12", 5, mode="words", **given)] == ["a"]
    first, second = desk.search(encoder, "F12 green", 5, mode="hybrid", **given)
    assert (first.document, second.document) == ("a", "b")
    assert first.score == pytest.approx(sum(place.share for place in first.places.values()))
    assert {name: place.rank for name, place in first.places.items()} == {"vectors": 1, "words": 1}
    assert not desk.search(encoder, "F12", 5, **given)[0].places
    desk.land({"path": "a", "void": True})
    desk.build(encoder, declared)
    assert desk.search(encoder, "F12", 5, mode="words", **given) == []
    assert not desk.build(encoder, collection(tenant="team")).words
    assert desk.texts.names() == []
    with pytest.raises(Invalid, match="words=True"):
        desk.search(encoder, "F12", 5, mode="words", **given)


class Killed(Exception):
    """The process ends."""


def test_an_index_of_words_that_lags_or_was_lost_is_made_anew(memory: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    declared, encoder = collection(words=True), WordEncoder()
    memory.land({"path": "a", "body": "One."}, {"path": "b", "body": "Two."})
    build = memory.build(encoder, declared)
    memory.texts = MemoryTextStore()
    indexes = OpenIndexes(lambda: memory.lake, memory.store, lambda: memory.locks, lambda: memory.texts)
    assert [hit.id for hit in indexes.words_of(declared, build).search(["two"], 5)[0]] != []
    index = memory.store.open(build.index)
    memory.land({"path": "c", "body": "Three."})

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(type(index), "upsert", dies)
        with pytest.raises(Killed):
            memory.build(encoder, declared)
    assert memory.texts.open(build.index).count() == 3 > index.count()
    memory.lake.erase("pages", {"path": ["c"]})
    memory.build(encoder, declared)
    assert memory.search(encoder, "three", 5, declared, mode="words") == []
    memory.lake.erase("pages", {"path": ["b"]})
    Builder(memory.lake, memory.store, memory.builds, memory.locks, memory.clock, memory.texts).prune(declared)
    assert memory.search(encoder, "two", 5, declared, mode="words") == []
    assert memory.texts.open(build.index).count() == 1
    with pytest.raises(Invalid, match="words=True"):
        indexes.words_of(declared, structs.replace(build, words=False))
