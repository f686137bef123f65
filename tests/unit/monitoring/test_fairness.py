"""Groups of labelled predictions: sums by segment against counts of the rows, and what may not be stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

import mainspring as ms
from kit.console.flights import Project, definitions, populated
from kit.worlds import arrivals, bundle, label, prediction
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import DAY, HOUR
from mainspring.data.adapters.memory import MemoryLake
from mainspring.features.definitions import dump
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.monitoring.fairness import group_counts, groups_of
from mainspring.monitoring.quality.measuring import Judged, Measuring, Watched
from mainspring.monitoring.quality.table import QualityTable
from mainspring.operations.fairness import live_fairness
from mainspring.stats.fairness.counting import CALIBRATION, MEASURES, SELECTION, TPR, GroupCounts, count, group_rows
from mainspring.stats.fairness.reporting import fairness_report

ROWS = 1_200
RNG = np.random.default_rng(9)
SEX: list[str] = RNG.choice(["f", "m"], ROWS).tolist()
AGE: list[str | None] = RNG.choice(np.array(["old", "young", None]), ROWS).tolist()
SCORE = RNG.random(ROWS)
TRUTH = RNG.random(ROWS) < SCORE
COLUMNS = ("Person.age_band", "sex")


def made(**changes: Any) -> Any:
    ledger = MemoryLedger()
    ledger.append(
        [
            prediction(
                row,
                row * 8 * DAY // ROWS,
                float(SCORE[row]),
                features={"Person.age_band": AGE[row]},
                request={"sex": SEX[row]},
                **changes,
            )
            for row in range(ROWS)
        ]
    )
    ledger.compact()
    return ledger


def measured(watched: Watched, judged: Judged | None = None) -> Any:
    labels = arrivals([label(f"f{row}", bool(TRUTH[row]), row * 8 * DAY // ROWS + HOUR) for row in range(ROWS)])
    measuring = Measuring(labels, lambda _: judged or Judged.of(bundle()), watched, 20 * DAY)
    found = made().arrivals("late", 0, columns=watched.columns)
    for batch in found.batches:
        measuring.add(batch.select(watched.columns))
    return measuring.sums


def counted(threshold: float = 0.5) -> GroupCounts:
    groups, place = group_rows([AGE, SEX])
    block = np.arange(ROWS) * 8 // ROWS
    return count(COLUMNS, groups, place, block, truth=TRUTH, score=SCORE, decided=threshold <= SCORE)


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_the_sums_by_segment_have_the_counts_of_the_rows(threshold: float | None) -> None:
    judged = Judged("binary", ("probability",), (), threshold, 9.0, {})
    sums = measured(Watched(fairness=COLUMNS), judged)
    lake = MemoryLake()
    QualityTable(lake).add("late", {0: 20 * DAY}, {0: sums}, "once")  # as it is stored
    stored = QualityTable(lake).sums("late", 0, 20 * DAY)
    by_rows = counted(0.5 if threshold is None else threshold)
    for each in (sums, stored):
        found = group_counts(each, COLUMNS, {"d1": threshold})["1", ""]
        assert sorted(found.groups) == sorted(by_rows.groups)
        assert len(found.blocks) == 8
        for by in (COLUMNS, COLUMNS[:1]):
            mine, theirs = (fairness_report(counts, by, "binary", least_rows=20) for counts in (found, by_rows))
            expected = {tuple(group.group.values()): group.measures for group in theirs.groups}
            for group in mine.groups:
                for name in MEASURES["binary"]:
                    one, two = group.measures[name], expected[tuple(group.group.values())][name]
                    assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high)), name


def test_values_of_persons_are_measured_and_not_stored() -> None:
    person = ms.Entity("person", keys={"flight": ms.String})
    people = ms.Source("people", schema={"flight": ms.String, "sex": ms.String}, event_time="at", pii=["sex"])
    observations = ms.Observations(people, keys=[person], at=ms.col("at"))
    with_features = bundle()
    files = {**with_features.files, "features.json": dump([], observations)}
    judged = Judged.of(type(with_features)(with_features.digest, with_features.manifest, files))
    assert judged.personal == {"sex"}
    assert {key.segment for key in measured(Watched(fairness=COLUMNS), judged)} == {""}
    shown = measured(Watched(fairness=COLUMNS, personal=True), judged)
    assert "Person.age_band=old and sex=f" in {key.segment for key in shown}


def test_one_declared_column_that_is_a_segment_is_counted_once() -> None:
    watched = Watched(segments=("Person.age_band",), fairness=("Person.age_band",))
    found = group_counts(measured(watched), ("Person.age_band",), {})["1", ""]
    assert found.cells.sum() == ROWS


def test_the_values_of_a_segment_are_read_back() -> None:
    assert groups_of("a=1 and b=x and y", ("a", "b")) == ("1", "x and y")
    assert groups_of("a=1", ("a", "b")) is None
    assert groups_of("", ("a",)) is None
    assert groups_of("aa=1", ("a",)) is None


def test_very_many_combinations_are_one() -> None:
    features = [{"Person.age_band": str(row % 30)} for row in range(900)]
    ledger = MemoryLedger()
    ledger.append([prediction(row, row, features=features[row], request={"sex": str(row // 30)}) for row in range(900)])
    ledger.compact()
    watched = Watched(fairness=COLUMNS)
    measuring = Measuring(None, lambda _: Judged.of(bundle()), watched, DAY)
    arrived = ledger.arrivals("late", 0, columns=watched.columns)
    assert arrived is not None
    for batch in arrived.batches:
        measuring.add(batch.select(watched.columns))
    segments = {key.segment: sums["predictions"] for key, sums in measuring.sums.items() if key.segment}
    assert len(segments) == 201
    assert segments["Person.age_band=(other) and sex=(other)"] == 700


@pytest.fixture(scope="module")
def project() -> Project:
    found = populated()
    found.predictions.compact()
    return found


def test_an_endpoints_groups_by_declared_columns_or_others(project: Project) -> None:
    by = ["Schedule.carrier", "origin"]
    found = live_fairness(project, "late-arrival", by=by, least_rows=20)
    (version,) = found.versions
    assert (version.version, version.threshold, version.rows) == ("2", 0.5, 228)
    alone, _, both = version.reports
    assert [each.by for each in version.reports] == [("Schedule.carrier",), ("origin",), tuple(by)]
    carriers = {each.group["Schedule.carrier"]: each.rows for each in alone.groups}
    assert carriers == dict.fromkeys(("UA", "B6", "DL", "EV"), 57)
    assert len(both.groups) == 12
    rates = {each.group["Schedule.carrier"]: each.measures for each in alone.groups}
    assert rates["UA"][SELECTION].value is not None
    assert rates["UA"][TPR].rows == 57  # each of its flights is late, and none of the others'
    assert rates["B6"][TPR].rows == 0
    assert rates["B6"][CALIBRATION].low is None or rates["B6"][CALIBRATION].low >= 0
    assert [window.by for window in version.over_time][:3] == [("Schedule.carrier",), ("origin",), tuple(by)]
    with pytest.raises(Invalid, match="declares no groups"):
        live_fairness(project, "late-arrival")
    with pytest.raises(NotFound):
        live_fairness(project, "nobody", by=by)

    monitor = ms.Monitor("late-arrival", fairness=by)
    declared = project.having(
        definitions=replace(definitions(), monitors={"late-arrival": monitor}), clock=project.clock
    )
    again = live_fairness(declared, "late-arrival", least_rows=20)  # nothing is in the table yet
    assert again.versions == found.versions
    past = live_fairness(declared, "late-arrival", until=DAY)
    assert past.versions == ()


def test_a_report_is_json(project: Project) -> None:
    found = live_fairness(project, "late-arrival", by=["origin"])
    assert msgspec.json.decode(msgspec.json.encode(found))["by"] == ["origin"]


@pytest.mark.parametrize("wrong", ["sex", [3], None])
def test_columns_are_names(wrong: Any) -> None:
    with pytest.raises(Invalid):
        ms.Monitor("late", fairness=wrong)
