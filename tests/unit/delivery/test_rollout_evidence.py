"""Evidence of a rollout: counts of what the log observed, and the readings that they give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

import mainspring as ms
from kit.worlds import arrivals, label, prediction
from mainspring.core.time import HOUR, MINUTE, SECOND
from mainspring.delivery.conformance import rollout
from mainspring.delivery.rollout.guards import Guard
from mainspring.delivery.rollout.judging import judge
from mainspring.delivery.rollout.labelling import UNLABELLED, labelled
from mainspring.delivery.rollout.model import Counts, Evidence, Observed, Reading, RolloutState, Status
from mainspring.delivery.rollout.observing import before_it_began, fixed, observed
from mainspring.delivery.rollout.plan import Plan
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Failure, Prediction
from mainspring.stats.sequential.distributions import Bins
from mainspring.stats.sequential.slowness import places
from mainspring.stats.sequential.verdicts import of_errors, of_latency, of_scores

pytestmark = pytest.mark.slow

SHARE = 0.2
DEFAULT = ms.Rollout("late").plan


def state(plan: Plan = DEFAULT, evidence: Evidence | None = None) -> RolloutState:
    made = msgspec.structs.replace(rollout()[0], plan=plan, status=Status.RUNNING, share=SHARE, began_at=0)
    return made if evidence is None else msgspec.structs.replace(made, evidence=evidence)


def before(seed: int = 7) -> Evidence:
    """Return the thresholds of a champion's day before."""
    random = np.random.default_rng(seed)
    return fixed(Evidence(), list(random.lognormal(8, 0.5, 500)), list(random.beta(2, 5, 500)))


def traffic(
    log: MemoryLedger,
    requests: int,
    *,
    seed: int = 0,
    errors: float = 0.0,
    slower: float = 1.0,
    constant: bool = False,
    share: float = SHARE,
) -> None:
    """Log requests of both arms; the candidate's have the faults."""
    random = np.random.default_rng(seed)
    made: list[Prediction] = []
    failed: list[Failure] = []
    for number in range(requests):
        mine = bool(random.random() < share)
        arm: dict[str, Any] = {
            "version": "2" if mine else "1",
            "rollout": "r1",
            "weight": share if mine else 1 - share,
            "unit": number + 1,
        }
        latency = int(random.lognormal(8, 0.5) * (slower if mine else 1))
        score = 0.5 if mine and constant else float(random.beta(2, 5))
        if mine and random.random() < errors:
            failed.append(
                Failure(
                    id=f"x{number}", endpoint="late", model="late", digest="d", at=number, kind="ModelFailed",
                    status=500, latency_us=latency, **arm,
                )
            )  # fmt: skip
        else:
            made.append(prediction(number, number, score, latency_us=latency, **arm))
    log.append(made)
    log.fail(failed)
    log.compact()


def evidence_of(log: MemoryLedger, evidence: Evidence | None = None) -> Evidence:
    found = log.observations("r1", "" if evidence is None else evidence.position)
    assert found is not None
    made = observed(state(evidence=before() if evidence is None else evidence), found.batches)
    return msgspec.structs.replace(made, position=found.position)


def by_name(seen: Observed) -> dict[str, Reading]:
    return {reading.guard: reading for reading in (*seen.readings, *seen.goals)}


@pytest.mark.parametrize("seed", range(3))
def test_the_same_model_twice_is_no_breach_and_is_found_safe(seed: int) -> None:
    log = MemoryLedger()
    traffic(log, 6_000, seed=seed, share=0.5)
    seen = judge(DEFAULT, evidence_of(log))
    assert seen.sample_ratio is not None
    assert not any(reading.breach for reading in (*seen.readings, seen.sample_ratio))
    assert {each.guard: each.safe for each in seen.readings} == {"errors": True, "latency": True, "score": True}
    assert by_name(seen)["errors"].estimate is None
    assert by_name(seen)["errors"].note.startswith("0 of ")


@pytest.mark.parametrize(
    ("fault", "guard"),
    [({"errors": 0.2}, "errors"), ({"slower": 2.5}, "latency"), ({"constant": True}, "score")],
)
def test_a_bad_candidate_is_found_within_some_hundred_requests(fault: dict[str, Any], guard: str) -> None:
    log = MemoryLedger()
    traffic(log, 600, **fault)
    readings = by_name(judge(DEFAULT, evidence_of(log)))
    assert [name for name, reading in readings.items() if reading.breach] == [guard]
    reading = readings[guard]
    if reading.low is not None and guard == "errors":
        assert reading.low > reading.limit == 1.5
    assert reading.log_e > np.log(4 / 0.05)


