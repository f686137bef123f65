"""Very many runs, written straight into MLflow's tables: through MLflow they would take hours."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

START = 1_767_225_600_000  # 2026-01-01, milliseconds
MODELS = tuple(f"model-{number:02d}" for number in range(20))
COMMON = ("holdout.auc", "holdout.brier", "train.loss", "valid.loss", "system/cpu", "system/memory")
EACH, LONGEST, WITH_HISTORY = 6, 200_000, 200  # metrics of its own names, points of the longest history, runs with one
_STATUSES = ("FINISHED",) * 94 + ("FAILED",) * 4 + ("KILLED",) + ("RUNNING",)
_OPTIMIZERS = ("adam", "adamw", "sgd", "lion")

Rows = Iterator[tuple[Any, ...]]
COLUMNS = {
    "experiments": "experiment_id, name, lifecycle_stage, workspace",
    "runs": "run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, experiment_id",
    "latest_metrics": "key, value, timestamp, step, is_nan, run_uuid",
    "metrics": "key, value, timestamp, step, is_nan, run_uuid",
    "params": "key, value, run_uuid",
    "tags": "key, value, run_uuid",
}


def run_id(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}{number:016x}"


def parent(number: int) -> int | None:
    """Return the run in which a run is nested: of each 50 runs of a model, the first ten have none."""
    place = number // len(MODELS) % 50
    return None if place < 10 else number - place * len(MODELS)


def metric_name(number: int) -> str:
    return f"layer{number % 120:03d}/head{number // 120:03d}/norm"


def rows(runs: int, names: int, seed: int = 7) -> dict[str, Rows]:
    """Return the rows of each table, made as they are read. The newest run has a metric of every name."""
    return {
        "experiments": ((n, name, "active", "default") for n, name in enumerate(MODELS, start=1)),
        "runs": _runs(runs),
        "latest_metrics": _latest(runs, names, seed),
        "metrics": _logged(runs, seed),
        "params": _params(runs, seed),
        "tags": _tags(runs),
    }


def _runs(runs: int) -> Rows:
    for number in range(runs):
        status, start = _STATUSES[number * 37 % 100], START + number * 1000
        end = None if status == "RUNNING" else start + 60_000 + number % 977
        model = 1 + number % len(MODELS)
        yield run_id(number), f"calm-gull-{number}", "LOCAL", "bench", status, start, end, "active", model


def _latest(runs: int, names: int, seed: int) -> Rows:
    draw = random.Random(seed)
    for number in range(runs):
        own = range(names) if number == runs - 1 else {draw.randrange(names) for _ in range(EACH)}
        for name in itertools.chain(COMMON, map(metric_name, own)):
            yield name, draw.random(), START, 0, False, run_id(number)


def _logged(runs: int, seed: int) -> Rows:
    draw = random.Random(seed)
    for number in range(max(0, runs - WITH_HISTORY), runs):
        for step in range(LONGEST if number == runs - 1 else 100):
            yield "train.loss", 1 / (1 + step) + draw.random() / 10, START + number + step, step, False, run_id(number)


def _params(runs: int, seed: int) -> Rows:
    draw = random.Random(seed)
    for number in range(runs):
        told = {
            "depth": draw.randrange(2, 13),
            "lr": 10 ** draw.uniform(-5, -1),
            "optimizer": draw.choice(_OPTIMIZERS),
            "batch": 2 ** draw.randrange(4, 10),
            "trial": number,
            "dropout": draw.randrange(6) / 10,
        }
        for name, value in told.items():
            yield name, str(value), run_id(number)


def _tags(runs: int) -> Rows:
    for number in range(runs):
        for name, value in (
            ("mainspring.seed", str(number % 5)),
            ("mainspring.code_version", f"{number // 50:040x}"),
            ("mlflow.runName", f"calm-gull-{number}"),
            ("mlflow.user", "bench"),
        ):
            yield name, value, run_id(number)
        if (above := parent(number)) is not None:
            yield "mlflow.parentRunId", run_id(above), run_id(number)


def fill_sqlite(path: Path, tables: dict[str, Rows]) -> None:
    """Put the rows into a SQLite file that MLflow has made."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("DELETE FROM experiments")
    for name, made in tables.items():
        columns = COLUMNS[name]
        places = ", ".join("?" for _ in columns.split(","))
        connection.executemany(f"INSERT INTO {name} ({columns}) VALUES ({places})", made)
    connection.commit()
    connection.close()


def fill_postgres(url: str, tables: dict[str, Rows]) -> None:
    """Put the rows into a Postgres database in which MLflow has made its tables."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM experiments")
        for name, made in tables.items():
            with cursor.copy(f"COPY {name} ({COLUMNS[name]}) FROM STDIN") as copy:
                for row in made:
                    copy.write_row(row)
