"""The monitor over whole windows: what was planted is found, and nothing else; and it keeps up with time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from kit.worlds import arrivals, bundle, label, normal_reference, prediction, sketching
from mainspring.core.errors import NotFound
from mainspring.core.schema import DType
from mainspring.core.time import ManualClock
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.model import Prediction
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.adapters.memory import MemorySketches
from mainspring.monitoring.model import LabelRows, Window
from mainspring.monitoring.sketching import Sketching
from mainspring.monitoring.window_updates import WindowUpdates
from mainspring.project.catalog import memory_catalog
from mainspring.registry.model import Bundle
from mainspring.stats.reference import profile
from mainspring.stats.thresholds import Costs
from mainspring.training.label import Label

pytestmark = pytest.mark.slow

WINDOW = 1_000_000
COLUMNS = [f"View.f{i}" for i in range(12)]


class World:
    """Predictions, labels and bundles that a test changes, and the monitor over them."""

    def __init__(self, *bundles: Bundle, now: int = 0, wait: int = 100 * WINDOW) -> None:
        self.sketches = MemorySketches()
        self.ledger = MemoryLedger(self.observer)
        self.monitors = CatalogMonitors(memory_catalog())
        self.clock = ManualClock(now)
        self.labels: LabelRows | None = None
        self.bundles = {each.digest: each for each in bundles or (bundle(),)}
        self._wait = wait
        self.monitor = self.make()

    @property
    def observer(self) -> Sketching:
        # In slots that are shorter than the windows, as of an hour.
        return sketching(self.sketches, lambda digest: self.bundles[digest], slot_us=WINDOW // 20)

    def make(self, **settings: Any) -> WindowUpdates:
        """Return a monitor that has not looked yet."""
        return WindowUpdates(
            self.ledger,
            self.monitors,
            self.sketches,
            labels=lambda endpoint: self.labels,
            load=self.bundles.__getitem__,
            clock=self.clock,
            window_us=WINDOW,
            label_wait_us=self._wait,
            **settings,
        )

    def predict(self, predictions: Sequence[Prediction]) -> None:
        self.ledger.append(predictions)
        self.ledger.compact()

    def run(self, until: int | None = None) -> list[Window]:
        return self.monitor.run("late", until)

    @property
    def windows(self) -> list[Window]:
        return self.monitors.windows("late")


Features = Callable[[np.random.Generator, int, int], dict[str, Any]]


def steady(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
    """Columns as the reference has them."""
    columns: dict[str, Any] = {name: rng.normal(size=rows) for name in COLUMNS}
    return {**columns, "View.kind": rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]), "score": rng.random(rows)}


def traffic(windows: int, rows: int, make: Features, seed: int = 1, **changes: Any) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    made = []
    for window in range(windows):
        columns = {name: values.tolist() for name, values in make(rng, window, rows).items()}
        scores = columns.pop("score")
        for row in range(rows):
            features = {name: values[row] for name, values in columns.items()}
            number = window * rows + row
            at = window * WINDOW + row * WINDOW // rows
            made.append(prediction(number, at, scores[row], features=features, **changes))
    return made


REFERENCE = normal_reference(COLUMNS, np.random.default_rng(0))


def drifted(window: Window) -> set[str]:
    return {each.column for each in window.columns if each.drifted}


def alerts(window: Window) -> set[str]:
    return {each.column for each in window.columns if each.alert}


def test_a_planted_shift_is_found_in_exactly_the_planted_columns() -> None:
    def shifted(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
        columns = steady(rng, window, rows)
        if window >= 2:
            columns["View.f3"] = columns["View.f3"] + 0.25
            columns["View.f7"] = columns["View.f7"] * 1.6
            columns["View.kind"] = rng.choice(["a", "b", "new"], rows, p=[0.4, 0.4, 0.2])
        return columns

    world = World(bundle(REFERENCE), now=5 * WINDOW)
    world.predict(traffic(5, 1500, shifted))
    windows = world.run()

    planted = {"View.f3", "View.f7", "View.kind"}
    assert [drifted(window) for window in windows] == [set(), set(), planted, planted, planted]
    # One window is not news; two in a row are.
    assert [alerts(window) for window in windows] == [set(), set(), set(), planted, planted]
    by_name = {each.column: each for each in windows[3].columns}
    assert by_name["View.f3"].shift_sd == pytest.approx(0.25, abs=0.08)
    assert by_name["View.f7"].shift_sd == pytest.approx(0.0, abs=0.08)
    assert by_name["View.kind"].shift_sd is None
    assert by_name["View.kind"].ks == pytest.approx(0.3, abs=0.05)  # a: .6 -> .4, c: .1 -> 0, new: 0 -> .2
    assert [window.score is not None and window.score.drifted for window in windows] == [False] * 5


def test_quality_counts_predictions_whose_labels_have_matured() -> None:
    """Labels settle after three windows. Those that arrive early say nothing yet; later the silent ones are false."""
    world = World(bundle(), now=2 * WINDOW, wait=2 * WINDOW)
    world.predict([prediction(number, at=number * WINDOW // 4, score=number / 4) for number in range(4)])
    early = label("f3", True, WINDOW)

    def known(*rows: dict[str, Any]) -> LabelRows:
        landed = arrivals(rows)
        scan = replace(landed.scan, version=len(rows))
        return replace(landed, label=Label(landed.label, matures=3 * WINDOW, otherwise=False), scan=scan)

    world.labels = known(early)
    world.run()
    assert (world.windows[0].labels, world.windows[0].quality) == (0, {})
    world.clock.set(5 * WINDOW)
    world.run()
    assert world.windows[0].labels == 0  # no label row since says that the others have none
    world.labels = known(early, label("other", True, 4 * WINDOW), label("f0", True, 4 * WINDOW + 1))
    world.run()
    first = world.windows[0]
    assert (first.start, first.labels, first.coverage) == (0, 4, 1.0)
    assert first.quality["auc"] == 1.0  # f0 was found after its maturity: it counts as it was settled, false


def test_without_drift_there_is_no_alert() -> None:
    world = World(bundle(REFERENCE), now=40 * WINDOW)
    world.predict(traffic(40, 300, steady))
    windows = world.run()
    assert len(windows) == 40
    assert all(len(window.columns) == len(COLUMNS) + 1 for window in windows)
    assert [alerts(window) for window in windows] == [set()] * 40


def test_the_score_has_a_drift_of_its_own() -> None:
    def bolder(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
        return {**steady(rng, window, rows), "score": rng.random(rows) ** 0.5}

    world = World(bundle(REFERENCE), now=2 * WINDOW)
    world.predict(traffic(2, 1500, bolder))
    first, second = world.run()
    assert first.score is not None
    assert second.score is not None
    assert (first.score.drifted, first.score.alert) == (True, False)
    assert (second.score.drifted, second.score.alert) == (True, True)
    assert drifted(second) == set()
    assert second.score.column == "probability"
    assert (second.drifted, second.alerts, len(second.judged)) == (
        ["probability"],
        ["probability"],
        len(second.columns) + 1,
    )
    assert "probability" not in {each.column for each in second.columns}


def test_a_class_is_no_feature_that_went_missing() -> None:
    """The reference has every output; the log's score is the first of them, and the log lacks the others."""
    reference = normal_reference(COLUMNS, np.random.default_rng(0))
    reference.columns["other class"] = reference.columns["probability"]
    world = World(bundle(reference, task="multiclass"), now=WINDOW)
    world.predict(traffic(1, 500, steady))
    (window,) = world.run()
    assert {each.column for each in window.columns} == {*COLUMNS, "View.kind"}
    assert drifted(window) == set()


