"""Pairs of a shadow: the same inputs, the champion's logged answers and the candidate's."""

from __future__ import annotations

import numpy as np

import mainspring as ms
from mainspring.delivery.rollout.judging import judge
from mainspring.delivery.rollout.model import Evidence, Observed, Reading
from mainspring.delivery.rollout.pairing import DROPPED, SKIPPED, paired, scaled

PLAN = ms.Rollout("late", kind="shadow", guards=[ms.guards.errors(), ms.guards.latency(), ms.guards.score()]).plan
SCORES = np.random.default_rng(5).beta(2, 3, 2_000)


def readings(seen: Observed) -> dict[str, Reading]:
    return {reading.guard: reading for reading in seen.readings}


def pairs_of(candidate: list[float | None], failed: int = 0) -> Evidence:
    champion = [float(each) for each in SCORES[: len(candidate)]]
    return paired(scaled(Evidence(), champion), champion, candidate, failed)


def test_a_candidate_that_answers_almost_alike_is_safe() -> None:
    seen = judge(PLAN, pairs_of([float(each) + 0.01 for each in SCORES]))
    found = readings(seen)
    assert {name: (each.breach, each.safe) for name, each in found.items()} == dict.fromkeys(found, (False, True))
    assert found["score"].estimate is not None
    assert abs(found["score"].estimate - 0.01) < 1e-6
    assert found["latency"].note.startswith("not compared")
    assert (seen.candidate, seen.control) == (2_000, 0)


def test_one_that_answers_something_else_is_found_in_few_pairs() -> None:
    turned = readings(judge(PLAN, pairs_of([1 - float(each) for each in SCORES[:150]])))["score"]
    constant = readings(judge(PLAN, pairs_of([0.9] * 150)))["score"]
    assert (turned.breach, constant.breach) == (True, True)
    assert turned.low is not None
    assert turned.low > turned.limit


def test_one_that_fails_is_found_by_its_errors() -> None:
    evidence = pairs_of([None] * 40, failed=40)
    assert readings(judge(PLAN, evidence))["errors"].breach
    assert not readings(judge(PLAN, evidence))["score"].breach


def test_evidence_is_the_sum_of_its_parts_and_knows_what_it_lacks() -> None:
    champion = [float(each) for each in SCORES[:100]]
    candidate: list[float | None] = [each * 0.9 for each in champion]
    first = scaled(Evidence(), champion)
    whole = paired(first, champion, candidate, 2, dropped=7, skipped=3)
    part = paired(first, champion[:40], candidate[:40], 2, dropped=7)
    parts = paired(part, champion[40:], candidate[40:], 0, skipped=3)
    assert whole.requests == parts.requests
    assert (whole.events[DROPPED][0].candidate, whole.events[SKIPPED][0].candidate) == (7, 3)
    assert whole.events == parts.events
    assert np.allclose(whole.sums["paired difference"][0].candidate, parts.sums["paired difference"][0].candidate)


def test_without_a_history_the_first_pairs_give_the_scale_and_are_not_counted() -> None:
    champion = [float(each) for each in SCORES[:50]]
    first = paired(Evidence(), champion, [0.0] * 50, 0)
    assert "paired difference" in first.cuts
    assert not first.sums
    assert readings(judge(PLAN, first))["score"].note == "no pairs yet"
    unmoved = paired(Evidence(), [0.5] * 50, [0.5] * 50, 0)
    assert not unmoved.cuts
