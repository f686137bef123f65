"""How many metrics a second get into MLflow's store? Through our run, against MLflow's own ways, on SQLite.

Ours is `Run.log_metrics` in a loop, and counts until all of it is in the database. The floor is the two statements
that this comes to, executed by the driver with rows that are there already. The peers are `mlflow.log_metric`, which is
what a training loop calls, and `MlflowClient.log_batch` with the thousand metrics that it takes at most. The store has
the indexes by which runs are searched, which every side keeps. Sides take turns, each in a run of its own in one store,
and the fastest turn counts.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"

from mainspring.core.catalog import open_engine
from mainspring.core.time import SystemClock
from mainspring.registry.adapters.mlflow_tables import add_indexes
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.training.runs.run import Run
from report import Case, report

TURNS = 3
STEPS, NAMES = 10_000, ("loss", "val/loss", "auc", "rate")
ONE_BY_ONE = 200  # through `mlflow.log_metric`, which takes milliseconds for each
MANY_NAMES = 12_000
AT_ONCE = 1000  # what log_batch takes at most
NOW_MS = 1_700_000_000_000

Metric = tuple[str, float, int]  # name, value, step


class Store:
    """One tracking store, and the ways into it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tracking.db"
        self.url = f"sqlite:///{self.path}"
        self.tracking = MlflowTracking(self.url, folder / "runs")
        self.begin()  # makes the tables
        engine = open_engine(self.url)
        add_indexes(engine)  # as the first search of runs does
        engine.dispose()

    def begin(self) -> str:
        return self.tracking.start("late", {}, NOW_MS * 1000)

    def ours(self, steps: Sequence[Sequence[Metric]]) -> None:
        with Run(self.tracking, self.begin(), SystemClock(), seed=0) as run:
            for metrics in steps:
                run.log_metrics({name: value for name, value, _ in metrics}, metrics[0][2])

    def ours_one_by_one(self, steps: Sequence[Sequence[Metric]]) -> None:
        with Run(self.tracking, self.begin(), SystemClock(), seed=0) as run:
            for metrics in steps:
                for name, value, step in metrics:
                    run.log_metric(name, value, step)

    def floor(self, steps: Sequence[Sequence[Metric]]) -> None:
        run_id = self.begin()
        rows = [(name, value, NOW_MS, step, 0, run_id) for metrics in steps for name, value, step in metrics]
        newest = list({row[0]: row for row in rows}.values())
        connection = sqlite3.connect(self.path)
        columns = "(key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)"
        with connection:
            connection.executemany(f"INSERT INTO metrics {columns}", rows)
            connection.executemany(f"INSERT INTO latest_metrics {columns}", newest)
        connection.close()

    def log_batch(self, steps: Sequence[Sequence[Metric]]) -> None:
        from mlflow.entities import Metric as Entity
        from mlflow.tracking import MlflowClient

        client, run_id = MlflowClient(self.url), self.begin()
        sent = [Entity(name, value, NOW_MS, step) for metrics in steps for name, value, step in metrics]
        for start in range(0, len(sent), AT_ONCE):
            client.log_batch(run_id, metrics=sent[start : start + AT_ONCE])

    def log_metric(self, steps: Sequence[Sequence[Metric]]) -> None:
        import mlflow

        mlflow.set_tracking_uri(self.url)
        with mlflow.start_run(run_id=self.begin()):
            for metrics in steps:
                for name, value, step in metrics:
                    mlflow.log_metric(name, value, step=step)


def a_second(way: Callable[[Any], None], steps: Sequence[Sequence[Metric]]) -> float:
    """Return the metrics that get into the store in a second."""
    before = time.perf_counter()
    way(steps)
    return sum(map(len, steps)) / (time.perf_counter() - before)


def metrics(folder: Path) -> list[Case]:
    """Metrics a second, of a training loop and of a table of names."""
    store = Store(folder)
    loop = [[(name, 1.0 / (step + number + 1), step) for number, name in enumerate(NAMES)] for step in range(STEPS)]
    table = [[(f"slice/{number:05d}/auc", number / MANY_NAMES, 0) for number in range(MANY_NAMES)]]
    short = loop[: ONE_BY_ONE // len(NAMES)]
    best: dict[str, float] = {}
    for way in (store.log_metric, store.log_batch, store.ours):  # what is imported and opened first, once
        way(loop[:2])
    for _ in range(TURNS):
        for name, way, steps in (
            ("ours", store.ours, loop),
            ("ours, one by one", store.ours_one_by_one, loop),
            ("floor", store.floor, loop),
            ("log_batch", store.log_batch, loop[: STEPS // 4]),
            ("log_metric", store.log_metric, short),
            ("ours, names", store.ours, table),
            ("floor, names", store.floor, table),
            ("log_batch, names", store.log_batch, table),
        ):
            best[name] = max(best.get(name, 0.0), a_second(way, steps))
    peers = {"log_batch": best["log_batch"], "mlflow.log_metric": best["log_metric"]}
    against = f"{best['ours'] / best['log_metric']:.0f} times mlflow.log_metric"
    return [
        Case(f"{len(NAMES)} names x {STEPS:,} steps", "metrics/s", best["ours"], best["floor"], peers,
             {"ours": against}, more_is_better=True),
        Case("the same, a call each", "metrics/s", best["ours, one by one"], best["floor"], peers, more_is_better=True),
        Case(f"{MANY_NAMES:,} names, one step", "metrics/s", best["ours, names"], best["floor, names"],
             {"log_batch": best["log_batch, names"], "mlflow.log_metric": None},
             {"mlflow.log_metric": "it would take a minute for the 12,000 names"}, more_is_better=True),
    ]  # fmt: skip


# What is measured, each in a folder of its own. The search of runs and its first page at 100,000 runs belong here too.
QUESTIONS: dict[str, Callable[[Path], list[Case]]] = {"metrics": metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what goes into the store of runs and comes out of it.")
    parser.add_argument("questions", nargs="*", choices=[[], *QUESTIONS], help=f"any of {', '.join(QUESTIONS)}")
    chosen = parser.parse_args().questions or list(QUESTIONS)
    cases = []
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            cases += QUESTIONS[name](Path(folder))
    report("track", cases)


if __name__ == "__main__":
    main()
