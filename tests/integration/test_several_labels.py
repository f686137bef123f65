"""A model of several numbers of one observation: from its declaration to the gateway's answer."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.bakery import Bakery
from kit.depth import examples
from kit.worlds import ledger, prediction, sketched
from mainspring.core.errors import InvalidData, MainspringError, NotConvertible
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, MINUTE, parse_instant, to_datetime
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.delivery.compare import compare
from mainspring.delivery.gates import baseline_of, judge
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.offline.pieces import pieces
from mainspring.governance.cards import build
from mainspring.governance.performance import performance_of
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.joins import label_rows
from mainspring.monitoring.window_updates import WindowUpdates
from mainspring.project.catalog import memory_catalog
from mainspring.registry.lineage import lineage_of
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.plane.runtime import load
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.runs.provenance import pinned_scan
from mainspring.training.sets.assemble import held_out_again, labelled, write_labelled
from mainspring.training.sets.labels import LABEL

START = parse_instant("2024-01-01T00:00:00Z")
FLIGHTS, MISSING_DEPARTURE, MISSING_ARRIVAL = 600, 7, 10  # every 7th has no departure, every 10th no arrival

flight = ms.Entity("flight", keys={"flight": ms.Int64})
planned = ms.Source(
    "planned", schema={"flight": ms.Int64, "wind": ms.Float32, "load": ms.Float32}, event_time="planned_at"
)
departed = ms.Source(
    "departed", schema={"flight": ms.Int64, "dep_delay": ms.Float32}, event_time="left_at", recorded_time="told_at"
)
arrived = ms.Source("arrived", schema={"flight": ms.Int64, "arr_delay": ms.Int32}, event_time="landed_at")


@ms.request_features
class Plan:
    wind = ms.col("wind")
    load = ms.col("load")


flown = ms.Observations(planned, keys=[flight], at=ms.col("planned_at"))
LABELS = [ms.Label(departed.dep_delay, matures="3h"), arrived.arr_delay]


def rows() -> dict[str, list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    made: dict[str, list[dict[str, Any]]] = {"planned": [], "departed": [], "arrived": []}
    for number in range(FLIGHTS):
        at = START + number * 10 * MINUTE
        wind, load = (float(np.float32(rng.normal())) for _ in range(2))
        made["planned"].append({"planned_at": to_datetime(at), "flight": number, "wind": wind, "load": load})
        dep = 5 + 4 * wind + float(rng.normal())
        left, landed = to_datetime(at + HOUR), to_datetime(at + 5 * HOUR)
        if number % MISSING_DEPARTURE:
            made["departed"].append({"left_at": left, "told_at": left, "flight": number, "dep_delay": dep})
        late = round(60 + 30 * dep - 20 * load + 5 * float(rng.normal()))
        made["arrived"].append(
            {"landed_at": landed, "flight": number, "arr_delay": late if number % MISSING_ARRIVAL else None}
        )
    return made


def ridge(data: ms.TrainingSet, run: ms.Run) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(), Ridge(alpha=0.5)).fit(data.train.X, data.train.y)


def delays(train: Any = ridge, **changed: Any) -> Any:
    settings: dict[str, Any] = {
        "observations": flown,
        "features": [Plan],
        "label": LABELS,
        "task": "regression",
        "gates": [ms.beats("rmse"), ms.at_most("mae.dep_delay", 2.0)],
        "accept_findings": ["predicts-alone:Plan.wind"],
        **changed,
    }
    return ms.model("delays", **settings)(train)


def land(airport: Bakery, made: dict[str, list[dict[str, Any]]]) -> None:
    ingestor = Ingestor(airport.lake, MemoryLocks(), airport.clock)
    for source in (planned, departed, arrived):
        ingestor.ingest(source, made[source.name], keyings={"flight": ("flight",)})


@pytest.fixture(scope="module")
def airport(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    made = Bakery(tmp_path_factory.mktemp("project"))
    land(made, rows())
    return made


@pytest.fixture(scope="module")
def given() -> list[ms.TrainingSet]:
    return []


@pytest.fixture(scope="module")
def report(airport: Bakery, given: list[ms.TrainingSet]) -> Any:
    def train(data: ms.TrainingSet, run: ms.Run) -> Any:
        given.append(data)
        return ridge(data, run)

    return airport.trainer.train(delays(train))


@pytest.fixture(scope="module")
def bundle(airport: Bakery, report: Any) -> Bundle:
    return airport.bundles.load(report.digest)


@pytest.fixture(scope="module")
def held_out(bundle: Bundle) -> pa.Table:
    return pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))


def test_a_row_trains_where_every_label_is_known_and_the_others_are_counted(
    report: Any, given: list[ms.TrainingSet]
) -> None:
    (data, *_) = given
    made = rows()
    dep = {each["flight"]: each["dep_delay"] for each in made["departed"]}
    arr = {each["flight"]: each["arr_delay"] for each in made["arrived"] if each["arr_delay"] is not None}
    # nobody knows how far departures are told but by their newest row: later flights have not matured
    told = max(each["told_at"] for each in made["departed"])
    mature = [n for n in range(FLIGHTS) if to_datetime(START + n * 10 * MINUTE + 3 * HOUR) <= told]
    known = [n for n in mature if n in dep and n in arr]
    assert data.labels == ("dep_delay", "arr_delay")
    assert data.train.y.dtype == np.float64
    y = np.concatenate([data.train.y, data.validation.y, data.holdout.y])
    assert np.array_equal(y, [[np.float32(dep[n]), arr[n]] for n in known])
    assert report.left_out == {
        "no_label.dep_delay": sum(n not in dep for n in mature),
        "null_label.arr_delay": sum(n in dep and n not in arr for n in mature),
        "not_mature.dep_delay": FLIGHTS - len(mature),
    }
    assert any("without a label [dep_delay]" in note and "label is null [arr_delay]" in note for note in report.notes)


def test_it_answers_as_two_models_of_one_label_do(
    bundle: Bundle, held_out: pa.Table, given: list[ms.TrainingSet]
) -> None:
    from sklearn.linear_model import Ridge

    data = given[0]
    assert bundle.manifest.outputs == ("dep_delay", "arr_delay")
    found = score_bundle(bundle, held_out)
    for place in range(2):
        single = Ridge(alpha=0.5).fit(data.train.X, data.train.y[:, place])
        assert np.allclose(found[:, place], single.predict(data.holdout.X), atol=1e-4)


def test_its_metrics_are_scikit_learns(report: Any, bundle: Bundle, held_out: pa.Table) -> None:
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    truth = np.array([[each["dep_delay"], each["arr_delay"]] for each in held_out[LABEL].to_pylist()], np.float64)
    answers = score_bundle(bundle, held_out)
    for name, metric in (("rmse", root_mean_squared_error), ("mae", mean_absolute_error)):
        each = metric(truth, answers, multioutput="raw_values")
        assert report.metrics[f"{name}.dep_delay"] == pytest.approx(each[0], rel=1e-9)
        assert report.metrics[f"{name}.arr_delay"] == pytest.approx(each[1], rel=1e-9)
        assert report.metrics[name] == pytest.approx(metric(truth, answers), rel=1e-9)
        assert report.baseline[f"{name}.arr_delay"] > report.metrics[f"{name}.arr_delay"]
    assert report.undefined == []


def forest(data: ms.TrainingSet, run: ms.Run) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(8, max_depth=5, random_state=0).fit(data.train.X, data.train.y)


def one_a_label(data: ms.TrainingSet, run: ms.Run) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.multioutput import MultiOutputRegressor

    each = HistGradientBoostingRegressor(max_iter=10, random_state=0)
    return MultiOutputRegressor(each).fit(data.train.X, data.train.y)


def boosted(data: ms.TrainingSet, run: ms.Run, **settings: Any) -> Any:
    xgboost = pytest.importorskip("xgboost")
    made = xgboost.XGBRegressor(n_estimators=8, max_depth=3, n_jobs=1, random_state=0, **settings)
    return made.fit(data.train.X, data.train.y)


def vector_leaves(data: ms.TrainingSet, run: ms.Run) -> Any:
    return boosted(data, run, multi_strategy="multi_output_tree")


def catboost(data: ms.TrainingSet, run: ms.Run) -> Any:
    library = pytest.importorskip("catboost")
    made = library.CatBoostRegressor(
        iterations=8, depth=3, loss_function="MultiRMSE", thread_count=1, verbose=False, allow_writing_files=False
    )
    return made.fit(data.train.X, data.train.y)


def network(data: ms.TrainingSet, run: ms.Run) -> Any:
    torch = pytest.importorskip("torch")

    class Imputed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.layer(torch.nan_to_num(x))

    return Imputed()


def first_alone(data: ms.TrainingSet, run: ms.Run) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=5).fit(data.train.X, data.train.y[:, 0])


def one_only(data: ms.TrainingSet, run: ms.Run) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=5).fit(data.train.X, data.train.y)


@pytest.mark.parametrize(
    "train",
    examples(
        gate=[forest, one_a_label, boosted, network],
        deep=[forest, one_a_label, boosted, vector_leaves, catboost, network],
    ),
)
def test_estimators_of_several_numbers_are_served_as_they_answer(airport: Bakery, train: Any) -> None:
    fitted: list[Any] = []

    def remembered(data: ms.TrainingSet, run: ms.Run) -> Any:
        fitted.append((train(data, run), data))
        return fitted[-1][0]

    report = airport.trainer.train(delays(remembered))
    bundle = airport.bundles.load(report.digest)
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    ((estimator, data), *_) = fitted
    if train is not network:
        expected = np.asarray(estimator.predict(data.holdout.X), np.float64)
        assert np.allclose(score_bundle(bundle, held_out), expected, rtol=1e-5, atol=1e-3)
    assert bundle.manifest.outputs == ("dep_delay", "arr_delay")


@pytest.mark.parametrize(
    ("train", "kind", "message"),
    [
        (one_only, MainspringError, r"1d array.*a column for each of dep_delay, arr_delay.*MultiOutputRegressor"),
        (first_alone, NotConvertible, r"returns 1 value per row, but the model has 2 labels: dep_delay, arr_delay"),
    ],
)
def test_an_estimator_of_one_number_is_refused_with_the_way_out(
    airport: Bakery, train: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        airport.trainer.train(delays(train))


def test_an_estimator_of_several_numbers_is_refused_where_there_is_one_label(airport: Bakery) -> None:
    def twice(data: ms.TrainingSet, run: ms.Run) -> Any:
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(3).fit(data.train.X, np.column_stack([data.train.y, data.train.y]))

    with pytest.raises(NotConvertible, match="returns 2 values per row, but the model has 1 label"):
        airport.trainer.train(delays(twice, label=arrived.arr_delay, gates=[]))


def test_a_list_of_one_label_is_that_label(airport: Bakery) -> None:
    one, listed = (
        airport.trainer.train(delays(label=label, gates=[])) for label in (arrived.arr_delay, [arrived.arr_delay])
    )
    assert airport.bundles.load(listed.digest).manifest.outputs == ("value",)
    assert (one.metrics, one.left_out) == (listed.metrics, listed.left_out)


def test_a_label_that_never_matured_leaves_nothing_and_is_named(airport: Bakery) -> None:
    late = ms.Label(departed.dep_delay, matures="400d")
    with pytest.raises(InvalidData, match=r"no labelled observation.*not mature .*\[dep_delay\].*ingest departed"):
        airport.trainer.train(delays(label=[late, arrived.arr_delay]))


def test_rows_that_do_not_fit_in_memory_are_the_same(airport: Bakery, tmp_path: Path, held_out: pa.Table) -> None:
    asked = delays().observations, delays().labels, airport.lake.scan
    again, count, left_out = write_labelled(
        tmp_path / "rows.parquet", *asked, since=None, until=None, memory_limit="500MB", temp=tmp_path / "tmp"
    )
    written = pa.concat_tables(pieces(again))
    assert written.equals(pa.concat_tables(pieces(again)))
    in_memory, also_left_out = labelled(*asked, since=None, until=None)
    assert written.equals(in_memory)
    assert left_out == also_left_out
    assert (count, set(left_out.counts)) == (
        written.num_rows, {"not_mature.dep_delay", "no_label.dep_delay", "null_label.arr_delay"}
    )  # fmt: skip
    assert written[LABEL].to_pylist()[-held_out.num_rows :] == held_out[LABEL].to_pylist()


def test_the_executor_of_the_gateway_answers_one_output_a_label(bundle: Bundle) -> None:
    runtime = load(bundle, MemoryOnlineStore(), OnnxExecutor)
    answers = runtime.executor.predict({"Plan.wind": [0.5, None], "Plan.load": [1.0, 2.0]}, 2)
    assert list(answers) == ["dep_delay", "arr_delay"]
    table = pa.table({"Plan.wind": pa.array([0.5, None], pa.float32()), "Plan.load": pa.array([1, 2], pa.float32())})
    assert np.allclose(np.column_stack(list(answers.values())), score_bundle(bundle, table), atol=1e-3)


def test_gates_are_on_the_mean_and_on_each(airport: Bakery, report: Any, bundle: Bundle) -> None:
    again = airport.bundles.load(airport.trainer.train(delays(seed=1)).digest)
    commit = airport.snapshots.get(bundle.manifest.dataset_commit)
    compared = compare(again, bundle, "1")
    gates = [*delays().gates, ms.at_least("rmse.arr_delay", 0.0)]
    verdicts = judge(gates, report.metrics, baseline_of(bundle.manifest), compared)
    assert [(each.gate, each.against, each.passed) for each in verdicts] == [
        ("rmse beats by 0", "baseline", True),
        ("rmse beats by 0", "champion 1", True),
        ("mae.dep_delay at most 2", "limit", True),
        ("rmse.arr_delay at least 0", "limit", True),
    ]
    assert compared.metrics == pytest.approx(
        {name: value for name, value in report.metrics.items() if not name.startswith("baseline.")}
    )
    rows = held_out_again(again, bundle, [ms.Label(departed.dep_delay), ms.Label(arrived.arr_delay)],
                          partial(pinned_scan, airport.lake, commit))  # fmt: skip
    assert np.array_equal(score_bundle(bundle, rows), score_bundle(bundle, pq.read_table(
        io.BytesIO(again.files["holdout.parquet"]))))  # fmt: skip
    single = airport.bundles.load(airport.trainer.train(delays(label=arrived.arr_delay, gates=[])).digest)
    assert compare(bundle, single, "1").note == "champion 1 returns value, not dep_delay, arr_delay."
    for each in (again, single):  # whose model has another order of labels since, and one more
        scan = partial(pinned_scan, airport.lake, airport.snapshots.get(each.manifest.dataset_commit))
        read = held_out_again(each, bundle, [ms.Label(arrived.arr_delay), ms.Label(departed.dep_delay)], scan)
        assert (
            read[LABEL].combine_chunks()
            == pq.read_table(io.BytesIO(each.files["holdout.parquet"]))[LABEL].combine_chunks()
        )


def test_a_card_has_each_metric_with_an_interval(report: Any, bundle: Bundle) -> None:
    found, gaps = performance_of(bundle, ())
    assert found is not None
    assert {each.metric: each.value for each in found.metrics} == pytest.approx(report.metrics)
    assert all(each.low is not None and each.low <= each.value <= each.high for each in found.metrics)
    assert not [each for each in gaps if each.required]


def test_a_card_names_the_labels_in_the_order_of_the_answers(airport: Bakery, report: Any, bundle: Bundle) -> None:
    settled = {**bundle.manifest.extra["labels"]}
    settled["dep_delay"] = {**settled["dep_delay"], "otherwise": False}
    manifest = msgspec.structs.replace(bundle.manifest, extra={**bundle.manifest.extra, "labels": settled})
    version = airport.versions.get(report.model, report.version)
    card = build(
        replace(bundle, manifest=manifest),
        lineage_of(version, manifest, None, [version]),
        run=None,
        history=lambda _: [],
        tables={},
        words="",
        words_file="cards/flights.md",
    )
    [label] = [each.value for each in card.data if each.name == "Label"]
    assert label == "departed.dep_delay, matures after 3h, otherwise false; arrived.arr_delay"


def watched(bundle: Bundle, of: Bakery, lake: MemoryLake, predictions: Any) -> WindowUpdates:
    return WindowUpdates(
        predictions, CatalogMonitors(memory_catalog()), sketched(predictions, lambda _: bundle),
        labels=lambda _: label_rows(NEWEST, flown, lake.scan, lake.appended),
        load=lambda _: bundle, clock=of.clock, locks=MemoryLocks(), window_us=DAY,
    )  # fmt: skip


def logged(bundle: Bundle, made: dict[str, list[dict[str, Any]]]) -> tuple[Any, Any]:
    """Return the answers to the first flights, and the log of them."""
    table = pa.table(
        {f"Plan.{name}": pa.array([row[name] for row in made["planned"]], pa.float32()) for name in ("wind", "load")}
    )
    answers = score_bundle(bundle, table)[:140]
    return answers, ledger([
        prediction(number, START + number * 10 * MINUTE, keys={"flight": number}, digest=bundle.digest,
                   outputs={"dep_delay": float(dep), "arr_delay": float(arr)}, features={})
        for number, (dep, arr) in enumerate(answers)
    ])  # fmt: skip


NEWEST = [ms.Label(departed.dep_delay), ms.Label(arrived.arr_delay)]


def test_live_quality_is_of_the_predictions_that_have_every_label(airport: Bakery, bundle: Bundle) -> None:
    made = rows()
    answers, log = logged(bundle, made)
    airport.clock.set(START + 20 * DAY)
    window = watched(bundle, airport, airport.lake, log).run("late")[0]
    dep = {each["flight"]: np.float32(each["dep_delay"]) for each in made["departed"]}
    arr = {each["flight"]: each["arr_delay"] for each in made["arrived"] if each["arr_delay"] is not None}
    known = [number for number in range(140) if number in dep and number in arr]
    error = answers[known] - np.array([[dep[number], arr[number]] for number in known])
    assert (window.predictions, window.labels) == (140, len(known))
    each = np.sqrt((error**2).mean(axis=0))
    assert window.quality["rmse.dep_delay"] == pytest.approx(each[0])
    assert window.quality["rmse.arr_delay"] == pytest.approx(each[1])
    assert window.quality["rmse"] == pytest.approx(each.mean())
    assert window.lag_p50_s == 5 * 3600


def test_labels_that_land_later_count_as_if_they_had_been_there(bundle: Bundle, tmp_path: Path) -> None:
    made = rows()
    _, log = logged(bundle, made)
    small = Bakery(tmp_path)
    small.clock.set(START + 20 * DAY)
    late = {name: [each for each in made[name] if each["flight"] < 90] for name in ("departed", "arrived")}
    soon = {name: [each for each in made[name] if each["flight"] >= 90] for name in late}
    land(small, {**made, **soon})
    monitor = watched(bundle, small, small.lake, log)
    before = monitor.run("late")[0]
    land(small, {"planned": [], "departed": late["departed"], "arrived": []})
    small.clock.advance(HOUR)
    assert monitor.run("late")[0].labels == before.labels  # still no arrival of those flights
    land(small, {"planned": [], "departed": [], "arrived": late["arrived"]})
    small.clock.advance(HOUR)
    after = monitor.run("late")[0]
    fresh = watched(bundle, small, small.lake, log).run("late")[0]
    assert (after.labels, after.quality) == (fresh.labels, fresh.quality)
    assert after.labels > before.labels > 0
