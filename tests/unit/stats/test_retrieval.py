"""Retrieval metrics against a brute force that reads their definitions, scikit-learn's nDCG, and cases by hand."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from mainspring.core.errors import Invalid
from mainspring.stats.retrieval import (
    KINDS,
    RetrievalMetric,
    gains,
    mean,
    mean_difference,
    measured,
    retrieval_metric,
    unpaired_difference,
)

ids = st.sampled_from("abcdefghij")
grades = st.dictionaries(ids, st.sampled_from([0.0, 1.0, 2.0, 3.0, 0.5]), max_size=8)
queries = st.lists(st.tuples(st.lists(ids, max_size=12), grades), min_size=1, max_size=5)


def by_definition(kind: str, k: int, ranking: list[str], relevant: dict[str, float]) -> float:
    relevant = {each: grade for each, grade in relevant.items() if grade > 0}
    if not relevant:
        return math.nan
    gained, seen = [0.0] * k, set[str]()
    for rank, each in enumerate(ranking[:k]):
        if each not in seen:
            gained[rank] = relevant.get(each, 0.0)
        seen.add(each)
    places = [rank for rank, gain in enumerate(gained, start=1) if gain]
    if kind == "recall":
        return len(places) / len(relevant)
    if kind == "precision":
        return len(places) / k
    if kind == "hit_rate":
        return float(bool(places))
    if kind == "mrr":
        return 1 / places[0] if places else 0.0
    best = sorted(relevant.values(), reverse=True)[:k]
    return _dcg(gained) / _dcg(best)


def _dcg(gained: list[float]) -> float:
    return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(gained, start=1))


@given(queries, st.sampled_from(KINDS), st.integers(1, 14))
def test_each_metric_is_as_it_is_defined(given: list[tuple[list[str], dict[str, float]]], kind: str, k: int) -> None:
    found = measured(RetrievalMetric(kind, k), gains([each for each, _ in given], [each for _, each in given]))
    expected = [by_definition(kind, k, *each) for each in given]
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert not (found[~np.isnan(found)] > 1).any()


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.integers(1, 12), st.randoms())
def test_ndcg_is_scikit_learns(given: list[int], k: int, order: Random) -> None:
    """scikit-learn ranks by score, so scores fall with the rank."""
    relevant = {str(each): float(grade) for each, grade in enumerate(given)}
    ranking = [*relevant]
    order.shuffle(ranking)
    found = measured(RetrievalMetric("ndcg", k), gains([ranking], [relevant]))[0]
    if any(given):
        scores = [-float(ranking.index(str(each))) for each in range(len(given))]
        assert found == pytest.approx(oracle.ndcg_score([given], [scores], k=k), abs=1e-12)
    else:
        assert math.isnan(found)


@pytest.mark.parametrize(
    ("metric", "value"),
    [("recall@3", 1 / 2), ("precision@3", 1 / 3), ("hit_rate@1", 0), ("mrr@5", 1 / 2), ("hit_rate@2", 1)],
)
def test_by_hand(metric: str, value: float) -> None:
    found = retrieval_metric(metric)
    assert found is not None
    assert found.name == metric
    assert measured(found, gains([["x", "a", "y", "b"]], [{"a": 1, "b": 2}]))[0] == pytest.approx(value)


def test_ndcg_by_hand() -> None:
    """The example of Järvelin and Kekäläinen's vectors, cut to five ranks, with the logarithm of 1 + rank."""
    given = gains([list("abcde")], [{"a": 3, "b": 2, "c": 3, "f": 3}])
    dcg = 3 / math.log2(2) + 2 / math.log2(3) + 3 / math.log2(4)
    best = 3 / math.log2(2) + 3 / math.log2(3) + 3 / math.log2(4) + 2 / math.log2(5)
    assert measured(RetrievalMetric("ndcg", 5), given)[0] == pytest.approx(dcg / best)


def test_grades_of_any_size_do_not_overflow() -> None:
    given = gains([["a", "b"]], [{"a": 1e308, "b": 1e308}])
    assert measured(RetrievalMetric("ndcg", 2), given)[0] == 1.0


