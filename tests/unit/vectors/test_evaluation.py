"""Evaluation sets from the lake, and the measures of a search by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.landing import Landing
from mainspring.core.errors import Invalid, InvalidData, NotFound
from mainspring.core.schema import Boolean, Float64, String
from mainspring.data.model import Source
from mainspring.vectors.evaluation.declaring import EvaluationSet
from mainspring.vectors.evaluation.evaluating import SearchEvaluation, compare, evaluate
from mainspring.vectors.evaluation.judgements import JudgedQuery, Judgements, read_judgements
from mainspring.vectors.searching import Found

SCHEMA = {
    "id": String,
    "question": String,
    "doc": String,
    "grade": Float64,
    "answer": String,
    "kind": String,
    "void": Boolean,
}
DAY = 86_400_000_000


def declared(**more: Any) -> EvaluationSet:
    source = Source("asked", schema=SCHEMA, event_time="at", id="id", retracted="void")
    options = {"query": "question", "relevant": "doc", "grade": "grade", "answer": "answer", "tags": "kind"}
    return EvaluationSet("questions", source=source, **{**options, **more})


def row(number: int, question: str | None, doc: str | None, grade: float | None = 1.0, **more: Any) -> dict[str, Any]:
    values = {"answer": None, "kind": None, "void": False, "at": "1970-01-01T00:00:01Z"}
    return {"id": str(number), "question": question, "doc": doc, "grade": grade, **values, **more}


def read(rows: Sequence[dict[str, Any]], given: EvaluationSet | None = None) -> Judgements:
    given = given or declared()
    landing = Landing(given.source, now=DAY)
    landing.ingest(list(rows))
    return read_judgements(landing.lake, given, now=DAY)


def test_rows_of_one_text_are_one_query() -> None:
    found = read(
        [
            row(1, "why?", "b", 2.0, kind="how-to", answer="so"),
            row(2, "why?", "a", kind="short", answer="thus"),
            row(3, "why?", "c", 0.0),
            row(4, "how?", None, None),
        ]
    )
    assert found.queries == (
        JudgedQuery(text="how?", relevant={}),
        JudgedQuery(
            text="why?", relevant={"a": 1.0, "b": 2.0}, answers=("so", "thus"), tags=("kind=how-to", "kind=short")
        ),
    )


def test_the_newest_version_of_a_row_counts_and_a_retracted_one_does_not() -> None:
    given = declared()
    landing = Landing(given.source, now=DAY)
    landing.ingest([row(1, "why?", "a"), row(2, "how?", "b")])
    first = landing.lake.version("asked")
    landing.ingest([row(1, "why?", "c"), row(2, "how?", "b", void=True)])
    assert [query.relevant for query in read_judgements(landing.lake, given, now=DAY).queries] == [{"c": 1.0}]
    before = read_judgements(landing.lake, given, now=DAY, version=first)
    assert [query.relevant for query in before.queries] == [{"b": 1.0}, {"a": 1.0}]


def test_the_digest_does_not_depend_on_the_order_of_rows() -> None:
    rows = [row(1, "why?", "a"), row(2, "why?", "b"), row(3, "how?", "b", kind="x")]
    assert read(rows).digest == read(rows[::-1]).digest
    assert read(rows).digest != read([*rows[:2], row(3, "how?", "b", kind="y")]).digest


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(1, " ", "a")], "an empty query"),
        ([row(1, None, "a")], "an empty query"),
        ([row(1, "why?", "a", -1.0)], "the grade -1"),
        ([row(1, "why?", "a", None)], "the grade None"),
        ([row(1, "why?", "a", void=True)], "no query"),
    ],
)
def test_rows_that_are_no_queries_are_refused(rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(InvalidData, match=words):
        read(rows)


def test_a_set_without_rows_names_the_command_that_brings_some() -> None:
    given = declared()
    with pytest.raises(NotFound, match="mainspring ingest asked"):
        read_judgements(Landing(given.source).lake, given, now=0)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"query": "grade"}, "no column 'grade' for the query"),
        ({"relevant": "key"}, "no column 'key'"),
        ({"grade": "kind"}, "for the grade"),
        ({"tags": ["grade"]}, "for the tag"),
        ({"of": "page"}, "are of 'page'"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        declared(**more)


def judged(*queries: tuple[str, dict[str, float], str], of: str = "chunk") -> Judgements:
    listed = tuple(JudgedQuery(text=text, relevant=grades, tags=(tag,)) for text, grades, tag in queries)
    return Judgements(set="questions", of=of, version=3, queries=listed)


def finding(answers: dict[str, list[str]]) -> Any:
    """Return a search that finds given ids."""

    def search(texts: Sequence[str], k: int, tenant: str | None) -> list[list[Found]]:
        return [[chunk(each) for each in answers[f"{tenant or ''}{text}"][:k]] for text in texts]

    return search


def chunk(name: str) -> Found:
    """Return the chunk "document/number" as it is found."""
    return Found(name, 1.0, name.partition("/")[0], 0, 0, 1, (), "text")


SET = judged(
    ("q1", {"a": 1, "b": 1}, "kind=x"), ("q2", {"c": 1}, "kind=x"), ("q3", {"d": 1}, "kind=y"), ("q4", {}, "kind=y")
)
FOUND = {"q1": ["a", "z", "b"], "q2": ["z", "c"], "q3": [], "q4": ["z"]}


def test_figures_are_means_over_the_queries_that_count() -> None:
    found = evaluate(SET, finding(FOUND), metrics=["recall@2", "mrr@10"])
    assert found.figures["recall@2"].value == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.figures["mrr@10"].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.by_tag["kind=x"]["recall@2"].value == pytest.approx(0.75)
    assert (found.figures["unanswered"].value, found.figures["unanswered"].queries) == (pytest.approx(1 / 3), 3)
    assert (found.figures["false_hits"].value, found.figures["false_hits"].queries) == (1.0, 1)
    assert found.by_tag["kind=x"]["false_hits"].value is None
    assert [each.text for each in found.worst(2)] == ["q3", "q1"]
    assert [each.found for each in found.worst(1)] == [()]


def test_documents_are_found_at_the_rank_of_their_first_chunk_and_more_chunks_are_searched_until_there_are_enough() -> (
    None
):
    asked = []

    def search(texts: Sequence[str], k: int, tenant: str | None) -> list[list[Found]]:
        asked.append((len(texts), k))
        chunks = [f"{'abcdefgh'[rank // 6]}/{rank}" for rank in range(48)]
        many = {"q1": 48, "q2": 1}
        return [[chunk(each) for each in chunks[: min(k, many[text])]] for text in texts]

    given = judged(("q1", {"c": 1}, "t=1"), ("q2", {"a": 1}, "t=1"), of="document")
    found = evaluate(given, search, metrics=["mrr@3"])
    assert found.queries[0].found == ("a", "b", "c")
    assert [each.values for each in found.queries] == [(pytest.approx(1 / 3),), (1.0,)]
    assert asked == [(2, 3), (1, 12), (1, 48)]


def test_a_query_searches_the_documents_of_its_tenant() -> None:
    given = declared(tenant="kind", tags=())
    found = read([row(1, "q", "a", kind="x"), row(2, "q", "b", kind="y"), row(3, "r", "b", kind="y")], given)
    assert [(each.tenant, each.text) for each in found.queries] == [("x", "q"), ("y", "q"), ("y", "r")]
    measured = evaluate(found, finding({"xq": ["a"], "yq": ["a", "b"], "yr": ["b"]}), metrics=["mrr@3"])
    assert [each.values for each in measured.queries] == [(1.0,), (0.5,), (1.0,)]
    with pytest.raises(InvalidData, match="without a tenant"):
        read([row(1, "q", "a")], given)


@pytest.mark.parametrize("names", [["f1@3"], []])
def test_an_unknown_metric_is_refused(names: list[str]) -> None:
    with pytest.raises(Invalid, match="metric"):
        evaluate(SET, finding(FOUND), metrics=names)


def test_a_stored_evaluation_has_no_text_and_compares_as_the_evaluation_itself() -> None:
    first, second = evaluate(SET, finding(FOUND)), evaluate(SET, finding({**FOUND, "q3": ["d"]}))
    content = msgspec.json.encode(first.stored())
    assert b"q1" not in content
    assert b'"z"' not in content
    stored = msgspec.json.decode(content, type=SearchEvaluation)
    assert compare(second, stored) == compare(second, first)
    change = compare(second, stored)["recall@10"]
    assert change.value == pytest.approx(1 / 3)
    assert change.queries == 3


def test_queries_whose_judgements_changed_are_not_compared() -> None:
    other = judged(("q1", {"a": 1}, "kind=x"), ("q2", {"c": 1}, "kind=x"))
    assert compare(evaluate(SET, finding(FOUND)), evaluate(other, finding(FOUND)))["mrr@10"].queries == 1


def test_an_evaluation_has_a_value_for_each_query_of_a_tag() -> None:
    found = evaluate(SET, finding(FOUND), metrics=["recall@2"])
    assert np.array_equal(found.values("recall@2", "kind=y"), [0.0, math.nan], equal_nan=True)
    with pytest.raises(Invalid, match="was not measured"):
        found.values("recall@3")
