"""From ingested rows to a registered, signed bundle, on the embedded adapters and in memory."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
import sys
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
from kit.bakery import ORDERS, START, Bakery, Order, Traffic, fit_trees, late_model, outcomes, rows, shop, visits
from mainspring.core.catalog import metadata, open_engine
from mainspring.core.errors import Corrupt, InvalidData, MainspringError, NotConvertible, NotFound
from mainspring.core.time import HOUR, MINUTE
from mainspring.features import definitions
from mainspring.registry.adapters.folder import FolderBlobs
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.adapters.mlflow_versions import MlflowVersions
from mainspring.registry.runs import ERROR
from mainspring.stats import metrics
from mainspring.stats.reference import Reference
from mainspring.training.flavours.scoring import open_session, score_bundle, session_scores
from mainspring.training.runs.provenance import pinned_scan
from mainspring.training.sets.assemble import held_out_again

UNTIL = START + ORDERS * 10 * MINUTE


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    """Memory for the lake, the embedded adapters for everything that training itself keeps."""
    state = tmp_path_factory.mktemp("project")
    (state / "model.py").write_text("x = 1\n")
    engine = open_engine(f"sqlite:///{state / 'catalog.db'}")
    metadata.create_all(engine)
    url = f"sqlite:///{state / 'tracking.db'}"
    made = Bakery(
        state,
        tracking=MlflowTracking(url, state / "runs"),
        versions=MlflowVersions(url, engine),
        blobs=FolderBlobs(state / "bundles"),
    )
    made.ingest()
    return made


@pytest.fixture(scope="module")
def stages() -> list[tuple[str, float]]:
    return []


@pytest.fixture(scope="module")
def report(bakery: Bakery, stages: list[tuple[str, float]]) -> ms.training.model.TrainReport:  # type: ignore[name-defined]
    return bakery.trainer.train(
        late_model(), since=START, until=UNTIL, progress=lambda stage, share: stages.append((stage, share))
    )


def test_the_report_counts_what_there_was(report: Any) -> None:
    labelled = [number for number in range(ORDERS) if number % 50 and number * 10 + 180 <= ORDERS * 10]
    assert report.holdout_rows == pytest.approx(0.2 * len(labelled), abs=1)
    assert report.training_rows == pytest.approx(0.7 * len(labelled), abs=1)
    assert report.model == "late-order"


def test_the_model_learned_what_decides(report: Any) -> None:
    assert report.metrics["auc"] > report.baseline["auc"] + 0.01 > 0.6


def test_progress_rises_to_one(report: Any, stages: list[tuple[str, float]]) -> None:
    shares = [share for _, share in stages]
    assert shares == sorted(shares)
    assert (shares[0], stages[-1]) == (0.0, ("done", 1.0))
    assert {"read the features", "fit", "prove", "seal"} <= {stage for stage, _ in stages}


def test_the_run_says_where_it_comes_from(bakery: Bakery, report: Any) -> None:
    run = bakery.tracking.get(report.run_id)
    assert (run.status, run.model) == ("FINISHED", "late-order")
    bundle = bakery.bundles.load(report.digest)
    assert run.tags["dataset_commit"] == bundle.manifest.dataset_commit
    assert bakery.snapshots.get(run.tags["dataset_commit"]).versions.keys() >= {"orders", "visits", "outcomes"}
    assert run.tags["code_version"] == f"files:{run.tags['files_digest']}" == bundle.manifest.code_version
    assert (run.tags["seed"], run.tags["version"]) == ("7", report.version)
    assert "scikit-learn=" in run.tags["environment"]
    assert run.params["trees"] == run.params["baseline.trees"] == "30"
    assert run.params["digest"] == report.digest
    assert run.metrics["holdout.auc"] == report.metrics["auc"]
    assert run.metrics["baseline.auc"] == report.baseline["auc"]
    environment = json.loads(bakery.tracking.artefact(report.run_id, "environment.json"))
    assert environment["packages"]["numpy"] == np.__version__


def test_files_that_change_while_it_trains_are_named(bakery: Bakery, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bakery.root / "changing.py"
    path.write_text("LEAVES = 1\n")
    spec = importlib.util.spec_from_file_location("changing", path)
    assert spec is not None
    monkeypatch.setitem(sys.modules, "changing", importlib.util.module_from_spec(spec))

    def train(data: ms.TrainingSet, run: ms.Run) -> Any:
        path.write_text("LEAVES = 1000\n")
        return fit_trees(data, run)

    report = bakery.trainer.train(late_model(train, baseline=[], gates=[]), since=START, until=UNTIL)
    path.unlink()
    assert bakery.tracking.get(report.run_id).tags["code_changed"] == "changing.py"
    assert "changing.py" in report.notes[-1]


def test_the_version_has_its_lineage(bakery: Bakery, report: Any) -> None:
    version = bakery.versions.get("late-order", report.version)
    manifest = bakery.bundles.load(report.digest).manifest
    assert (version.digest, version.run_id, version.aliases) == (report.digest, report.run_id, ())
    assert version.tags["dataset_commit"] == manifest.dataset_commit
    assert version.tags["features_digest"] == manifest.features_digest
    assert version.tags["code_version"] == manifest.code_version


def test_the_manifest_describes_the_model(bakery: Bakery, report: Any) -> None:
    manifest = bakery.bundles.load(report.digest).manifest
    assert [(each.name, each.dtype.name) for each in manifest.inputs] == [
        ("Traffic.visits_1h", "Int64"),
        ("Traffic.mean_spent_24h", "Float32"),
        ("Order.weight", "Float32"),
        ("Order.kind", "String"),
        ("Order.gift", "Boolean"),
        ("Order.hour", manifest.inputs[-1].dtype.name),
    ]
    assert manifest.inputs[3].categories == ("bread", "cake")
    assert (manifest.outputs, manifest.task, manifest.flavour) == (("probability",), "binary", "onnx")
    assert manifest.metrics["auc"] == report.metrics["auc"]
    assert manifest.metrics["baseline.auc"] == report.baseline["auc"]
    assert manifest.extra["proof"]["rows"] > 10_000


def test_the_held_out_rows_give_the_reported_metrics(bakery: Bakery, report: Any) -> None:
    bundle = bakery.bundles.load(report.digest)
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    assert held_out.num_rows == report.holdout_rows
    scores = score_bundle(bundle, held_out)
    assert scores.shape == (report.holdout_rows,)
    assert metrics.score("binary", held_out["_label"].to_numpy(zero_copy_only=False), scores) == report.metrics


def test_golden_rows_give_their_answers_bit_for_bit(bakery: Bakery, report: Any) -> None:
    bundle = bakery.bundles.load(report.digest)
    golden = json.loads(bundle.files["golden.json"])
    frame = {
        each.name: np.array(golden["inputs"][each.name], object if each.dtype == ms.String else np.float64)
        for each in bundle.manifest.inputs
    }
    assert {len(values) for values in frame.values()} == {200}
    answers = session_scores(open_session(bundle.files["model.onnx"]), frame, ("probability",), 200)
    assert answers[:, 0].tolist() == golden["outputs"]["probability"]


def test_the_bundle_carries_definitions_and_reference(bakery: Bakery, report: Any) -> None:
    bundle = bakery.bundles.load(report.digest)
    groups, observations = definitions.load(bundle.files["features.json"])
    assert [group.name for group in groups] == ["Traffic", "Order"]
    assert observations.source.name == "orders"
    reference = msgspec.json.decode(bundle.files["reference.json"], type=Reference)
    assert set(reference.columns) == {*(each.name for each in bundle.manifest.inputs), "probability"}
    assert reference.columns["Order.weight"].count == report.training_rows


def test_what_training_keeps_is_no_pickle_and_private(bakery: Bakery, report: Any) -> None:
    files = [path for path in bakery.root.rglob("*") if path.is_file() and path.name != "model.py"]
    assert len(files) > 8
    for path in files:
        assert path.stat().st_mode & 0o077 == 0, path
        assert not path.read_bytes().startswith(b"\x80"), path


def test_the_features_are_what_was_known_when_the_order_was_placed(bakery: Bakery, report: Any) -> None:
    """A plain loop over the rows as oracle, for the counts of the held-out part."""
    made = rows()
    held_out = pq.read_table(io.BytesIO(bakery.bundles.load(report.digest).files["holdout.parquet"]))
    shops = {order["placed_at"]: order["shop"] for order in made["orders"]}
    visits = [(visit["came_at"], visit["shop"]) for visit in made["visits"]]
    for at, found in list(zip(held_out["_at"].to_pylist(), held_out["Traffic.visits_1h"].to_pylist(), strict=True))[
        ::97
    ]:
        tail = at.timestamp() - 3600
        tail -= tail % 300
        known = [when for when, shop in visits if shop == shops[at] and tail <= when.timestamp() < at.timestamp()]
        assert found == len(known)


@pytest.fixture
def small(tmp_path: Path) -> Bakery:
    made = Bakery(tmp_path)
    made.ingest()
    return made


def one_run(bakery: Bakery) -> Any:
    (run,) = bakery.tracking.search()
    return run


def nothing_registered(bakery: Bakery) -> bool:
    return bakery.versions.all() == [] and bakery.blobs.all() == []


def test_the_same_training_twice_makes_the_same_model(small: Bakery) -> None:
    reports = [small.trainer.train(late_model(), since=START, until=UNTIL) for _ in range(2)]
    bundles = [small.bundles.load(report.digest) for report in reports]
    assert bundles[0].files == bundles[1].files
    assert [report.version for report in reports] == ["1", "2"]  # another run, so another manifest
    assert reports[0].metrics == reports[1].metrics


def test_without_a_baseline_it_is_a_constant(small: Bakery) -> None:
    report = small.trainer.train(late_model(baseline=()))
    assert report.baseline["auc"] == 0.5


def test_a_function_that_fails_leaves_a_failed_run_and_no_version(small: Bakery) -> None:
    def fails(data: ms.TrainingSet, run: ms.Run) -> Any:
        run.log_metric("loss", 0.5)
        return data.train.X["no such column"]

    with pytest.raises(MainspringError, match=r"test_training\.py:\d+: KeyError"):
        small.trainer.train(late_model(fails))
    run = one_run(small)
    assert (run.status, run.metrics["loss"]) == ("FAILED", 0.5)
    assert re.fullmatch(r"KeyError: Training .*test_training\.py:\d+: KeyError: 'no such column'.*", run.tags[ERROR])
    assert nothing_registered(small)


def test_a_failed_run_keeps_no_message_where_sources_identify_people(small: Bakery) -> None:
    marked = ms.Source("visits", schema=dict(visits.schema), event_time="came_at", pii=["shop"])
    view = ms.feature_view(entity=shop, source=marked)(type("Seen", (), {"visits_1h": ms.count(window="1h")}))

    def fails(_data: ms.TrainingSet, _run: ms.Run) -> Any:
        raise ValueError("could not read 'north'")

    with pytest.raises(MainspringError, match="north"):
        small.trainer.train(late_model(fails, features=[view, Order]))
    kept = one_run(small).tags[ERROR]
    assert "north" not in kept
    assert re.fullmatch(
        r"ValueError: \[message withheld: the model reads visits, with columns marked pii\] \(.*test_training.py:\d+\)",
        kept,
    )


def test_a_metric_that_is_nan_fails_the_run_by_name(small: Bakery) -> None:
    def diverges(_data: ms.TrainingSet, run: ms.Run) -> Any:
        run.log_metric("val_loss", math.nan, step=3)

    with pytest.raises(MainspringError, match="'val_loss' at step 3 is nan"):
        small.trainer.train(late_model(diverges))
    assert one_run(small).status == "FAILED"


def test_what_does_not_convert_leaves_no_version(small: Bakery) -> None:
    def categorical(data: ms.TrainingSet, run: ms.Run) -> Any:
        pipeline = fit_trees(data, run)
        return pipeline.set_params(trees__categorical_features=[0]).fit(data.train.X, data.train.y)

    with pytest.raises(NotConvertible, match="categorical_features"):
        small.trainer.train(late_model(categorical))
    assert one_run(small).status == "FAILED"
    assert nothing_registered(small)


def test_a_store_without_room_leaves_no_version(small: Bakery) -> None:
    class Full(MemoryTracking):
        def finish(self, run_id: str, status: str, at: int) -> None:
            raise MainspringError("No space left.")

    small.tracking = Full()
    with pytest.raises(MainspringError, match="No space left"):
        small.trainer.train(late_model())
    assert small.versions.all() == []
    assert one_run(small).status == "RUNNING"


def test_labels_that_came_too_late_are_not_used(small: Bakery) -> None:
    until = START + 1000 * 10 * MINUTE
    report = small.trainer.train(late_model(), until=until)
    bundle = small.bundles.load(report.digest)
    held_out = pq.read_table(io.BytesIO(bundle.files["holdout.parquet"]))
    newest = max(at.timestamp() for at in held_out["_at"].to_pylist())
    assert newest * 1e6 <= until - 3 * HOUR
    assert bundle.manifest.extra["dropped_rows"] == 20 + 17  # without an outcome, and not delivered by then


def test_too_little_to_train_on(small: Bakery) -> None:
    with pytest.raises(InvalidData, match="no labelled observation to train on: 6 observations are left out"):
        small.trainer.train(late_model(), until=START + HOUR)
    assert one_run(small).status == "FAILED"


def test_a_table_that_was_never_ingested_is_named(tmp_path: Path) -> None:
    empty = Bakery(tmp_path)
    with pytest.raises(NotFound, match="orders"):
        empty.trainer.train(late_model())


def test_a_regression(small: Bakery) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    def fit(data: ms.TrainingSet, run: ms.Run) -> Any:
        pipeline = fit_trees(data, run) if data.task == "binary" else None
        assert pipeline is None
        return HistGradientBoostingRegressor(max_iter=30, random_state=run.seed).fit(data.train.X, data.train.y)

    model = late_model(fit, label=outcomes.minutes, task="regression", features=[Traffic], baseline=(), gates=())
    report = small.trainer.train(model)
    assert report.metrics["rmse"] < report.baseline["rmse"]
    table = pa.table({"Traffic.visits_1h": pa.array([3, None], pa.int64()),
                      "Traffic.mean_spent_24h": pa.array([0.5, None], pa.float32())})  # fmt: skip
    assert score_bundle(small.bundles.load(report.digest), table).shape == (2,)


def test_a_baseline_may_have_features_that_the_model_does_not(small: Bakery) -> None:
    report = small.trainer.train(late_model(features=[Traffic], baseline=[Order]))
    bundle = small.bundles.load(report.digest)
    assert {each.name.partition(".")[0] for each in bundle.manifest.inputs} == {"Traffic"}
    groups, _ = definitions.load(bundle.files["features.json"])
    assert [group.name for group in groups] == ["Traffic"]


def test_rows_without_an_input_are_refused(small: Bakery) -> None:
    report = small.trainer.train(late_model())
    with pytest.raises(MainspringError, match=r"Order\.weight"):
        score_bundle(small.bundles.load(report.digest), pa.table({"Traffic.visits_1h": [1]}))


def test_a_bundle_changed_on_disk_is_not_loaded(bakery: Bakery, report: Any) -> None:
    path = bakery.root / "bundles" / report.digest / "reference.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"0", b"1", 1))
    with pytest.raises(Corrupt, match=r"reference\.json"):
        bakery.bundles.load(report.digest)
    path.write_bytes(before)
    bakery.bundles.load(report.digest)


def test_held_out_rows_are_read_again_for_a_model_with_other_features(bakery: Bakery) -> None:
    rich = bakery.trainer.train(late_model(), since=START, until=UNTIL)
    poor = bakery.trainer.train(late_model(features=[Order]), since=START, until=UNTIL)
    candidate, champion = bakery.bundles.load(poor.digest), bakery.bundles.load(rich.digest)
    commit = bakery.snapshots.get(candidate.manifest.dataset_commit)

    again = held_out_again(candidate, champion, [ms.Label(outcomes.late)], partial(pinned_scan, bakery.lake, commit))

    original = pq.read_table(io.BytesIO(champion.files["holdout.parquet"]))
    assert again.num_rows == original.num_rows
    assert np.array_equal(score_bundle(champion, again), score_bundle(champion, original))


def test_held_out_rows_that_cannot_be_read_again_are_refused(bakery: Bakery) -> None:
    report = bakery.trainer.train(late_model(), since=START, until=UNTIL)
    bundle = bakery.bundles.load(report.digest)
    commit = bakery.snapshots.get(bundle.manifest.dataset_commit)
    moved = msgspec.structs.replace(
        bundle.manifest, extra={**bundle.manifest.extra, "until": bundle.manifest.extra["until"] - 5 * HOUR}
    )

    with pytest.raises(Corrupt, match="cannot be read again"):
        held_out_again(
            replace(bundle, manifest=moved),
            bundle,
            [ms.Label(outcomes.late)],
            partial(pinned_scan, bakery.lake, commit),
        )