def test_a_slower_candidate_is_found_on_the_scale_of_latency() -> None:
    log = MemoryLedger()
    traffic(log, 8_000, slower=1.25, share=0.5)
    found = by_name(judge(DEFAULT, evidence_of(log)))["latency"]
    assert found.breach
    assert found.limit == pytest.approx(1.1)
    assert found.estimate == pytest.approx(1.25, rel=0.04)
    assert found.low is not None
    assert found.high is not None
    assert 1.1 < found.low < 1.25 < found.high
    older = msgspec.json.decode(b'{"kind": "latency", "tolerance": 0.5}', type=Guard)
    assert older.factor == 1.1


def test_the_readings_are_the_evidence_that_simulations_compute() -> None:
    """The tests of false alarms and the benchmark call `stats.sequential.verdicts` alone."""
    log = MemoryLedger()
    traffic(log, 3_000, errors=0.02, slower=1.1, share=0.5)
    evidence = evidence_of(log)
    found = by_name(judge(DEFAULT, evidence))
    errors, (asked,) = evidence.events["errors"], evidence.requests
    of = of_errors([0.5], [errors[0].candidate], [errors[0].control], asked.candidate, 1.5, 0.005)
    assert found["errors"].log_e == float(of.worse)
    scores = [evidence.events[f"score {place}"][0] for place in range(5)]
    bins = [[each.candidate for each in scores]], [[each.control for each in scores]]
    assert found["score"].log_e == pytest.approx(float(of_scores([0.5], *bins, 2.0).worse))
    slow, past = np.zeros((2, 1, 4)), np.asarray(evidence.cuts["latency"])
    for name, (counts,) in ((name, each) for name, each in evidence.events.items() if name.startswith("latency bin")):
        number = int(name.split()[-1])
        slow[0, 0, (number - 4 > places(past)).sum()] += counts.candidate  # 10 % are four bins
        slow[1, 0, (number > places(past)).sum()] += counts.control
    latency = of_latency(Bins(tuple(past), (0.5, 0.4, 0.09, 0.01)), [0.5], *slow)
    assert found["latency"].log_e == pytest.approx(float(latency.worse))


def test_answers_that_are_no_numbers_have_no_scores_to_compare() -> None:
    log, random = MemoryLedger(), np.random.default_rng(1)
    arms = [bool(random.random() < 0.5) for _ in range(400)]
    log.append(
        [
            prediction(each, each, None, version="2" if mine else "1", rollout="r1", weight=0.5)
            for each, mine in enumerate(arms)
        ]
    )
    log.compact()
    found = by_name(judge(DEFAULT, evidence_of(log, fixed(Evidence(), [], [float("nan")] * 50))))
    assert (found["score"].breach, found["score"].safe) == (False, True)


def test_evidence_is_the_same_whole_or_in_parts() -> None:
    whole, parts = MemoryLedger(), MemoryLedger()
    traffic(whole, 300, errors=0.1)
    traffic(parts, 300, errors=0.1)
    evidence: Evidence | None = before()
    log = MemoryLedger()
    for part in range(3):
        for each in parts._compacted.values():
            if int(each.id[1:]) % 3 == part:
                log.append([each])
        log.fail([each for each in parts._failures.values() if int(each.id[1:]) % 3 == part])
        log.compact()
        evidence = evidence_of(log, evidence)
    assert evidence is not None
    assert msgspec.structs.replace(evidence, position="") == msgspec.structs.replace(evidence_of(whole), position="")
    assert evidence.candidate + evidence.control == 300


def test_shares_are_strata_and_rows_of_a_request_count_once() -> None:
    log = MemoryLedger()
    rows = [
        prediction(1, 1, version="2", rollout="r1", weight=0.05),
        prediction(2, 1, version="2", rollout="r1", weight=0.05, row=1),
        prediction(3, 2, version="1", rollout="r1", weight=0.95),
        prediction(4, 3, version="1", rollout="r1", weight=0.75),
        prediction(5, 3, version="3", rollout="r1", weight=0.75),
    ]
    log.append(rows)
    log.compact()
    assert evidence_of(log).requests == (Counts(0.05, 1, 1), Counts(0.25, 0, 1))


def test_a_key_that_asks_often_counts_once_and_once_for_its_errors() -> None:
    log = MemoryLedger()
    arm: dict[str, Any] = {"version": "2", "rollout": "r1", "weight": 0.2, "unit": 77}
    log.append([prediction(each, each, **arm) for each in range(30)])
    failed = {"endpoint": "late", "model": "late", "digest": "d", "kind": "ModelFailed", "status": 500, "latency_us": 9}
    log.fail([Failure(id=f"x{each}", at=each, **failed, **arm) for each in range(9)])  # type: ignore[arg-type]
    log.compact()
    found = log.observations("r1")
    assert found is not None
    plan = msgspec.structs.replace(DEFAULT, assign="key")
    evidence = observed(state(plan), found.batches)
    assert evidence.requests == (Counts(0.2, 1, 0),)
    assert evidence.events["errors"] == (Counts(0.2, 1, 0),)
    again = log.observations("r1")
    assert again is not None
    assert observed(state(plan, evidence), again.batches) == evidence


