"""The quality table against metrics of the rows, as predictions and labels arrive in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, mean_absolute_error, ndcg_score, roc_auc_score

from kit.worlds import arrivals, bundle, label, prediction, sketching
from mainspring.core.errors import NotFound, StorageFull
from mainspring.core.expr import col
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import String
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.model import Source, TableScan
from mainspring.data.ports import LakeTables
from mainspring.features.definitions import dump
from mainspring.features.model import Entity, Observations
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Prediction
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.adapters.memory import MemorySketches
from mainspring.monitoring.figures import empty_window
from mainspring.monitoring.model import LabelRows, Window
from mainspring.monitoring.quality.business import BusinessTable
from mainspring.monitoring.quality.declared import Forecast, Ranking
from mainspring.monitoring.quality.measuring import Watched
from mainspring.monitoring.quality.reports import estimated, measured
from mainspring.monitoring.quality.sql_metrics import sql_metric
from mainspring.monitoring.quality.table import CROSSED, TABLE, Key, QualityTable
from mainspring.monitoring.quality.updating import QualityUpdates
from mainspring.monitoring.window_updates import WindowUpdates
from mainspring.project.catalog import memory_catalog
from mainspring.registry.model import Bundle
from mainspring.stats.quality_figures import auc_resolution, figures
from mainspring.stats.quality_sums import PLACE, Sums
from mainspring.stats.reference import profile
from mainspring.stats.thresholds import THRESHOLD

pytestmark = pytest.mark.slow


class World:
    def __init__(
        self,
        *bundles: Bundle,
        watched: Watched | None = None,
        window_us: int = DAY,
        lake: LakeTables | None = None,
    ) -> None:
        self.sketches, self.lake, self.clock = MemorySketches(), lake or MemoryLake(), ManualClock(0)
        self.ledger = MemoryLedger(sketching(self.sketches, self._load, slot_us=math.gcd(HOUR, window_us)))
        self.monitors = CatalogMonitors(memory_catalog())
        self.labels: LabelRows | None = None
        self.table, self.business = QualityTable(self.lake), BusinessTable(self.lake)
        self.crossed = QualityTable(self.lake, CROSSED)
        self._bundles = {each.digest: each for each in bundles or (bundle(),)}
        common: dict[str, Any] = {"labels": lambda _: self.labels, "load": self._load}
        self.monitor = WindowUpdates(
            self.ledger, self.monitors, self.sketches, clock=self.clock, window_us=window_us, **common
        )
        self.updates = QualityUpdates(
            self.ledger, self.monitors, self.table, self.crossed, self.business,
            clock=self.clock, locks=MemoryLocks(), window_us=window_us, watched=lambda _: watched or Watched(),
            **common,
        )  # fmt: skip

    def _load(self, digest: str) -> Bundle:
        if digest not in self._bundles:
            raise NotFound(f"There is no bundle {digest}.")
        return self._bundles[digest]

    def predict(self, predictions: Sequence[Prediction]) -> None:
        self.ledger.append(predictions)
        self.ledger.compact()

    def run(self, now: int) -> int:
        self.clock.set(now)
        self.monitor.run("late")
        return len(self.updates.run("late"))

    def sums(self, **wanted: Any) -> Sums:
        """Return the sums of the keys with these parts, by default of all traffic."""
        wanted = {"segment": "", **wanted}
        found = Sums.nothing()
        for key, sums in self.table.sums("late", 0, 2**60).items():
            if all(getattr(key, name) == value for name, value in wanted.items()):
                found += sums
        return found


def flights(rows: int, seed: int = 1, **changes: Any) -> tuple[list[Prediction], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.random(rows)
    late = rng.random(rows) < score
    made = [
        prediction(
            i, i * 2 * DAY // rows, float(score[i]), features={"View.carrier": "UA" if i % 3 else "AA"}, **changes
        )
        for i in range(rows)
    ]
    return made, late, score


def test_quality_is_that_of_the_rows_by_version_hour_and_segment() -> None:
    world = World(bundle(), bundle(digest="d2"), watched=Watched(("View.carrier",)))
    made, late, score = flights(600)
    made[300:] = [msgspec.structs.replace(each, version="2", digest="d2") for each in made[300:]]
    world.predict(made)
    world.labels = arrivals([label(f"f{i}", bool(late[i]), made[i].at + 30 * MINUTE) for i in range(600)])
    world.run(3 * DAY)

    chosen: list[tuple[Any, dict[str, Any]]] = [
        (slice(0, 300), {"version": "1"}),
        (slice(300, 600), {"version": "2", "digest": "d2"}),
        (slice(0, 13), {"hour": 0}),
        (slice(0, 600, 3), {"segment": "View.carrier=AA"}),
    ]
    for rows, wanted in chosen:
        found = figures("binary", [world.sums(**wanted)])
        assert found["brier"].value == pytest.approx(brier_score_loss(late[rows], score[rows]))
        assert found["log_loss"].value == pytest.approx(log_loss(late[rows], score[rows]))
        off = abs(found["auc"].value - roc_auc_score(late[rows], score[rows]))
        assert off <= min(0.25, float(auc_resolution(world.sums(**wanted).bins)))
    assert world.sums()["predictions"] == 600
    assert world.sums(segment="View.carrier=UA")["predictions"] == 400


def test_labels_that_come_later_or_change_are_the_same_as_if_they_had_come_at_once() -> None:
    made, late, score = flights(400)
    times = [each.at + (1 + 7 * (i % 5)) * HOUR for i, each in enumerate(made)]
    whole = [label(f"f{i}", bool(late[i]), times[i]) for i in range(400)]
    slow, at_once = World(), World()
    slow.labels = arrivals([])
    for day in range(5):
        slow.predict([each for each in made if day * DAY <= each.at < (day + 1) * DAY])
        slow.labels = arrivals([row for row, at in zip(whole, times, strict=True) if at < (day + 1) * DAY])
        slow.run((day + 1) * DAY)
    at_once.predict(made)
    at_once.labels = arrivals(whole)
    at_once.run(5 * DAY)
    left, right = (world.table.sums("late", 0, 2**60) for world in (slow, at_once))
    assert left.keys() == right.keys()
    for key, sums in left.items():
        assert np.allclose(sums.totals, right[key].totals, atol=1e-9)
        assert np.allclose(sums.bins, right[key].bins, atol=1e-9)
    found = figures("binary", [slow.sums()])["brier"]
    assert found.value == pytest.approx(brier_score_loss(late, score))
    assert slow.run(5 * DAY + 1) <= 2  # settled windows are left alone


def test_quality_by_the_age_at_which_labels_were_known() -> None:
    world = World()
    made, late, score = flights(300)
    world.predict(made)
    lags = [(10 * MINUTE, 2 * HOUR, 4 * DAY)[i % 3] for i in range(300)]
    world.labels = arrivals([label(f"f{i}", bool(late[i]), made[i].at + lags[i]) for i in range(300)])
    world.run(10 * DAY)
    ages = {key.age_s for key in world.table.sums("late", 0, 2**60)}
    assert ages == {0, 15 * 60, 3 * 3600, 7 * 86400}
    early = figures("binary", [world.sums(age_s=15 * 60)])["brier"]
    assert early.value == pytest.approx(brier_score_loss(late[::3], score[::3]))


def test_repeated_and_contradicting_labels_are_counted_and_the_newest_known_counts() -> None:
    world = World()
    made, late, _ = flights(6)
    world.predict(made)
    rows = [label(f"f{i}", bool(late[i]), made[i].at + HOUR, landed=1) for i in range(6)]
    rows += [label("f0", bool(late[0]), made[0].at + 2 * HOUR, landed=2)]
    rows += [label("f1", not late[1], made[1].at + 2 * HOUR, landed=2)]
    world.labels = arrivals(rows)
    world.run(10 * DAY)
    sums = world.sums()
    assert (sums["labels"], sums["repeated"], sums["contradicted"]) == (6, 2, 1)
    assert sums["label"] == late.sum() - late[1] + (not late[1])


def test_decisions_at_the_threshold_of_the_bundle() -> None:
    made, late, score = flights(200)
    decided = bundle()
    extra = {THRESHOLD: {"value": 0.7, "false_positive": 1.0, "false_negative": 1.0}}
    manifest = msgspec.structs.replace(decided.manifest, extra=extra)
    world = World(Bundle("d1", manifest, {}))
    world.predict(made)
    world.labels = arrivals([label(f"f{i}", bool(late[i]), made[i].at + HOUR) for i in range(200)])
    world.run(10 * DAY)
    flagged = score >= 0.7
    assert world.sums()["flagged"] == flagged.sum()
    assert figures("binary", [world.sums()])["precision"].value == pytest.approx((late & flagged).sum() / flagged.sum())


def test_several_classes_by_their_outputs() -> None:
    rng = np.random.default_rng(3)
    names = ("weather", "crew", "traffic")
    classes = rng.dirichlet([1, 1, 1], 200)
    place = np.array([rng.choice(3, p=row) for row in classes])
    kind = bundle(task="multiclass")
    world = World(Bundle("d1", msgspec.structs.replace(kind.manifest, outputs=names), {}))
    world.predict([prediction(i, i, outputs=dict(zip(names, map(float, classes[i]), strict=True))) for i in range(200)])
    rows = [label(f"f{i}", None, HOUR) | {"why": names[place[i]]} for i in range(200)]
    world.labels = arrivals(rows, "why")
    world.run(10 * DAY)
    found = figures("multiclass", [world.sums()])
    assert found["accuracy"].value == pytest.approx(accuracy_score(place, classes.argmax(axis=1)))
    assert found["log_loss"].value == pytest.approx(log_loss(place, classes))


def test_several_labels_have_quality_and_estimates_each() -> None:
    rng = np.random.default_rng(6)
    rows, names = 2_000, ("delay", "late")
    scores = rng.normal(size=(rows, 2))
    truth = np.stack([(scores[:, 0] + rng.normal(0, 2, rows)).astype(np.float32), scores[:, 1] > 0], axis=1)
    kind = bundle(task="regression")
    manifest = msgspec.structs.replace(kind.manifest, outputs=names, metrics={"mae": 9.0, "mae.delay": 2.0})
    reference = profile({name: scores[:, place] for place, name in enumerate(names)})
    world = World(Bundle("d1", manifest, {"reference.json": msgspec.json.encode(reference)}))
    made = [
        prediction(i, i * 20 * DAY // rows, outputs=dict(zip(names, map(float, scores[i]), strict=True)))
        for i in range(rows)
    ]
    world.predict(made)
    known = [
        label(f"f{i}", bool(truth[i, 1]), each.at + HOUR) | {"delay": float(truth[i, 0])}
        for i, each in enumerate(made)
        if each.at < 18 * DAY
    ]
    world.labels = replace(arrivals(known, "delay"), others=(arrivals(known),))
    world.run(20 * DAY)
    sums = world.table.sums("late", 0, 2**60)
    parts = {part.output: part for part in measured(sums, 0, DAY, 20 * DAY)}
    assert {part.predictions for part in parts.values()} == {100}
    errors = np.abs(scores - truth)
    for place, name in enumerate(names):
        assert parts[name].figures["mae"].value == pytest.approx(errors[:100, place].mean())
    days = [(day * DAY, (day + 1) * DAY) for day in range(20)]
    found = estimated(sums, days, 20 * DAY, DAY)
    for place, name in enumerate(names):
        newest = found["1", name, 19 * DAY]["mae"]
        assert newest.value == pytest.approx(errors[1_900:, place].mean(), rel=0.1)
        assert newest.low is not None
        assert newest.low < errors[1_900:, place].mean() < (newest.high or 0.0)
    assert world.sums()["predictions"] == rows  # in SQL too: a label's own row has scores only
    capped = sum(each["capped"] for key, each in sums.items() if key.output == "delay")
    assert capped == pytest.approx(np.minimum(errors[:1_800, 0], 20.0).sum())  # by the label's own held-out error


def test_forecasts_by_horizon_with_a_naive_one() -> None:
    rng = np.random.default_rng(4)
    truth, score, last = (rng.normal(size=240).astype(np.float32).astype(float) for _ in range(3))
    world = World(
        bundle(task="regression"), watched=Watched(forecast=Forecast("days", naive="View.last", quantile=0.5))
    )
    world.predict(
        [
            prediction(
                i, i, float(score[i]), keys={"flight": f"f{i}", "days": i % 3}, features={"View.last": float(last[i])}
            )
            for i in range(240)
        ]
    )
    world.labels = arrivals([label(f"f{i}", None, HOUR) | {"delay": float(truth[i])} for i in range(240)], "delay")
    world.run(10 * DAY)
    for days in range(3):
        found = figures("regression", [world.sums(segment=f"days={days}")])
        error = mean_absolute_error(truth[days::3], score[days::3])
        assert found["mae"].value == pytest.approx(error)
        assert found["mase"].value == pytest.approx(error / mean_absolute_error(truth[days::3], last[days::3]))
        assert found["quantile_loss"].value == pytest.approx(error / 2)


def test_rankings_by_group() -> None:
    world = World(watched=Watched(ranking=Ranking("query", k=5)))
    made, late, score = flights(200)
    world.predict(
        [msgspec.structs.replace(each, keys={"flight": f"f{i}", "query": f"q{i // 10}"}) for i, each in enumerate(made)]
    )
    world.labels = arrivals([label(f"f{i}", bool(late[i]), made[i].at + HOUR) for i in range(200)])
    world.run(10 * DAY)
    found = figures("binary", [world.sums()])
    assert found["ndcg"].value == pytest.approx(ndcg_score(late.reshape(-1, 10), score.reshape(-1, 10), k=5))


def test_business_metrics_are_those_of_each_window_and_version_with_the_newest_labels() -> None:
    metrics = (
        sql_metric("late", "SELECT count(*) FROM predictions WHERE label = 1 AND lag_s >= 3600"),
        sql_metric("waiting", "SELECT count(*) FROM predictions WHERE label IS NULL"),
        sql_metric("wrong", "SELECT nothing FROM predictions"),
    )
    world = World(bundle(), bundle(digest="d2"), watched=Watched(metrics=metrics))
    made, late, _ = flights(200)
    made[150:] = [msgspec.structs.replace(each, version="2", digest="d2") for each in made[150:]]
    world.predict(made)
    first = [label(f"f{i}", bool(late[i]), made[i].at + HOUR) for i in range(120)]
    world.labels = arrivals(first)
    world.run(3 * DAY)
    found = world.business.newest("late", 0)
    assert set(found) == {(0, DAY, "1"), (DAY, 2 * DAY, "1"), (DAY, 2 * DAY, "2")}
    assert found[0, DAY, "1"]["late"].value == late[:100].sum()
    assert found[DAY, 2 * DAY, "2"]["waiting"].value == 50
    assert "nothing" in found[0, DAY, "1"]["wrong"].error
    world.labels = arrivals([*first, *(label(f"f{i}", True, 3 * DAY + HOUR) for i in range(120, 200))])
    world.run(4 * DAY)
    again = world.business.newest("late", 0)
    assert again[DAY, 2 * DAY, "2"]["waiting"].value == 0
    assert again[DAY, 2 * DAY, "1"]["late"].value == late[100:120].sum() + 30


def test_windows_shorter_than_an_hour_and_a_changed_length_count_each_prediction_once() -> None:
    world = World(window_us=10 * MINUTE)
    made, late, score = flights(100)
    made = [msgspec.structs.replace(each, at=i * MINUTE) for i, each in enumerate(made)]
    world.predict(made)
    world.labels = arrivals([label(f"f{i}", bool(late[i]), made[i].at + HOUR) for i in range(100)])
    world.run(DAY)
    assert world.sums()["predictions"] == 100
    assert figures("binary", [world.sums()])["brier"].value == pytest.approx(brier_score_loss(late, score))


def test_a_version_without_its_bundle_is_counted_and_not_measured() -> None:
    world = World()
    made, late, _ = flights(20)
    made[12:] = [msgspec.structs.replace(each, version="2", digest="gone") for each in made[12:]]
    world.predict(made)
    world.labels = arrivals([label(f"f{i}", bool(late[i]), made[i].at + HOUR) for i in range(20)])
    world.updates.run("late")  # nothing has been watched yet
    world.clock.set(3 * DAY)
    world.monitors.save(windows := [_window(day) for day in range(2)])
    assert world.updates.run("late") == windows
    assert (world.sums()["predictions"], world.sums()["labels"]) == (20, 12)


def _window(day: int) -> Window:
    return msgspec.structs.replace(empty_window("late", day * DAY, (day + 1) * DAY, 3 * DAY), predictions=10)


def test_a_million_segments_are_at_most_65() -> None:
    world = World(watched=Watched(("flight",)))
    made, _, _ = flights(300)
    world.predict(made)
    world.run(10 * DAY)
    segments = {key.segment for key in world.table.sums("late", 0, DAY)}
    assert len(segments) == 1 + 64 + 1
    assert "flight=(other)" in segments


def test_the_table_is_read_by_sql_alone() -> None:
    world = World()
    made, late, score = flights(100)
    world.predict(made)
    first = [label(f"f{i}", bool(late[i]), made[i].at + HOUR) for i in range(50)]
    world.labels = arrivals(first)
    world.run(3 * DAY)
    world.labels = arrivals([*first, *(label(f"f{i}", bool(late[i]), 3 * DAY + HOUR) for i in range(50, 100))])
    world.run(4 * DAY)
    rows = world.lake.scan(TABLE).rows
    with duckdb.connect() as connection:
        connection.register("predictions__quality", rows)
        (found,) = connection.sql(
            "SELECT version, sum(labels), sum(squared) / sum(scored) FROM predictions__quality "
            "WHERE version <> '' AND segment = '' GROUP BY version"
        ).fetchall()
    assert found == ("1", 100, pytest.approx(brier_score_loss(late, score)))


def test_a_key_is_one_row_after_another_and_a_second_write_of_it_is_none() -> None:
    table, key = QualityTable(MemoryLake()), Key("1", "d1", 0, "", "", 0, "binary")
    one = Sums.nothing()
    one.totals[0] = 3.0
    for _ in range(2):
        table.add("late", {0: 7}, {0: {key: one}}, "same")
    assert table.sums("late", 0, HOUR)[key]["predictions"] == 3.0
    assert table.looked("late", 0) == {0: 7}
    assert table.sums("other", 0, HOUR) == {}


class Busy(MemoryLake):
    """A lake in which a window is added to a table right after it was looked at."""

    def scan(self, table: str, version: int | None = None) -> TableScan:
        found = super().scan(table, version)
        QualityTable(self).add("late", {1: 7}, {1: {Key("2", "d1", 0, "", "", 0, "binary"): _one()}}, "later")
        return found


def _one() -> Sums:
    one = Sums.nothing()
    one.totals[0] = one.bins[0, 0] = 1.0
    return one


def test_sums_are_of_one_version_of_the_table_while_another_process_writes() -> None:
    lake, key = Busy(), Key("1", "d1", 0, "", "", 0, "binary")
    QualityTable(lake).add("late", {0: 7}, {0: {key: _one()}}, "first")
    assert set(QualityTable(lake).sums("late", 0, HOUR)) == {key}


@pytest.mark.parametrize("kind", [MemoryLake, DeltaLake])
def test_folding_a_day_changes_no_sum_and_no_look(kind: type, tmp_path: Path) -> None:
    world = World(watched=Watched(("View.carrier",)), lake=kind(*([tmp_path] if kind is DeltaLake else [])))
    made, late, _ = flights(200)
    world.predict(made)
    rows = [label(f"f{i}", bool(late[i]), made[i].at + (1 + i % 30) * HOUR) for i in range(200)]
    for hour in range(24, 60, 12):
        world.labels = arrivals([row for i, row in enumerate(rows) if made[i].at + (1 + i % 30) * HOUR < hour * HOUR])
        world.run(hour * HOUR)
    before, looked = world.table.sums("late", 0, 2**60), world.table.looked("late", 0)
    many = world.lake.describe(TABLE).rows
    world.table.fold(7 * DAY)  # the first day
    world.table.fold(7 * DAY)
    assert world.lake.describe(TABLE).rows < many
    after = world.table.sums("late", 0, 2**60)
    assert after.keys() == before.keys()
    assert all(np.allclose(after[key].totals, before[key].totals, atol=1e-9) for key in before)
    assert all(np.allclose(after[key].bins, before[key].bins, atol=1e-9) for key in before)
    assert world.table.looked("late", 0) == looked


def test_what_is_computed_from_the_table_is_kept_until_it_changes() -> None:
    world = World()
    made, _, _ = flights(20)
    calls = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    assert [world.table.derived("n", "late", 1, count) for _ in range(2)] == [1, 1]
    assert world.table.derived("n", "late", 2, count) == 2
    world.predict(made)
    world.run(3 * DAY)
    assert world.table.derived("n", "late", 2, count) == 3


def test_it_runs_when_five_minutes_have_passed_or_the_clock_went_back() -> None:
    world = World()
    made, _, _ = flights(30)
    found = []
    for number, now in enumerate((3 * DAY, 3 * DAY + MINUTE, 3 * DAY + 6 * MINUTE, 3 * DAY + 5 * MINUTE)):
        world.predict(made[10 * number : 10 * (number + 1)])
        world.clock.set(now)
        world.monitor.run("late")
        world.updates.run_if_due("late")
        found.append(world.sums()["predictions"])
    assert found == [10, 10, 30, 30]


def crossed_bundle(**files: bytes) -> Bundle:
    carrier, hour = ["UA", "AA"] * 32, [float(i) for i in range(64)]
    reference = profile({"View.carrier": carrier, "carrier": carrier, "View.hour": hour})
    reference = msgspec.structs.replace(reference, crossed=("carrier", "View.carrier", "View.hour"))
    made = bundle(reference)
    return Bundle(made.digest, made.manifest, {**made.files, **files})


def crossed_world(*bundles: Bundle, **options: Any) -> World:
    return World(*(bundles or (crossed_bundle(),)), watched=Watched(crossed=True), **options)


def with_hours(made: list[Prediction]) -> list[Prediction]:
    return [
        msgspec.structs.replace(each, features={**each.features, "View.hour": float(i % 64), "carrier": "UA"})
        for i, each in enumerate(made)
    ]


def by_segment(world: World) -> dict[tuple[int, str], np.ndarray]:
    """Return day and segment -> the totals, without those that are rounding alone."""
    found: dict[tuple[int, str], np.ndarray] = {}
    for key, sums in world.crossed.sums("late", 0, 2**60).items():
        place = key.hour // DAY, key.segment
        found[place] = found.get(place, 0.0) + sums.totals
    return found


@pytest.mark.parametrize("window_us", [DAY, 6 * HOUR])
def test_bins_and_their_pairs_have_the_sums_of_their_rows_however_late_labels_come(window_us: int) -> None:
    made, late, score = flights(400)
    made = with_hours(made)
    times = [each.at + (1 + 5 * (i % 6)) * HOUR for i, each in enumerate(made)]  # some later than the horizon, a day
    labels = [label(f"f{i}", bool(late[i]), times[i]) for i in range(400)]
    world = crossed_world(window_us=window_us)
    for first, end in ((0, 1), (1, 5)):
        world.predict([each for each in made if first * DAY <= each.at < end * DAY])
        world.labels = arrivals([row for row, at in zip(labels, times, strict=True) if at < end * DAY])
        world.run(end * DAY)
    known = np.array([at - each.at <= DAY for each, at in zip(made, times, strict=True)])
    of_day, i = np.array([each.at // DAY for each in made]), np.arange(400)
    found = by_segment(world)
    last = next(segment for _, segment in found if segment.startswith("View.hour=over"))
    assert {day for day, _ in found} == {0, 1}
    for day in (0, 1):
        for segment, of in (
            ("View.carrier=AA", i % 3 == 0),
            (f"View.carrier=UA and {last}", (i % 3 > 0) & (i % 64 >= 48)),
        ):
            mine = known & of & (of_day == day)
            assert found[day, segment][PLACE["scored"]] == mine.sum()
            assert found[day, segment][PLACE["squared"]] == pytest.approx(((score - late)[mine] ** 2).sum())
    version = world.lake.version(CROSSED)
    world.monitors.save([msgspec.structs.replace(each, computed_at=6 * DAY) for each in world.monitors.windows("late")])
    world.run(6 * DAY)  # everything is measured again
    assert world.lake.version(CROSSED) == version


def test_bins_are_written_once_if_an_update_is_killed_before_the_other_table() -> None:
    class Full(MemoryLake):
        full = True

        def append(self, table: str, *args: Any, **options: Any) -> int | None:
            if self.full and table == TABLE:
                raise StorageFull("No space left.")
            return super().append(table, *args, **options)

    lake = Full()
    world = crossed_world(lake=lake)
    made, late, _ = flights(100)
    world.predict(with_hours(made))
    world.labels = arrivals([label(f"f{i}", bool(late[i]), made[i].at + HOUR) for i in range(100)])
    with pytest.raises(StorageFull):
        world.run(3 * DAY)
    lake.full = False
    world.run(3 * DAY)
    assert (
        sum(totals[PLACE["labels"]] for (_, name), totals in by_segment(world).items() if name == "View.carrier=AA")
        == 34
    )
    assert world.sums()["labels"] == 100


def test_personal_features_and_bundles_without_noted_features_have_no_bins() -> None:
    made, late, _ = flights(100)
    views = Source("views", schema={"flight": String, "carrier": String}, event_time="at", pii=["carrier"])
    observations = Observations(views, keys=[Entity("flight", keys={"flight": String})], at=col("at"))
    for made_by, features in (
        (bundle(), set()),
        (bundle(profile({"View.carrier": ["UA", "AA"]})), set()),
        (crossed_bundle(**{"features.json": dump([], observations)}), {"View.carrier", "View.hour"}),
        (crossed_bundle(), {"carrier", "View.carrier", "View.hour"}),
    ):
        world = crossed_world(made_by)
        world.predict(with_hours(made))
        world.labels = arrivals([label(f"f{i}", bool(late[i]), made[i].at + HOUR) for i in range(100)])
        world.run(3 * DAY)
        assert {segment.partition("=")[0] for _, segment in by_segment(world)} == features
        assert world.sums()["labels"] == 100
