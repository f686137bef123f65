"""Status and doctor of collections: freshness, builds that run, recall, and what keeps one from being searched."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from kit.document_shop import Shop
from kit.encoders import WordEncoder
from mainspring.data.adapters.memory import MemoryLake
from mainspring.operations.collection_checks import check_collections, collection_statuses


def shop(**more: Any) -> Any:
    made: Any = Shop(**more)
    made.versions = SimpleNamespace(all=lambda _: [SimpleNamespace(digest=made.now.digest)])
    return made


def wrong(made: Any) -> list[str]:
    return [f"{each.detail} -> {each.fix}" for each in check_collections(made) if not each.ok]


def test_a_collection_is_told_with_its_freshness_and_its_last_recall() -> None:
    made = shop()
    (never,) = collection_statuses(made)
    assert (never.collection, never.chunks, never.built_at, never.behind, never.recall) == (
        "docs",
        None,
        "",
        None,
        None,
    )
    made.land({"blank": "  "})
    build = made.build(WordEncoder(64))
    made.evaluate()
    (told,) = collection_statuses(made)
    assert (told.documents, told.chunks, told.refused, told.behind) == (4, build.chunks, 1, False)
    assert told.built_at.startswith("1970-01-11")
    assert told.recall is not None
    assert (told.metric, told.recall.value, told.recall.queries) == ("recall@10", 1.0, 4)
    made.land({"more": "Another document."})
    assert collection_statuses(made)[0].behind


def test_a_collection_whose_source_has_no_data_is_no_problem_and_none_that_can_be_searched() -> None:
    made = shop()
    made.lake = MemoryLake()
    (found,) = check_collections(made)
    assert (found.ok, found.detail) == (True, "collections that can be searched: 0")


def test_one_that_is_being_built_says_so() -> None:
    made = shop()
    held, done = threading.Event(), threading.Event()

    def builds() -> None:
        with made.locks.hold("collection.docs"):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=builds)
    thread.start()
    assert held.wait(10)
    assert collection_statuses(made)[0].building
    done.set()
    thread.join(10)
    assert not collection_statuses(made)[0].building


def test_one_that_was_never_built_is_named_once_there_is_data() -> None:
    made = shop()
    (said,) = wrong(made)
    assert said == (
        "collection docs was never built, and its source pages has data -> run `mainspring collections build docs`"
    )
    made.build(WordEncoder(64))
    assert [each.ok for each in check_collections(made)] == [True]


def test_an_index_that_lacks_chunks_and_an_encoder_that_is_gone_are_named() -> None:
    made = shop()
    build = made.build(WordEncoder(64))
    index = made.vectors.open(build.index)
    index.delete(index.ids(count=1))
    assert f"index {build.index} of collection docs has 3 of 4 chunks" in wrong(made)[0]
    made.vectors.drop(build.index)
    assert "has 0 of 4 chunks" in wrong(made)[0]
    made.versions = SimpleNamespace(all=lambda _: [])
    gone, _ = wrong(made)
    assert "encoder words that collection docs was built with is not registered any more" in gone
    assert "mainspring encoders add words" in gone


@pytest.mark.parametrize("words", [True, False])
def test_a_collection_that_got_words_needs_a_build(words: bool) -> None:
    made = shop(words=words)
    build = made.build(WordEncoder(64))
    made.builds.save(
        type(build)(**{**{name: getattr(build, name) for name in build.__struct_fields__}, "words": False})
    )
    assert len(wrong(made)) == int(words)