def test_an_arm_that_nobody_serves_breaks_the_sample_ratio() -> None:
    log = MemoryLedger()
    log.append([prediction(each, each, version="1", rollout="r1", weight=0.8) for each in range(200)])
    log.compact()
    seen = judge(DEFAULT, evidence_of(log))
    assert seen.sample_ratio is not None
    assert seen.sample_ratio.breach
    assert (seen.candidate, seen.control) == (0, 200)


def test_thresholds_that_no_history_gives_come_from_the_first_predictions_which_are_not_counted() -> None:
    log = MemoryLedger()
    traffic(log, 200)
    first = evidence_of(log, Evidence())
    assert set(first.cuts) == {"latency", "score"}
    assert not any(name.startswith(("latency", "score")) for name in first.events)
    traffic(log, 200, seed=1)
    assert any(name.startswith("score") for name in evidence_of(log, first).events)
    few = MemoryLedger()
    traffic(few, 20)
    readings = by_name(judge(DEFAULT, evidence_of(few, Evidence())))
    assert readings["score"].note == "too few of the champion's predictions to compare with"
    assert not readings["score"].safe


@pytest.mark.parametrize(
    ("before", "after", "breach", "note"),
    [
        ((30, 1_000), (300, 10_000), False, "tolerated 7.26%; before the switch 30 of 1000 failed"),
        ((30, 1_000), (120, 1_000), True, "120 of 1000 requests failed, 12%; tolerated 7.26%"),
        ((0, 1_000), (30, 1_000), True, "tolerated 0.5%; before the switch 0 of 1000 failed"),
        ((0, 0), (30, 1_000), True, "tolerated 0.5%; before the switch 0 of 0 failed"),
        ((2, 10), (30, 1_000), False, "before the switch 2 of 10 failed"),
    ],
)
def test_blue_green_compares_errors_with_those_before_the_switch(
    before: tuple[int, int], after: tuple[int, int], breach: bool, note: str
) -> None:
    plan = ms.Rollout("late", kind="blue-green", guards=[ms.guards.errors()]).plan
    evidence = Evidence(
        requests=(Counts(1.0, after[1], 0),), events={"errors": (Counts(1.0, after[0], 0),)}, cuts={"errors": before}
    )
    [reading] = judge(plan, evidence).readings
    assert reading.breach is breach
    assert note in reading.note
    assert judge(plan, evidence).reference == before[1]


def test_before_the_switch_the_champions_requests_and_failures_are_the_reference() -> None:
    log = MemoryLedger()
    plan = ms.Rollout("late", kind="blue-green").plan
    arm: dict[str, Any] = {"version": "1", "rollout": "r1", "weight": 1.0}
    log.append([prediction(number, number, 0.5, **arm) for number in range(40)])
    log.fail(
        [
            Failure(
                id=f"x{number}", endpoint="late", model="late", digest="d", at=number, kind="ModelFailed", status=500,
                latency_us=1, **arm,
            )
            for number in range(2)
        ]
    )  # fmt: skip
    log.compact()
    found = log.observations("r1")
    assert found is not None
    pending = msgspec.structs.replace(rollout()[0], plan=plan)
    evidence = before_it_began(pending, found.batches)
    assert (evidence.cuts, evidence.requests, evidence.events) == ({"errors": (2.0, 42.0)}, (), {})
    again = log.observations("r1")
    assert again is not None
    begun = msgspec.structs.replace(state(plan, evidence), began_at=SECOND)
    assert observed(begun, again.batches).requests == ()  # nothing of it counts as without a choice of arm


def test_blue_green_compares_errors_with_a_fixed_share() -> None:
    plan = ms.Rollout("late", kind="blue-green", guards=[ms.guards.errors(at_most=0.05), ms.guards.latency()]).plan
    good, bad = MemoryLedger(), MemoryLedger()
    traffic(good, 400, share=1.0, errors=0.01)
    traffic(bad, 400, share=1.0, errors=0.3)
    assert [each.safe for each in judge(plan, evidence_of(good)).readings] == [True, True]
    assert [each.breach for each in judge(plan, evidence_of(bad)).readings] == [True, False]


# Labels


