"""Labels of a rollout: which predictions count when, by which label, and that simulations prove the same rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

import mainspring as ms
from kit.arms import DAY, HOUR, WEIGHT, looks_at
from kit.arms import labelled as draw
from kit.worlds import arrivals, label, prediction
from mainspring.core.time import MINUTE, SECOND
from mainspring.delivery.conformance import rollout
from mainspring.delivery.rollout.guards import Guard
from mainspring.delivery.rollout.judging import judge
from mainspring.delivery.rollout.labelling import labelled
from mainspring.delivery.rollout.model import Evidence, Observed, Reading, RolloutState, Status
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Prediction
from mainspring.monitoring.model import LabelRows
from mainspring.stats.sequential.counting import NEVER

BRIER = ms.guards.quality("brier", within="1h")


def state(guards: Sequence[Guard], evidence: Evidence | None = None, **plan: Any) -> RolloutState:
    made = msgspec.structs.replace(
        rollout()[0], plan=ms.Rollout("late", guards=guards, **plan).plan, status=Status.RUNNING, began_at=0
    )
    return msgspec.structs.replace(made, evidence=evidence or Evidence())


def log_of(predictions: Sequence[Prediction]) -> MemoryLedger:
    log = MemoryLedger()
    log.append(predictions)
    log.compact()
    return log


def request(number: int, at: int, *, mine: bool, score: float = 0.5, **changes: Any) -> Prediction:
    arm: dict[str, Any] = {"version": "2" if mine else "1", "rollout": "r1", "weight": 0.5, "unit": number + 1}
    return prediction(number, at, score, **{**arm, **changes})


def looked(first: RolloutState, log: MemoryLedger, labels: LabelRows, times: Sequence[int]) -> list[Evidence]:
    """Return the evidence at each time."""
    found, made = [], first
    for now in times:
        made = msgspec.structs.replace(made, evidence=labelled(made, made.evidence, log, labels, now))
        found.append(made.evidence)
    return found


def readings(first: RolloutState, evidence: Evidence) -> dict[str, Reading]:
    seen: Observed = judge(first.plan, evidence)
    return {each.guard: each for each in (*seen.readings, *seen.goals)}


def numbers(evidence: Evidence, kind: str) -> tuple[int, int]:
    counts = evidence.events.get(kind, ())
    return sum(each.candidate for each in counts), sum(each.control for each in counts)


def test_the_rollout_counts_what_the_simulations_of_late_labels_count() -> None:
    """The rule whose false alarms are simulated (tests/property/test_sequential_counting.py) is that of the rollout."""
    drawn = draw(np.random.default_rng(5), lost=0.3)
    some = slice(0, None, 10)
    drawn = type(drawn)(*(each[some] for each in drawn))
    made = [
        request(
            each,
            int(drawn.made[each]),
            score=0.0,
            mine=bool(drawn.candidate[each]),
            weight=WEIGHT if drawn.candidate[each] else 1 - WEIGHT,
        )
        for each in range(drawn.made.size)
    ]
    came = [
        label(f"f{each}", bool(drawn.positive[each]), int(drawn.came[each]))
        for each in range(drawn.made.size)
        if drawn.came[each] != NEVER
    ]
    ends = label("of another", True, 200 * HOUR)  # the labels' table is complete until then
    hours = range(7 * HOUR, 110 * HOUR, 9 * HOUR)
    every = [label("of another", True, hour) for hour in hours]
    guard = ms.guards.quality("error", within="1d")  # of scores of 0: whether the label is positive
    lag = 10 * SECOND
    found = looked(state([guard]), log_of(made), arrivals([*came, *every, ends]), [hour + lag for hour in hours])
    missing, known = looks_at(drawn, "missing"), looks_at(drawn, "in time")
    name = next(name for each in found for name in each.events)
    assert [numbers(each, name) for each in found] == [
        (int(mine), int(its)) for mine, its in zip(missing[0][6::9, 0], missing[1][6::9, 0], strict=True)
    ]
    last = found[-1].values.popitem()[1]
    positive = [
        sum(arm[-1] for arm in arms) for arms in zip(*((each.candidate, each.control) for each in last), strict=True)
    ]
    assert positive == [known[0][6::9][-1, 0], known[1][6::9][-1, 0]]
    assert missing[0].max() > 5


def test_a_guard_does_not_wait_for_the_labels_of_another() -> None:
    random = np.random.default_rng(2)
    made = [request(each, each * SECOND, mine=each % 2 == 0, score=float(random.random())) for each in range(600)]
    rows = [label(f"f{each}", each % 3 == 0, each * SECOND + MINUTE) for each in range(600)]
    soon = ms.guards.outcome("late", within="1h", higher_is_better=False)
    first = state([soon, ms.guards.quality("brier", within="7d")], longest="20d")
    rows.append(label("of another", True, 3 * HOUR))
    (early, late) = looked(
        first, log_of(made), arrivals([*rows, label("of another", True, 8 * DAY)]), [3 * HOUR, 9 * DAY]
    )
    assert readings(first, early)["outcome late"].candidate + readings(first, early)["outcome late"].control >= 500
    assert readings(first, early)["quality brier"].note == "no label came"
    assert readings(first, late)["quality brier"].candidate == 300


def test_a_label_that_is_corrected_after_the_horizon_still_counts_as_it_was() -> None:
    made = [request(each, each * SECOND, mine=each % 2 == 0, score=0.1 + 0.2 * (each % 3)) for each in range(100)]
    rows = [label(f"f{each}", True, each * SECOND + MINUTE) for each in range(100)]
    corrections = [
        label(f"f{each}", False, each * SECOND + HOUR + SECOND, landed=1, reported=each * SECOND + HOUR)
        for each in range(100)
    ]
    (found,) = looked(state([BRIER]), log_of(made), arrivals([*rows, *corrections]), [3 * HOUR])
    assert sum(numbers(found, name)[0] for name in found.events) == 0
    reading = readings(state([BRIER]), found)["quality brier"]
    assert reading.candidate == 50


def test_predictions_wait_until_the_labels_have_landed_so_far() -> None:
    """A table that lands once a day lacks, an hour before, the labels of nearly a day: they are not missing."""
    made = [request(each, each * MINUTE, mine=each % 2 == 0, score=0.1 + 0.2 * (each % 3)) for each in range(600)]
    rows = [label(f"f{each}", True, each * MINUTE + MINUTE) for each in range(600)]
    first = state([ms.guards.quality("brier", within="1d")])
    (early,) = looked(first, log_of(made), arrivals(rows[:100]), [30 * HOUR])
    assert not any(sum(numbers(early, name)) for name in early.events)
    landed = [*rows, label("of another", True, 33 * HOUR)]
    (late,) = looked(msgspec.structs.replace(first, evidence=early), log_of(made), arrivals(landed), [35 * HOUR])
    assert not any(sum(numbers(late, name)) for name in late.events)
    reading = readings(first, late)["quality brier"]
    assert reading.candidate + reading.control == 540


def test_labels_that_have_ended_are_waited_for_once_more_and_then_missing() -> None:
    made = [request(each, each * MINUTE, mine=each % 2 == 0, score=0.1 + 0.2 * (each % 3)) for each in range(100)]
    rows = [label(f"f{each}", True, each * MINUTE + MINUTE) for each in range(50)]
    early, late = looked(state([BRIER]), log_of(made), arrivals(rows), [2 * HOUR, 5 * HOUR])
    assert readings(state([BRIER]), early)["quality brier"].note == "no label came"
    assert sum(sum(numbers(late, name)) for name in late.events) == 50
    assert readings(state([BRIER]), late)["quality brier"].candidate == 25


def test_a_quiet_endpoint_is_compared_although_no_look_has_many_labels() -> None:
    random = np.random.default_rng(2)
    made = [request(each, each * 10 * MINUTE, mine=each % 2 == 0, score=float(random.random())) for each in range(200)]
    rows = [label(f"f{each}", each % 2 == 0, each * 10 * MINUTE + SECOND) for each in range(200)]
    guard = ms.guards.quality("absolute_error", within="1h")
    *_, found = looked(state([guard]), log_of(made), arrivals(rows), [each * HOUR for each in range(2, 36, 3)])
    reading = readings(state([guard]), found)["quality absolute_error"]
    assert reading.candidate + reading.control >= 100


def test_bounds_come_from_the_champions_labels_before_the_rollout() -> None:
    before = [prediction(each, -2 * HOUR + each * SECOND, 0.1 * (each % 9)) for each in range(100)]
    made = [request(1_000 + each, each * SECOND, mine=each % 2 == 0, score=0.1 * (each % 9)) for each in range(100)]
    rows = [label(f"f{each}", True, -2 * HOUR + each * SECOND + MINUTE) for each in range(100)]
    rows += [label(f"f{1_000 + each}", True, each * SECOND + MINUTE) for each in range(100)]
    rows.append(label("of another", True, 3 * HOUR))
    guard = ms.guards.quality("absolute_error", within="1h")
    (found,) = looked(state([guard]), log_of([*before, *made]), arrivals(rows), [3 * HOUR])
    reading = readings(state([guard]), found)["quality absolute_error"]
    assert (reading.candidate, reading.control) == (50, 50)


def test_a_guard_and_a_goal_on_the_same_loss_count_a_prediction_once() -> None:
    made = [request(each, each * SECOND, mine=each % 2 == 0, score=0.1 * (each % 9)) for each in range(100)]
    rows = [
        *(label(f"f{each}", True, each * SECOND + MINUTE) for each in range(100)),
        label("of another", True, 3 * HOUR),
    ]
    first = state([BRIER], goals=[BRIER])
    (found,) = looked(first, log_of(made), arrivals(rows), [3 * HOUR])
    assert readings(first, found)["quality brier"].candidate == 50


# Tasks


def worse(guard: Guard, made: Sequence[Prediction], labels: LabelRows) -> Reading:
    first = state([guard])
    (found,) = looked(first, log_of(made), labels, [3 * DAY])
    return readings(first, found)[guard.name]


@pytest.mark.parametrize("metric", ["error", "log_loss"])
@pytest.mark.parametrize("bad", [True, False])
def test_quality_of_several_classes(metric: str, bad: bool) -> None:
    random, names = np.random.default_rng(3), ("carrier", "none", "weather")
    made, rows = [], []
    for number in range(1_500):
        mine, truth = bool(random.random() < 0.5), int(random.integers(3))
        said = truth if random.random() < (0.4 if mine and bad else 0.8) else int(random.integers(3))
        outputs: dict[str, Any] = {name: 0.8 if place == said else 0.1 for place, name in enumerate(names)}
        made.append(request(number, number * SECOND, mine=mine, outputs=outputs))
        rows.append({**label(f"f{number}", None, number * SECOND + MINUTE), "why": names[truth]})
    rows.append(label("of another", True, 2 * DAY))
    found = worse(ms.guards.quality(metric, within="1h", tolerance=0.1), made, arrivals(rows, "why"))
    assert (found.breach, found.safe) == (bad, not bad)


def test_a_class_that_the_candidate_does_not_know_is_wrong() -> None:
    made = [request(each, each * SECOND, mine=each % 2 == 0, outputs={"1": 0.7, "2": 0.3}) for each in range(100)]
    rows = [{**label(f"f{each}", None, each * SECOND + MINUTE), "delay": float(each % 3 + 1)} for each in range(100)]
    rows.append(label("of another", True, 2 * DAY))
    found = worse(ms.guards.quality("error", within="1h"), made, arrivals(rows, "delay"))
    assert (found.candidate, found.control) == (50, 50)
    assert found.estimate == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("bad", [True, False])
def test_quality_of_a_regression_with_several_labels(bad: bool) -> None:
    random = np.random.default_rng(4)
    made, rows = [], []
    for number in range(1_500):
        mine = bool(random.random() < 0.5)
        truth = {"late": float(number % 2), "delay": float(random.normal(10, 3))}
        off = 6.0 if mine and bad else 1.0
        outputs: dict[str, Any] = {name: value + float(random.normal(0, off)) for name, value in truth.items()}
        made.append(request(number, number * SECOND, mine=mine, outputs=outputs))
        rows.append({**label(f"f{number}", number % 2 == 1, number * SECOND + MINUTE), "delay": truth["delay"]})
    rows.append({**label("of another", True, 2 * DAY), "delay": 1.0})
    both = replace(arrivals(rows, "late"), others=(arrivals(rows, "delay"),))
    found = worse(ms.guards.quality("absolute_error", within="1h", tolerance=0.5), made, both)
    assert (found.breach, found.safe) == (bad, not bad)


def test_evidence_of_an_older_version_is_read() -> None:
    stored = {
        "position": "7", "labelled_until": 5, "requests": [[0.5, 10, 10]],
        "events": {"no label": [[0.5, 1, 2]], "latency 0": [[0.5, 3, 4]]},
        "sums": {"quality brier": [[0.5, 0, [3, 0.5, 0.2], [4, 0.4, 0.1]]]}, "cuts": {"latency": [1.0, 2.0, 3.0]},
    }  # fmt: skip
    evidence = msgspec.convert(stored, Evidence)
    first = state([BRIER], evidence)
    assert readings(first, evidence)["quality brier"].note == "no label came"
    made = [request(each, each * SECOND, mine=each % 2 == 0, score=0.1 * (each % 9)) for each in range(100)]
    rows = [
        *(label(f"f{each}", True, each * SECOND + MINUTE) for each in range(100)),
        label("of another", True, 3 * HOUR),
    ]
    (found,) = looked(first, log_of(made), arrivals(rows), [3 * HOUR])
    assert readings(first, found)["quality brier"].candidate == 49  # not again what was counted before