def test_a_query_without_an_answer_counts_as_nothing_found_and_one_without_a_relevant_id_not_at_all() -> None:
    values = measured(RetrievalMetric("recall", 10), gains([[], ["a"], ["a"]], [{"a": 1}, {}, {"a": 1, "b": 0}]))
    assert values == pytest.approx([0.0, math.nan, 1.0], nan_ok=True)
    found = mean(values)
    assert (found.value, found.queries) == (0.5, 2)


@pytest.mark.parametrize("name", ["recall", "recall@", "recall@0", "recall@010", "recall@1.5", "f1@10", "ndcg@99999"])
def test_other_names_are_no_metric(name: str) -> None:
    assert retrieval_metric(name) is None


@pytest.mark.parametrize("grade", [-1.0, math.nan, math.inf])
def test_a_grade_that_is_none_is_refused(grade: float) -> None:
    with pytest.raises(Invalid, match="A grade"):
        gains([["a"]], [{"a": grade}])


def test_judgements_of_other_queries_are_refused() -> None:
    with pytest.raises(Invalid, match="2 ranked lists"):
        gains([[], []], [{}])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from([0.5, 0.9, 0.99]))
def test_an_interval_holds_the_mean_and_is_never_a_point(given: list[float], confidence: float) -> None:
    found = mean(given, confidence=confidence)
    assert found.interval is not None
    assert 0 <= found.interval.low < found.interval.high <= 1
    if confidence >= 0.9:
        assert found.interval.low - 1e-12 <= found.value <= found.interval.high + 1e-12


@pytest.mark.parametrize(("queries", "share"), [(5, 0.9), (20, 0.5), (20, 0.98), (100, 0.9)])
def test_an_interval_covers_the_true_share_of_hits(queries: int, share: float) -> None:
    """Of 20 queries with a hit rate of 0.98, a t interval and a bootstrap cover it in a third of the cases."""
    rng = np.random.default_rng(7)
    intervals = [mean(row).interval for row in (rng.random((300, queries)) < share).astype(float)]
    assert np.mean([each is not None and each.low <= share <= each.high for each in intervals]) > 0.925


def test_a_paired_difference_covers_the_true_one_and_is_narrower_than_that_of_unpaired_queries() -> None:
    rng = np.random.default_rng(3)
    covered, widths = [], []
    for _ in range(200):
        hard = rng.random(60)
        first, second = (hard < 0.8).astype(float), (hard < np.where(rng.random(60) < 0.9, 0.8, 0.5)).astype(float)
        found = mean_difference(first, second).interval
        alone = mean(first).interval
        assert found is not None
        assert alone is not None
        covered.append(found.low <= 0.03 <= found.high)
        widths.append((found.high - found.low) / (alone.high - alone.low))
    assert np.mean(covered) > 0.925
    assert np.mean(widths) < 1.0


def test_a_pair_with_an_undefined_side_does_not_count() -> None:
    assert mean_difference([1.0, math.nan], [0.5, 0.5]).queries == 1
    assert mean([]).interval is None
    assert math.isnan(mean([]).value)


def test_pairs_of_other_lengths_and_values_out_of_range_are_refused() -> None:
    with pytest.raises(Invalid, match="cannot be paired"):
        mean_difference([1.0], [1.0, 0.0])
    with pytest.raises(Invalid, match="outside"):
        mean([1.5])
    with pytest.raises(Invalid, match="confidence"):
        mean([1.0], confidence=1.0)


@pytest.mark.parametrize(("queries", "shares"), [((20, 30), (0.9, 0.98)), ((10, 100), (0.5, 0.3))])
def test_an_unpaired_difference_covers_the_true_one(queries: tuple[int, int], shares: tuple[float, float]) -> None:
    rng, covered = np.random.default_rng(11), []
    for _ in range(300):
        first, second = ((rng.random(many) < share).astype(float) for many, share in zip(queries, shares, strict=True))
        found = unpaired_difference(first, second).interval
        assert found is not None
        covered.append(found.low <= shares[0] - shares[1] <= found.high)
    assert np.mean(covered) > 0.925
    assert unpaired_difference([1.0], [math.nan]).interval is None