def labels_of(
    log: MemoryLedger, requests: int, guard: Guard, *, worse: float = 0.0, delay: tuple[int, int] = (1, 1)
) -> Observed:
    """Log predictions and their labels, and return the readings when all are as old as an hour.

    Args:
        worse: How often the candidate's score is turned round.
        delay: Minutes until a label of the control, and of the candidate.
    """
    random, plan = np.random.default_rng(3), ms.Rollout("late", guards=[guard]).plan
    made, rows = [], []
    for number in range(requests):
        mine, late = bool(random.random() < 0.5), bool(random.random() < 0.4)
        score = float(np.clip(random.normal(0.7 if late else 0.3, 0.15), 0, 1))
        score = 1 - score if mine and random.random() < worse else score
        at = number * SECOND // 10
        made.append(
            prediction(number, at, score, version="2" if mine else "1", rollout="r1", weight=0.5, unit=number + 1)
        )
        rows.append(label(f"f{number}", late, at + delay[mine] * MINUTE))
    log.append(made)
    log.compact()
    now = requests * SECOND // 10 + HOUR + MINUTE
    rows += [label("of another", True, each) for each in (HOUR + MINUTE, now)]  # labels are known until then
    evidence = labelled(state(plan), Evidence(), log, arrivals(rows), HOUR + MINUTE)
    evidence = labelled(state(plan, evidence), evidence, log, arrivals(rows), now)
    assert labelled(state(plan, evidence), evidence, log, arrivals(rows), now) == evidence
    return judge(plan, evidence)


BRIER = ms.guards.quality("brier", within="1h", tolerance=0.02)


def test_quality_is_compared_as_labels_come() -> None:
    same = by_name(labels_of(MemoryLedger(), 3_000, BRIER))["quality brier"]
    assert (same.breach, same.safe) == (False, True)
    assert same.candidate + same.control == 3_000
    worse = by_name(labels_of(MemoryLedger(), 3_000, BRIER, worse=0.5))["quality brier"]
    assert worse.breach
    assert worse.low is not None
    assert worse.low > worse.limit == 0.02


@pytest.mark.parametrize("metric", ["error", "log_loss"])
def test_each_loss_finds_the_same_fault(metric: str) -> None:
    guard = ms.guards.quality(metric, within="1h", tolerance=0.05)
    assert by_name(labels_of(MemoryLedger(), 2_000, guard, worse=0.6))[guard.name].breach


def test_a_label_that_comes_after_the_horizon_is_none_and_that_is_compared() -> None:
    late = labels_of(MemoryLedger(), 1_000, BRIER, delay=(1, 90))
    missing = by_name(late)[UNLABELLED]
    assert missing.breach
    assert missing.control == 0
    of_the_champion = by_name(labels_of(MemoryLedger(), 1_000, BRIER, delay=(90, 1)))[UNLABELLED]
    assert of_the_champion.breach
    assert of_the_champion.candidate == 0
    sooner = labels_of(MemoryLedger(), 1_000, BRIER, delay=(50, 1))
    assert not any(reading.breach for reading in sooner.readings)
    never = by_name(labels_of(MemoryLedger(), 300, BRIER, delay=(90, 90)))
    assert never["quality brier"].note == "no label came"
    assert not never[UNLABELLED].breach


def test_an_outcome_is_better_in_its_own_direction() -> None:
    guard = ms.guards.outcome("late", within="1h", tolerance=0.2)
    reading = by_name(labels_of(MemoryLedger(), 2_000, guard))["outcome late"]
    assert (reading.limit, reading.safe) == (-0.2, True)


def _shares() -> Iterator[float]:
    plan = ms.Rollout("late", kind="bandit", goals=[BRIER], guards=[ms.guards.errors()]).plan
    for worse in (0.0, 0.6):
        seen = labels_of(MemoryLedger(), 2_000, BRIER, worse=worse)
        assert seen.share is None
        random, log, rows, made = np.random.default_rng(4), MemoryLedger(), [], []
        for number in range(800):
            mine, late = bool(random.random() < 0.5), bool(random.random() < 0.4)
            score = 0.9 if late != (mine and random.random() < worse) else 0.1
            made.append(prediction(number, number, score, version="2" if mine else "1", rollout="r1", weight=0.5))
            rows.append(label(f"f{number}", late, number + MINUTE))
        log.append(made)
        log.compact()
        rows.append(label("of another", True, 2 * HOUR))
        evidence = labelled(state(plan), Evidence(), log, arrivals(rows), 2 * HOUR)
        share = judge(plan, evidence).share
        assert share is not None
        yield share


def test_a_bandit_leaves_a_worse_candidate_its_floor() -> None:
    same, worse = _shares()
    assert worse == pytest.approx(0.1)
    assert same > worse
