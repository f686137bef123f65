"""Days of a collection: alike ones alarm within the budget, for all that is watched together, and others are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mainspring.core.time import DAY, format_instant
from mainspring.monitoring.channels.logged_days import judge_days
from mainspring.operations.collection_measures import StoredEvaluation
from mainspring.operations.collection_monitoring import ADDED_BUDGET, SEARCHES_BUDGET, WORDS, _loss
from mainspring.stats.retrieval import mean
from mainspring.vectors.evaluation.evaluating import QueryResult, SearchEvaluation, figure

LENGTH, ROWS = 84, 150
Days = dict[int, dict[str, list[Any]]]


def searches(rng: np.random.Generator) -> Days:
    found: Days = {}
    for day in range(LENGTH):
        weekend = day % 7 >= 5
        kinds = rng.dirichlet(60 * np.array([0.5 - 0.2 * weekend, 0.3, 0.1, 0.1 + 0.2 * weekend]))
        share = np.clip(0.9 - 0.05 * weekend + rng.normal(0, 0.02), 0, 1)
        found[day * DAY] = {
            "found": (rng.random(ROWS) < share).astype(float).tolist(),
            "hits": rng.integers(1, 10, ROWS).astype(float).tolist(),
            "best_score": rng.normal(0.7, 0.1, ROWS).tolist(),
            "latency_ms": rng.gamma(3, 3, ROWS).tolist(),
            "asked": [str(1 + each) for each in rng.choice(4, ROWS, p=kinds)],
        }
    return found


def added(rng: np.random.Generator) -> Days:
    usual = rng.dirichlet(np.full(6, 3.0))
    kinds = [rng.dirichlet(80 * usual) for _ in range(LENGTH)]
    return {
        day * DAY: {"added": [str(1 + each) for each in rng.choice(6, ROWS, p=kinds[day])]} for day in range(LENGTH)
    }


def alarms(days: Days, part: float, since: int = 0) -> tuple[set[int], int, list[str]]:
    """Return the days with an alarm, the number of those that were judged, and what is said."""
    counts = dict.fromkeys(days, ROWS)
    found = judge_days(
        "docs", days, counts, since=since, until=LENGTH * DAY, alarms_per_week=1.0, words=WORDS, part=part
    )
    signals = [signal for each in found for signal in each.signals]
    return {each.start for each in signals}, len(found[0].windows), [each.detail for each in signals]


def evaluations(rng: np.random.Generator, recall: list[float]) -> list[StoredEvaluation]:
    """Return an evaluation a day, the newest first, of 60 queries that a build finds by chance, mostly as before."""
    easy = rng.random(60)
    made = []
    for day, share in enumerate(recall):
        values = (easy + rng.normal(0, 0.2, 60) < np.quantile(easy, share)).astype(float)
        results = tuple(QueryResult(key=str(n), values=(value,), hits=1) for n, value in enumerate(values.tolist()))
        found = SearchEvaluation(
            set="q", set_version=1, set_digest="d", metrics=("recall@10",), figures={"recall@10": figure(mean(values))},
            by_tag={}, queries=results,
        )  # fmt: skip
        made.append(StoredEvaluation(at=format_instant(day * DAY + 1), version=str(day), evaluation=found))
    return made[::-1]


def test_alike_days_alarm_within_the_budget_of_all_that_is_watched() -> None:
    weeks = shown = 0.0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        stored = evaluations(rng, [0.8] * LENGTH)
        first, judged, _ = alarms(searches(rng), SEARCHES_BUDGET)
        second, _, _ = alarms(added(rng), ADDED_BUDGET)
        third = {day for day in range(0, LENGTH * DAY, DAY) if _loss("docs", stored, day, 0.0)}
        weeks += judged / 7
        shown += len(first) + len(second) + len(third) * judged / LENGTH
    assert weeks > 20
    assert shown / weeks < 1.3


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("found", [1.0] * 60 + [0.0] * 90, "share of searches with an answer is 0.4 of 150 searches"),
        ("best_score", [0.4] * 150, "similarity of the nearest chunk is 0.4"),
        ("asked", ["3"] * 110 + ["1"] * 40, "Searches are of other kinds than usual: kind 3 is 73%"),
    ],
)
def test_a_day_of_other_searches_is_told_by_what_differs(column: str, values: list[Any], said: str) -> None:
    days = searches(np.random.default_rng(1))
    days[(LENGTH - 1) * DAY][column] = values
    _, _, details = alarms(days, SEARCHES_BUDGET, (LENGTH - 1) * DAY)
    assert any(said in each for each in details)


def test_new_chunks_of_other_kinds_are_told() -> None:
    days = added(np.random.default_rng(1))
    days[(LENGTH - 1) * DAY] = {"added": ["2"] * ROWS}
    _, _, details = alarms(days, ADDED_BUDGET, (LENGTH - 1) * DAY)
    assert details
    assert details[0].startswith("New chunks are of other kinds than usual: kind 2 is 100% of them")


def test_a_loss_of_recall_is_told_only_beyond_the_tolerance() -> None:
    stored = evaluations(np.random.default_rng(3), [0.9] * 20 + [0.6] * 5)
    assert not _loss("docs", stored, 18 * DAY, 0.0)
    (signal,) = _loss("docs", stored, 22 * DAY, 0.0) or ()
    assert signal.severity > 1
    assert "recall@10 of the collection is 0." in signal.detail
    assert not _loss("docs", stored, 22 * DAY, 0.3)
    assert _loss("docs", stored[-1:], 22 * DAY, 0.0) is None
