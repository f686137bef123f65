"""What a training function does with MLflow itself, autologging included, lands in the run that we opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.bakery import Bakery, fit_trees, late_model
from mainspring.core.errors import MainspringError
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.model import RunRecord
from mainspring.registry.runs import NAME, PARENT


@pytest.fixture(scope="module")
def ingested() -> Bakery:
    bakery = Bakery(Path())
    bakery.ingest()
    return bakery


@pytest.fixture
def bakery(ingested: Bakery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bakery]:
    monkeypatch.chdir(tmp_path)  # where MLflow would put what it is not told to put elsewhere
    (tmp_path / "code").mkdir()
    tracking = MlflowTracking(f"sqlite:///{tmp_path / 'state' / 'tracking.db'}", tmp_path / "state" / "runs")
    made = Bakery(tmp_path / "code", lake=ingested.lake, snapshots=ingested.snapshots, tracking=tracking)
    before = dict(os.environ)
    yield made
    assert {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")} == {
        name: value for name, value in before.items() if name.startswith("MLFLOW_")
    } | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "state"]
    import mlflow

    assert mlflow.active_run() is None
    mlflow.sklearn.autolog(disable=True)


def quick(data: ms.TrainingSet, run: ms.Run) -> Any:
    """Logistic regression over the numbers, which trains and converts in no time."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    columns = ColumnTransformer([("numbers", SimpleImputer(), data.numeric)])
    return make_pipeline(columns, LogisticRegression(C=0.25)).fit(data.train.X, data.train.y)


def runs_of(bakery: Bakery) -> tuple[RunRecord, list[RunRecord]]:
    """Return the training's run, and the others."""
    runs = bakery.tracking.search()
    (ours,) = (run for run in runs if PARENT not in run.tags)
    return ours, [run for run in runs if run.id != ours.id]


def test_own_calls_land_in_the_run_and_its_parts(bakery: Bakery) -> None:
    def fit(data: ms.TrainingSet, run: ms.Run) -> Any:
        import mlflow

        mlflow.log_param("features", len(data.features))
        if len(data.features) == 4:  # the baseline
            return quick(data, run)
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run.id
        mlflow.log_metric("their_loss", 0.5, step=3)
        mlflow.set_tag("their_tag", "x")
        mlflow.log_text("hello", "notes/their.txt")
        with mlflow.start_run(nested=True, run_name="theirs"):
            mlflow.log_metric("inner", 1.0)
        with run.nested("ours") as fold:
            mlflow.log_metric("inside", 1.0)
            fold.log_metric("told", 2.0)
        mlflow.log_metric("outside", 3.0)
        run.log_metric("our_loss", 0.25, 3)
        return quick(data, run)

    report = bakery.trainer.train(late_model(fit))
    ours, others = runs_of(bakery)
    assert (ours.id, ours.status) == (report.run_id, "FINISHED")
    assert {name: ours.metrics[name] for name in ("their_loss", "our_loss", "outside")} == {
        "their_loss": 0.5,
        "our_loss": 0.25,
        "outside": 3.0,
    }
    assert not {"inner", "inside", "told"} & set(ours.metrics)
    assert (ours.params["features"], ours.tags["their_tag"]) == ("6", "x")
    assert bakery.tracking.artefact(ours.id, "notes/their.txt") == b"hello"
    parts = {run.tags[NAME]: run for run in others}
    assert dict(parts["theirs"].metrics) == {"inner": 1.0}
    assert dict(parts["ours"].metrics) == {"inside": 1.0, "told": 2.0}
    assert dict(parts["baseline"].params) == {"features": "4"}
    assert {(run.tags[PARENT], run.status, run.model) for run in others} == {(ours.id, "FINISHED", "late-order")}
    assert len(others) == 3


def test_autologging_lands_in_the_run_and_nothing_else_is_logged(bakery: Bakery) -> None:
    def fit(data: ms.TrainingSet, run: ms.Run) -> Any:
        import mlflow
        from mlflow.telemetry.utils import is_telemetry_disabled

        mlflow.sklearn.autolog(silent=True, log_models=False)
        mlflow.log_param("telemetry", not is_telemetry_disabled())
        return quick(data, run)

    bakery.trainer.train(late_model(fit))
    ours, others = runs_of(bakery)
    assert ours.params["logisticregression__C"] == "0.25"
    assert ours.params["telemetry"] == "False"
    assert 0.5 < ours.metrics["training_roc_auc"] <= 1
    assert ours.metrics["training_roc_auc"] != ours.metrics["holdout.auc"]
    assert "estimator.html" in bakery.tracking.artefacts(ours.id)
    assert [(run.tags[NAME], dict(run.params), dict(run.metrics)) for run in others] == [
        ("baseline", {"telemetry": "False"}, {})  # what it said itself, and nothing of autologging's
    ]
    assert ours.status == "FINISHED"


def test_a_run_that_is_open_already_is_explained(bakery: Bakery) -> None:
    def fit(data: ms.TrainingSet, run: ms.Run) -> Any:
        import mlflow

        with mlflow.start_run():
            return fit_trees(data, run)

    with pytest.raises(MainspringError, match=r"already active.*Fix: remove mlflow\.start_run\(\)"):
        bakery.trainer.train(late_model(fit))
    ours, others = runs_of(bakery)
    assert (ours.status, others) == ("FAILED", [])


def test_what_the_function_left_open_is_closed(bakery: Bakery) -> None:
    def fit(data: ms.TrainingSet, run: ms.Run) -> Any:
        import mlflow

        mlflow.start_run(nested=True)
        raise ZeroDivisionError

    with pytest.raises(MainspringError, match="ZeroDivisionError"):
        bakery.trainer.train(late_model(fit))
    assert {run.status for run in bakery.tracking.search()} == {"FAILED"}
    assert len(bakery.tracking.search()) == 2
