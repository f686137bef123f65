"""Evaluation of a collection's builds, and the gates of a new index."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.document_shop import ASKED, BODIES, QUESTIONS, Blind, Shop
from kit.encoders import WordEncoder
from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.schema import Boolean, Float64, Int64, String, Timestamp
from mainspring.core.time import DAY, parse_instant
from mainspring.data.model import EVALUATIONS_PREFIX
from mainspring.operations.collection_measures import evaluations, version_of
from mainspring.operations.collections import equal_fields
from mainspring.training.gates import at_least, beats
from mainspring.vectors.adapters.memory import MemoryVectorStore
from mainspring.vectors.adapters.memory_text import MemoryTextStore
from mainspring.vectors.evaluation.declaring import EvaluationSet
from mainspring.vectors.model import Entries, IndexSpec


def test_a_build_is_measured_by_its_set_and_its_worst_queries_are_shown() -> None:
    shop = Shop()
    build = shop.build()
    found = shop.evaluate(metrics=["recall@1"])
    assert (found.version, found.queries, found.against, found.gates) == (version_of(build), 5, None, ())
    assert found.figures["recall@1"].value == 1.0
    assert found.figures["recall@1"].queries == 4
    assert found.figures["false_hits"].value == 1.0
    assert found.worst == ()
    assert found.by_tag["kind=short"]["recall@1"].queries == 3
    worse = Shop()
    worse.build(Blind())
    lost = worse.evaluate(metrics=["recall@1"])
    assert lost.figures["recall@1"].value is not None
    assert lost.figures["recall@1"].value < 1.0
    assert lost.worst[0].query in {q for q, *_ in QUESTIONS}
    assert lost.worst[0].found
    assert set(lost.worst[0].expected) <= set(BODIES)


def test_measures_are_stored_without_texts_and_compared_with_those_of_another_build() -> None:
    shop = Shop()
    shop.build(Blind())
    first = shop.evaluate(metrics=["recall@1"])
    shop.clock.advance(DAY)
    shop.build(WordEncoder(64))
    second = shop.evaluate(metrics=["recall@1"])
    assert second.against == first.version
    assert second.changes["recall@1"].value > 0
    assert second.changes["recall@1"].queries == 4
    assert [each.version for each in evaluations(shop, "docs", "questions")] == [second.version, first.version]
    stored = shop.lake.scan(f"{EVALUATIONS_PREFIX}docs").rows.to_pylist()
    assert not any(text in str(stored) for q, *_ in QUESTIONS for text in (q, "refunds"))
    assert shop.evaluate(against=first.version).against == first.version
    with pytest.raises(NotFound, match="was not evaluated"):
        shop.evaluate(against="nothing.1")


def test_a_condition_is_written_as_a_value_of_each_type() -> None:
    fields = {"page": Int64, "share": Float64, "draft": Boolean, "at": Timestamp, "team": String}
    project: Any = SimpleNamespace(definitions=SimpleNamespace(collection=lambda _: SimpleNamespace(filters=fields)))
    index = MemoryVectorStore().create("docs", IndexSpec(dimension=1, fields=fields))
    at = parse_instant("2026-01-01T00:00:00Z")
    values = {"page": [2, 2], "share": [0.5, 0.5], "draft": [True, True], "at": [at, at + 1], "team": ["a=b", "a=b"]}
    index.upsert(Entries(["one", "other"], np.ones((2, 1), np.float32), values))
    given = ["page=2", "share=0.5", "draft=true", "team=a=b"]
    assert index.count(equal_fields(project, "docs", given)) == 2
    assert index.ids(where=equal_fields(project, "docs", [*given, "at=2026-01-01T00:00:00Z"])) == ["one"]
    with pytest.raises(Invalid, match="is no value of 'page'"):
        equal_fields(project, "docs", ["page=two"])
    with pytest.raises(Invalid, match="offset"):
        equal_fields(project, "docs", ["at=2026-01-01T00:00:00"])
    texts = MemoryTextStore().create("docs", fields)
    texts.upsert(["one", "other"], ["word", "word"], values)
    where = equal_fields(project, "docs", ["at=2026-01-01T01:00:00+01:00"])
    assert [hit.id for hit in texts.search(["word"], 5, where=where)[0]] == ["one"]


def test_a_new_index_that_fails_its_gates_is_not_searched() -> None:
    shop = Shop(gates=[at_least("recall@1", 0.9), beats("mrr@10", margin=0.01)])
    served = shop.build()
    with pytest.raises(Conflict, match=r"recall@1 at least 0.9 is 0\.\d+; mrr@10 beats by 0") as failed:
        shop.build(Blind())
    assert version_of(served) in failed.value.what
    kept = shop.builds.get("docs")
    assert kept is not None
    assert msgspec.structs.replace(kept, history=served.history) == served
    refused, before = kept.history
    assert (refused.used, [each.passed for each in refused.gates], before.used) == (False, [False, False], True)
    assert refused.index != served.index
    shop.now = WordEncoder(64)
    assert shop.evaluate().figures["mrr@10"].value == 1.0
    passed = shop.build(WordEncoder(64, seed=1))
    assert shop.builds.get("docs") == passed
    assert [each.used for each in passed.history] == [True, False, True]
    again = shop.build(WordEncoder(64, seed=1))
    assert again.history == passed.history, "a build that changes nothing is not one of them"
    assert shop.evaluate().gates[0].passed


def test_the_first_index_has_to_pass_too_and_one_that_is_brought_up_to_date_is_not_asked() -> None:
    shop = Shop(gates=[at_least("recall@1", 0.9)])
    with pytest.raises(Conflict, match="nothing answers searches"):
        shop.build(Blind())
    assert shop.builds.get("docs") is None
    first = shop.build(WordEncoder(64))
    shop.land(dict.fromkeys(BODIES, "Nothing is here"))
    second = shop.build()
    assert second.index == first.index
    assert shop.builds.get("docs") == second


def test_a_collection_with_words_is_measured_by_both_and_compared_with_either_alone() -> None:
    shop = Shop(words=True, gates=[at_least("recall@1", 0.9)])
    build = shop.build(Blind())  # by vectors alone it would not pass
    both = shop.evaluate()
    assert both.version == f"{version_of(build)}.hybrid"
    alone = shop.evaluate(mode="vectors", against=both.version)
    assert (alone.version, alone.against) == (version_of(build), both.version)
    assert alone.changes is not None
    change = alone.changes["recall@1"].value
    assert change is not None
    assert change <= -0.5
    assert not alone.gates[0].passed


def test_a_set_of_tenants_measures_a_collection_of_tenants() -> None:
    shop = Shop(tenant=True)
    shop.land({"others": "refunds paid to the card within two weeks, parcels shipped abroad"}, team="b")
    shop.build()
    assert shop.evaluate().figures["recall@10"].value == 1.0
    other = EvaluationSet("other", source=ASKED, query="q", relevant="doc")
    shop.sets["other"] = other
    with pytest.raises(Invalid, match="differ in having tenants"):
        shop.evaluate(set_name="other")


def test_a_collection_without_a_set_needs_one_named() -> None:
    shop = Shop(evaluation=None)
    shop.build()
    with pytest.raises(Invalid, match="no evaluation set"):
        shop.evaluate()
    assert shop.evaluate(set_name="questions").queries == 5
    with pytest.raises(Invalid, match="gates and no evaluation"):
        Shop(evaluation=None, gates=[at_least("recall@1", 0.9)])
