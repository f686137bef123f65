"""Gates on retrieval, by their mean, by its interval, by tag and against the version that answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mainspring.core.errors import Invalid
from mainspring.delivery.retrieval import gate_metrics, judge_retrieval
from mainspring.training.gates import approved, at_least, at_most, beats
from mainspring.vectors.evaluation.evaluating import SearchEvaluation, evaluate
from mainspring.vectors.evaluation.judgements import JudgedQuery, Judgements
from mainspring.vectors.searching import Found


def measured(found: int, queries: int = 100, lost: str = "new") -> SearchEvaluation:
    """Return an evaluation with so many queries that find what is relevant; those that do not have a tag."""
    listed = tuple(
        JudgedQuery(text=f"{n:03}", relevant={"a": 1.0}, tags=("age=old" if n < found else f"age={lost}",))
        for n in range(queries)
    )

    def search(texts: Sequence[str], k: int, tenant: str | None) -> list[list[Found]]:
        return [[Found("a" if int(text) < found else "z", 1.0, "d", 0, 0, 1, (), "")][:k] for text in texts]

    return evaluate(Judgements(set="s", of="chunk", version=1, queries=listed), search, metrics=["recall@10"])


@pytest.mark.parametrize(("found", "passed"), [(90, True), (89, False)])
def test_a_mean_is_compared_with_the_limit(found: int, passed: bool) -> None:
    (result,) = judge_retrieval([at_least("recall@10", 0.9)], measured(found), None)
    assert (result.passed, result.value, result.rows) == (passed, found / 100, 100)
    assert result.short_by == pytest.approx(0.0 if passed else 0.01)


def test_a_gate_that_is_to_be_sure_wants_the_interval_above_the_limit() -> None:
    sure, harm = at_least("recall@10", 0.9, sure=0.95), at_least("recall@10", 0.9, harm=0.95)
    for found, expected in ((97, (True, True)), (93, (False, True)), (88, (False, True)), (80, (False, False))):
        results = judge_retrieval([sure, harm], measured(found), None)
        assert tuple(each.passed for each in results) == expected


def test_queries_that_find_nothing_wrong_are_no_proof_if_they_are_few() -> None:
    (result,) = judge_retrieval([at_least("recall@10", 0.9, sure=0.95)], measured(10, 10), None)
    assert not result.passed


def test_the_share_of_unanswered_queries_has_gates_too() -> None:
    assert gate_metrics([at_most("unanswered", 0.1), at_least("recall@5", 0.5)], "A collection") == ("recall@5",)
    (result,) = judge_retrieval([at_most("unanswered", 0.0)], measured(90), None)
    assert result.passed


def test_a_new_index_beats_the_one_that_answers_by_the_same_queries() -> None:
    gates = [beats("recall@10", by=0.01), beats("recall@10", margin=0.02), beats("recall@10", by=0.0, sure=0.95)]
    old = measured(90)
    assert [each.passed for each in judge_retrieval(gates, measured(91), old, "4")] == [True, True, False]
    assert [each.passed for each in judge_retrieval(gates, measured(88), old, "4")] == [False, True, False]
    assert [each.passed for each in judge_retrieval(gates, measured(99), old, "4")] == [True, True, True]
    assert judge_retrieval(gates, measured(91), old, "4")[0].against == "version 4"


def test_the_first_index_has_nothing_to_beat() -> None:
    (result,) = judge_retrieval([beats("recall@10", by=0.1)], measured(1), None)
    assert (result.passed, result.value, result.note) == (True, None, "no version answers yet.")


def test_each_group_of_queries_has_to_pass_and_the_worst_is_named() -> None:
    gate = at_least("recall@10", 0.5, by_slice="age", least_rows=10)
    (result,) = judge_retrieval([gate], measured(80), None)
    assert (result.passed, result.slice, result.value, result.rows) == (False, "age=new", 0.0, 20)
    (small,) = judge_retrieval([gate], measured(95), None)
    assert (small.passed, small.short_by) == (False, None)
    assert "age=new" in small.note
    (aside,) = judge_retrieval(
        [at_least("recall@10", 0.5, by_slice="age", least_rows=10, insufficient="pass")], measured(95), None
    )
    assert (aside.passed, aside.slice) == (True, "age=old")
    (missing,) = judge_retrieval([at_least("recall@10", 0.5, by_slice="kind")], measured(95), None)
    assert "no query has the tag kind" in missing.note


def test_other_gates_and_metrics_are_refused() -> None:
    with pytest.raises(Invalid, match="not on a metric"):
        gate_metrics([approved(by=1)], "Collection 'docs'")
    with pytest.raises(Invalid, match="'auc' is no metric of retrieval"):
        gate_metrics([at_least("auc", 0.9)], "Collection 'docs'")