def test_a_column_that_goes_missing_drifts() -> None:
    def lost(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
        columns = steady(rng, window, rows)
        columns["View.f1"] = np.where(rng.random(rows) < 0.3, None, columns["View.f1"])
        del columns["View.f2"]
        return columns

    world = World(bundle(REFERENCE), now=WINDOW)
    world.predict(traffic(1, 1500, lost))
    (window,) = world.run()
    assert drifted(window) == {"View.f1", "View.f2"}
    shares = {each.column: each.null_share for each in window.columns}
    assert shares["View.f1"] == pytest.approx(0.3, abs=0.04)
    assert shares["View.f2"] == 1.0
    assert shares["View.f3"] == 0.0


def test_a_personal_feature_that_is_left_out_of_the_log_is_not_judged() -> None:
    world = World(bundle(REFERENCE), now=WINDOW)

    def known(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
        columns = steady(rng, window, rows)
        del columns["View.f2"]
        return columns

    made = traffic(1, 1500, known)
    world.predict([msgspec.structs.replace(each, personal=("View.f2",)) for each in made])
    (window,) = world.run()
    assert drifted(window) == set()
    assert "View.f2" not in {each.column for each in window.columns}
    assert "View.f1" in {each.column for each in window.columns}


def test_the_same_values_in_another_precision_are_no_drift() -> None:
    """Training sees float32 and "" as null; a client may send 0.1, and the log has what was sent."""
    rng = np.random.default_rng(4)
    tenths = rng.integers(0, 5, 20_000)
    kinds = rng.choice(["a", ""], 20_000)
    reference = profile(
        {
            "View.tenth": (tenths / 10).astype(np.float32),
            "View.kind": np.where(kinds == "", None, kinds).astype(np.object_),
        }
    )
    world = World(bundle(reference, dtype=DType.Float32), now=WINDOW)
    world.predict(
        [
            prediction(i, i, features={"View.tenth": int(tenths[i]) / 10, "View.kind": str(kinds[i])})
            for i in range(2_000)
        ]
    )
    (window,) = world.run()
    assert drifted(window) == set()
    assert {each.column: round(each.null_share, 1) for each in window.columns} == {"View.tenth": 0.0, "View.kind": 0.5}


def test_too_few_predictions_are_not_judged_and_passed_over() -> None:
    def shifted(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
        columns = steady(rng, window, rows)
        return {**columns, "View.f0": columns["View.f0"] + 2}

    world = World(bundle(REFERENCE), now=3 * WINDOW)
    made = traffic(3, 500, shifted)
    world.predict([each for each in made if each.at < WINDOW or each.at >= 2 * WINDOW] + made[500:510])
    first, second, third = world.run()
    assert second.predictions == 10
    assert second.columns == ()
    assert (alerts(first), alerts(third)) == (set(), {"View.f0"})


def test_live_quality_is_what_scikit_learn_says() -> None:
    rng = np.random.default_rng(3)
    truth, scores = rng.random(400) < 0.3, np.round(rng.random(400), 2)  # with ties
    world = World(now=WINDOW)
    world.predict([prediction(i, at=i, score=float(scores[i])) for i in range(400)])
    world.labels = arrivals([label(f"f{i}", bool(truth[i]), 1000 + i) for i in range(0, 400, 2)])
    (window,) = world.run()
    assert window.quality["auc"] == pytest.approx(roc_auc_score(truth[::2], scores[::2]), abs=1e-12)
    assert window.quality["brier"] == pytest.approx(brier_score_loss(truth[::2], scores[::2]), abs=1e-12)
    assert (window.labels, window.coverage, window.lag_p50_s) == (200, 0.5, 0.001)


def test_a_version_is_judged_by_what_it_recorded_and_by_its_threshold() -> None:
    made = bundle()
    manifest = msgspec.structs.replace(
        made.manifest,
        metrics={"auc": 0.9, "recall_at_1": 0.5, "saved": 3.0, "cost": 0.1, "baseline.recall_at_1": 0.1},
        extra={"threshold": Costs(false_positive=1, false_negative=10).recorded(0.6)},
    )
    world = World(Bundle(made.digest, manifest, made.files), now=WINDOW)
    world.predict([prediction(i, at=i, score=score) for i, score in enumerate([0.9, 0.7, 0.5])])
    world.labels = arrivals([label(f"f{i}", late, 1000 + i) for i, late in enumerate([True, False, True])])
    (window,) = world.run()
    assert window.quality["recall_at_1"] == 0.5
    assert window.quality["cost"] == pytest.approx((1 + 10) / 3)
    assert (window.quality["precision"], window.quality["recall"]) == (0.5, 0.5)
    assert "saved" not in window.quality  # a function of the project, which no bundle has


def test_regression_is_judged_by_its_own_metrics() -> None:
    world = World(bundle(task="regression"), now=WINDOW)
    world.predict([prediction(1, at=1, score=10.0), prediction(2, at=2, score=20.0)])
    rows = [{**label(f"f{i}", None, 50), "delay": 13.0} for i in (1, 2)]
    world.labels = arrivals(rows, column="delay")
    (window,) = world.run()
    assert window.quality == {"rmse": pytest.approx(np.sqrt((9 + 49) / 2)), "mae": pytest.approx(5.0)}


def test_one_class_has_no_auc_but_a_brier_score() -> None:
    world = World(now=WINDOW)
    world.predict([prediction(1, at=1, score=0.5), prediction(2, at=2, score=None)])
    world.labels = arrivals([label("f1", True, 50), label("f2", True, 50)])
    (window,) = world.run()
    assert "auc" not in window.quality
    assert window.quality["brier"] == 0.25
    assert window.labels == 2
    assert msgspec.json.decode(msgspec.json.encode(window), type=Window) == window


def test_traffic_latency_and_versions_are_counted() -> None:
    world = World(bundle(), bundle(digest="d2"), now=WINDOW)
    world.predict([prediction(i, at=i, latency_us=(i + 1) * 1000) for i in range(99)])
    world.predict([prediction(99, at=500, version="2", digest="d2", latency_us=100_000)])
    (window,) = world.run()
    assert (window.start, window.end, window.predictions) == (0, WINDOW, 100)
    assert (window.p50_ms, window.p99_ms) == (pytest.approx(50.5, rel=0.05), pytest.approx(99.01, rel=0.05))
    assert window.versions == {"1": 99, "2": 1}


def test_quality_is_that_of_the_version_that_predicted() -> None:
    world = World(bundle(), bundle(digest="d2"), now=WINDOW)
    good = [prediction(i, at=i, score=float(i % 2)) for i in range(60)]
    bad = [prediction(i, at=i, score=1.0 - i % 2, version="2", digest="d2") for i in range(60, 100)]
    world.predict([*good, *bad])
    world.labels = arrivals([label(f"f{i}", i % 2 == 1, 1000 + i) for i in range(100)])
    (window,) = world.run()
    assert {version: made.labels for version, made in window.by_version.items()} == {"1": 60, "2": 40}
    assert {version: made.quality["auc"] for version, made in window.by_version.items()} == {"1": 1.0, "2": 0.0}


def test_each_version_is_compared_with_its_own_reference() -> None:
    far = normal_reference(COLUMNS, np.random.default_rng(5))
    far.columns["View.f0"] = normal_reference(["x"], np.random.default_rng(6)).columns["View.kind"]
    world = World(bundle(REFERENCE), bundle(far, digest="d2"), now=2 * WINDOW)
    made = traffic(2, 400, steady)
    old, new = made[:400], made[400:]
    world.predict([*old, *(msgspec.structs.replace(each, version="2", digest="d2") for each in new[:300]), *new[300:]])
    first, second = world.run()
    assert (first.reference_version, first.reference_rows, drifted(first)) == ("1", 400, set())
    assert (second.reference_version, second.reference_rows, drifted(second)) == ("2", 300, {"View.f0"})


def test_windows_are_aligned_and_silence_is_a_window() -> None:
    world = World(now=int(5.5 * WINDOW))
    world.predict([prediction(1, at=int(1.7 * WINDOW)), prediction(2, at=int(3.2 * WINDOW))])
    windows = world.run()
    assert [(window.start, window.end) for window in windows] == [(i * WINDOW, (i + 1) * WINDOW) for i in range(1, 6)]
    assert [window.predictions for window in windows] == [1, 0, 1, 0, 0]
    assert windows[1].p50_ms is None


def test_a_silence_of_years_is_not_a_million_windows() -> None:
    world = World(now=10**6 * WINDOW)
    world.predict([prediction(1, at=5)])
    windows = world.run()
    assert windows[0].start == 0
    assert 400 < len(windows) < 600
    assert windows[-1].end == 10**6 * WINDOW


def test_nobody_asked_yet() -> None:
    world = World(now=5 * WINDOW)
    assert world.run() == []
    assert world.windows == []


def test_the_same_run_twice_changes_nothing() -> None:
    world = World(bundle(REFERENCE), now=3 * WINDOW)
    world.predict(traffic(3, 200, steady))
    world.labels = arrivals([label(f"f{i}", i % 3 == 0, 2 * WINDOW + i) for i in range(200)])
    world.run()
    before = world.windows
    world.run()
    assert world.windows == before


def test_the_open_window_is_computed_again_and_settled_ones_are_left() -> None:
    world = World(now=WINDOW // 2)
    world.predict([prediction(1, at=10)])
    (window,) = world.run()
    assert window.predictions == 1
    world.predict([prediction(2, at=20), prediction(3, at=WINDOW + 5)])
    world.clock.set(int(1.5 * WINDOW))
    assert [each.predictions for each in world.run()] == [2, 1]
    world.clock.set(4 * WINDOW)
    assert [each.start for each in world.run()] == [0, WINDOW, 2 * WINDOW, 3 * WINDOW]
    world.clock.set(int(4.5 * WINDOW))
    assert [each.start // WINDOW for each in world.run()] == [3, 4]


def test_windows_whose_labels_arrived_since_are_computed_again() -> None:
    world = World(bundle(REFERENCE), now=6 * WINDOW)
    world.predict(traffic(3, 200, steady))
    rows = [label(f"f{i}", i % 3 == 0, 2 * WINDOW + i) for i in range(100)]
    world.labels = arrivals(rows)
    world.run()
    assert [window.labels for window in world.windows] == [100, 0, 0, 0, 0, 0]
    before = world.windows[0]

    world.clock.set(10 * WINDOW)
    world.run()
    world.clock.set(11 * WINDOW)
    untouched = world.windows[0]
    # The rest of the first window's labels, one correction, and some of the second's.
    rows += [label(f"f{i}", i % 3 == 0, 10 * WINDOW + i, landed=1) for i in range(99, 250)]
    world.labels = arrivals(rows)
    changed = world.run()

    assert untouched == before
    assert [window.start // WINDOW for window in changed] == [0, 1, 2, 9, 10]
    assert [window.labels for window in world.windows[:4]] == [200, 50, 0, 0]
    assert world.windows[0].quality != before.quality
    assert world.windows[0].columns == before.columns
    assert world.windows[0].computed_at == 11 * WINDOW


def test_a_label_is_not_seen_before_its_time() -> None:
    world = World(now=10 * WINDOW)
    world.predict([prediction(1, at=10)])
    world.labels = arrivals([label("f1", True, 5 * WINDOW)])
    assert world.run(until=5 * WINDOW - 1)[0].labels == 0
    assert world.run(until=5 * WINDOW)[0].labels == 1


def test_predictions_that_were_compacted_late_are_counted() -> None:
    world = World(now=int(1.5 * WINDOW))
    world.predict([prediction(1, at=10)])
    world.run()
    world.predict([prediction(2, at=20)])
    world.clock.set(2 * WINDOW - 1)
    assert world.run()[0].predictions == 2


def test_labels_that_come_after_the_wait_change_nothing() -> None:
    world = World(now=3 * WINDOW, wait=5 * WINDOW)
    world.predict([prediction(1, at=10)])
    world.labels = arrivals([label("f1", True, 9 * WINDOW)])
    world.run()
    world.clock.set(10 * WINDOW)
    world.run()
    assert world.windows[0].labels == 0


def test_an_alert_follows_when_the_window_before_it_changes() -> None:
    world = World(bundle(REFERENCE), now=5 * WINDOW)

    def shifted(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
        columns = steady(rng, window, rows)
        return {**columns, "View.f0": columns["View.f0"] + 1}

    made = traffic(2, 300, shifted)
    world.predict([*made[280:300], *made[300:]])  # of the first window only a few are there yet
    world.run()
    assert alerts(world.windows[1]) == set()
    world.predict(made[:280])
    world.clock.set(6 * WINDOW)
    world.labels = arrivals([label("f1", True, 5 * WINDOW + 1)])  # makes it look again
    world.run()
    assert alerts(world.windows[1]) == {"View.f0"}


def test_a_window_that_is_finished_after_a_long_silence_is_compared_with_the_one_before_it() -> None:
    def shifted(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
        columns = steady(rng, window, rows)
        return {**columns, "View.f0": columns["View.f0"] + 1}

    world = World(bundle(REFERENCE), now=WINDOW + 10, wait=3 * WINDOW)
    made = traffic(5, 300, shifted)
    world.predict(made[:302])
    world.run()
    assert alerts(world.windows[1]) == set()  # it has only begun
    world.predict(made[302:])
    world.clock.set(9 * WINDOW)
    world.run()
    assert [alerts(window) for window in world.windows[:5]] == [set(), *[{"View.f0"}] * 4]


def test_progress_is_told() -> None:
    world = World(now=3 * WINDOW)
    world.predict([prediction(1, at=10)])
    told: list[tuple[int, int]] = []
    world.monitor.run("late", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_bundle_without_reference_is_watched_without_drift() -> None:
    world = World(now=WINDOW)
    world.predict(traffic(1, 50, steady))
    (window,) = world.run()
    assert (window.predictions, window.columns, window.score, window.reference_version) == (50, (), None, None)


def test_one_prediction_is_a_window_without_a_test_of_drift() -> None:
    world = World(bundle(REFERENCE), now=WINDOW)
    world.predict(traffic(1, 1, steady))
    (window,) = world.run()
    assert (window.predictions, window.reference_version, window.reference_rows) == (1, "1", 1)
    assert (window.columns, window.score) == ((), None)


def test_columns_of_nulls_or_of_another_type_drift_and_stop_nothing() -> None:
    def broken(rng: np.random.Generator, window: int, rows: int) -> dict[str, Any]:
        columns = steady(rng, window, rows)
        nothing = np.full(rows, None)
        return {**columns, "View.f0": nothing, "View.f1": np.array(["text"] * rows), "View.kind": nothing}

    world = World(bundle(REFERENCE), now=WINDOW)
    world.predict(traffic(1, 300, broken))
    (window,) = world.run()
    assert drifted(window) == {"View.f0", "View.f1", "View.kind"}
    assert {each.column: each.null_share for each in window.columns}["View.kind"] == 1.0


def test_all_nulls_are_a_window_too() -> None:
    world = World(bundle(REFERENCE), now=WINDOW)
    names = [*COLUMNS, "View.kind"]
    world.predict([prediction(i, i, None, features=dict.fromkeys(names)) for i in range(50)])
    (window,) = world.run()
    assert (window.predictions, set(window.drifted)) == (50, {*names, "probability"})


def test_each_version_has_its_drift_and_one_without_traffic_has_none() -> None:
    far = normal_reference(COLUMNS, np.random.default_rng(5))
    far.columns["View.f0"] = normal_reference(["x"], np.random.default_rng(6)).columns["View.kind"]
    world = World(bundle(REFERENCE), bundle(far, digest="d2"), bundle(far, digest="d3"), now=WINDOW)
    made = traffic(1, 500, steady)
    world.predict([*made[:300], *(msgspec.structs.replace(each, version="2", digest="d2") for each in made[300:])])
    (window,) = world.run()
    assert (window.reference_version, drifted(window)) == ("1", set())
    assert list(window.drift_by_version) == ["2"]
    other = window.drift_by_version["2"]
    assert (other.rows, {each.column for each in other.columns if each.drifted}) == (200, {"View.f0"})
    assert other.score is not None


def test_a_version_whose_bundle_is_gone_is_counted_without_drift() -> None:
    world = World(bundle(REFERENCE), now=WINDOW)

    def served_now(digest: str) -> Bundle:
        if digest != "d1":
            raise NotFound(f"There is no bundle {digest}.")
        return world.bundles[digest]

    world.ledger = MemoryLedger(sketching(world.sketches, served_now, slot_us=WINDOW // 20))
    world.bundles["gone"] = bundle(REFERENCE)  # it is there again when windows are made
    world.monitor = world.make()
    made = traffic(1, 200, steady)
    world.predict([*made[:120], *(msgspec.structs.replace(each, version="2", digest="gone") for each in made[120:])])
    (window,) = world.run()
    assert (window.predictions, window.versions, window.drift_by_version) == (200, {"1": 120, "2": 80}, {})
    (reason,) = {each.reason for each in world.sketches.hours("late", 0, WINDOW) if each.version == "2"}
    assert reason == "There is no bundle gone."


def test_predictions_of_next_year_and_of_the_past_are_in_their_own_windows() -> None:
    world = World(now=10 * WINDOW)
    world.predict([prediction(1, at=9 * WINDOW), prediction(2, at=10**6 * WINDOW), prediction(3, at=2 * WINDOW)])
    windows = world.run()
    assert {window.start // WINDOW: window.predictions for window in windows if window.predictions} == {2: 1, 9: 1}
    world.clock.set((10**6 + 1) * WINDOW)
    world.run()
    assert sum(window.predictions for window in world.windows) == 3
