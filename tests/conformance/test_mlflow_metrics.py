"""Metrics written straight into MLflow's tables are what MLflow's own `log_batch` would have left there."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import Conflict, NotFound, Unavailable
from mainspring.core.time import SECOND
from mainspring.registry.adapters import mlflow_metrics
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking

# Few names, steps and instants, so that they meet; every kind of number.
VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.5, math.nan, math.inf, -math.inf, 1e-300, 0.1])
METRICS = st.lists(
    st.tuples(
        st.sampled_from(["loss", "val/loss", "auc"]),
        VALUES,
        st.integers(-1, 2),
        st.sampled_from([0, 1000, SECOND, SECOND + 999]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> MlflowTracking:
    folder = tmp_path_factory.mktemp("both")
    return MlflowTracking(f"sqlite:///{folder / 'tracking.db'}", folder / "runs", patience_s=0.2)


def by_log_batch(tracking: MlflowTracking, run_id: str, metrics: list[mlflow_metrics.Metric]) -> None:
    from mlflow.entities import Metric

    sent = [Metric(name, value, at // 1000, step) for name, value, step, at in metrics]
    tracking._store.log_batch(run_id, metrics=sent, params=[], tags=[])


def tables(tracking: MlflowTracking, run_id: str) -> dict[str, list[Any]]:
    found = {}
    with tracking._store.engine.connect() as connection:
        for table in ("metrics", "latest_metrics"):
            rows = connection.exec_driver_sql(
                f"SELECT key, value, timestamp, step, is_nan, typeof(value), typeof(is_nan) FROM {table} "
                "WHERE run_uuid = ? ORDER BY 1, 4, 3, 2, 5",
                (run_id,),
            )
            found[table] = [tuple(row) for row in rows]
    return found


@given(st.lists(METRICS, min_size=1, max_size=4))
@settings(
    max_examples=examples(gate=15, deep=60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_both_ways_leave_the_same_tables(tracking: MlflowTracking, batches: list[list[mlflow_metrics.Metric]]) -> None:
    ours, theirs = (tracking.start("late", {}, SECOND) for _ in range(2))
    for batch in batches:
        tracking.log(ours, metrics=batch)
        by_log_batch(tracking, theirs, batch)
    assert tables(tracking, ours) == tables(tracking, theirs)
    assert repr(sorted(tracking.get(ours).metrics.items())) == repr(sorted(tracking.get(theirs).metrics.items()))


@given(METRICS, METRICS)
@settings(
    max_examples=examples(gate=6, deep=20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_both_ways_may_be_mixed(
    tracking: MlflowTracking, first: list[mlflow_metrics.Metric], second: list[mlflow_metrics.Metric]
) -> None:
    mixed, theirs = (tracking.start("late", {}, SECOND) for _ in range(2))
    by_log_batch(tracking, mixed, first)
    tracking.log(mixed, metrics=second)
    by_log_batch(tracking, mixed, first)
    for batch in (first, second, first):
        by_log_batch(tracking, theirs, batch)
    assert tables(tracking, mixed) == tables(tracking, theirs)


def test_a_deleted_run_takes_nothing(tracking: MlflowTracking) -> None:
    run_id = tracking.start("late", {}, SECOND)
    tracking._store.delete_run(run_id)
    with pytest.raises(Conflict, match="deleted"):
        tracking.log(run_id, metrics=[("loss", 1.0, 0, SECOND)])
    assert tables(tracking, run_id)["metrics"] == []


def test_an_unknown_run_takes_nothing(tracking: MlflowTracking) -> None:
    with pytest.raises(NotFound, match="0000"):
        tracking.log("0" * 32, metrics=[("loss", 1.0, 0, SECOND)])
    assert tables(tracking, "0" * 32)["metrics"] == []


def test_a_locked_store_is_said_to_be_and_keeps_nothing_of_the_batch(tracking: MlflowTracking) -> None:
    run_id = tracking.start("late", {}, SECOND)
    other = sqlite3.connect(tracking._store.engine.url.database)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match=r"tracking\.db is locked by another process\. Fix: .*fuser") as raised:
        tracking.log(run_id, metrics=[("loss", 1.0, 0, SECOND)])
    assert raised.value.retryable
    other.rollback()
    other.close()
    tracking.log(run_id, metrics=[("loss", 1.0, 0, SECOND)])
    assert tracking.history(run_id, "loss") == [(1.0, 0, SECOND)]


@pytest.mark.parametrize("how", ["deleted", "replaced", "damaged"])
def test_a_store_that_is_gone_is_said_to_be(tmp_path: Path, how: str) -> None:
    path = tmp_path / "tracking.db"
    tracking = MlflowTracking(f"sqlite:///{path}", tmp_path / "runs")
    run_id = tracking.start("late", {}, SECOND)
    path.rename(tmp_path / "elsewhere.db")
    if how == "replaced":
        sqlite3.connect(path).close()
    elif how == "damaged":
        path.write_bytes(b"no database")
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"tracking\.db is missing"):
            tracking.log(run_id, metrics=[("loss", 1.0, 0, SECOND)])
        with pytest.raises(Unavailable, match=r"tracking\.db is missing"):
            tracking.finish(run_id, "FINISHED", SECOND)
