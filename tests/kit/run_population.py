"""Runs made up by a seed, put into memory and into MLflow's own tables alike."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import sqlalchemy as sa

from mainspring.core.catalog import sqlalchemy_url
from mainspring.core.time import MILLISECOND, SECOND, parse_instant
from mainspring.registry.adapters.memory_search import MemoryRunSearch
from mainspring.registry.run_histories import Logged
from mainspring.registry.searching import RunRow

START = parse_instant("2026-01-01T00:00:00Z")
_TABLES = ("metrics", "latest_metrics", "params", "tags", "runs", "experiments")


@dataclass
class Population:
    """Runs, and what each logged of each metric."""

    runs: list[RunRow] = field(default_factory=list)
    logged: dict[tuple[str, str], list[tuple[float, int, int]]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)  # ids of runs, and names of models

    def in_memory(self) -> MemoryRunSearch:
        there = [run for run in self.runs if run.id not in self.deleted and run.model not in self.deleted]
        return MemoryRunSearch(lambda: there, self._logged)

    def _logged(self, run_id: str, metric: str) -> Logged:
        return self.logged.get((run_id, metric), ())

    def into(self, url: str) -> None:
        """Let MLflow's tables hold exactly these runs."""
        engine, kept = sa.create_engine(sqlalchemy_url(url)), _reflected(url)
        with engine.begin() as connection:
            for name in (*_TABLES, "experiment_tags"):
                connection.execute(sa.text(f"DELETE FROM {name}"))
            for name, rows in self._rows().items():
                if rows:
                    connection.execute(kept.tables[name].insert(), rows)
        engine.dispose()

    def _rows(self) -> dict[str, list[dict[str, object]]]:
        models = sorted({run.model for run in self.runs})
        stage = {True: "deleted", False: "active"}
        return {
            "experiments": [
                {
                    "experiment_id": n,
                    "name": name,
                    "lifecycle_stage": stage[name in self.deleted],
                    "workspace": "default",
                }
                for n, name in enumerate(models, start=1)
            ],
            "runs": [
                {
                    "run_uuid": run.id,
                    "name": run.name,
                    "status": run.status,
                    "start_time": run.started_at // MILLISECOND,
                    "end_time": None if run.ended_at is None else run.ended_at // MILLISECOND,
                    "lifecycle_stage": stage[run.id in self.deleted],
                    "experiment_id": 1 + models.index(run.model),
                    "source_type": "LOCAL",
                    "user_id": "mainspring",
                }
                for run in self.runs
            ],
            "latest_metrics": [_metric(run.id, n, v, 0, START) for run in self.runs for n, v in run.metrics.items()],
            "params": [{"run_uuid": run.id, "key": n, "value": v} for run in self.runs for n, v in run.params.items()],
            "tags": [{"run_uuid": run.id, "key": n, "value": v} for run in self.runs for n, v in run.tags.items()],
            "metrics": [
                _metric(run_id, name, *each) for (run_id, name), values in self.logged.items() for each in values
            ],
        }


@cache
def _reflected(url: str) -> sa.MetaData:
    engine, kept = sa.create_engine(sqlalchemy_url(url)), sa.MetaData()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # our indexes of expressions are none that it reflects
        kept.reflect(engine, only=_TABLES)
    engine.dispose()
    return kept


def _metric(run_id: str, name: str, value: float, step: int, at: int) -> dict[str, object]:
    nan = math.isnan(value)
    return {
        "run_uuid": run_id,
        "key": name,
        "value": 0.0 if nan else value,
        "is_nan": nan,
        "step": step,
        "timestamp": at // MILLISECOND,
    }


NUMBERS = (math.nan, -1.0, 0.0, 0.5, 0.5, 0.75, 1.0, 3.0, 1e-12, 1e300, 1.7976931348623157e308)
TEXTS = (
    "",
    "3",
    "3.0",
    "-0.5",
    "1e-4",
    ".5",
    "5.",
    "1e400",
    " 3",
    "+3",
    "nan",
    "adam",
    "Adam",
    "ADAM%",
    "a_b",
    "É",
    "x" * 90,
    "x" * 91,
    "007",
)
STATUSES = ("RUNNING", "FINISHED", "FINISHED", "FINISHED", "FAILED", "KILLED", "SCHEDULED")
METRICS, PARAMS, TAGS = (
    ("auc", "holdout.auc", "val/loss"),
    ("depth", "optimizer", "lr rate"),
    ("mainspring.seed", "note"),
)
MODELS = ("late", "fraud", "Latency")


def population(seed: int, count: int) -> Population:
    """Return runs with many ties, nothings and NaN."""
    draw = random.Random(seed)
    made = Population()
    for number in range(count):
        started = START + draw.randrange(6) * SECOND
        status = draw.choice(STATUSES)
        run = RunRow(
            id=f"{draw.getrandbits(112):028x}{number:04x}",
            name=draw.choice(("", "swift-fox", "Swift-Hare", "100%_sure", "été")),
            model=draw.choice(MODELS),
            status=status,
            started_at=started,
            ended_at=None if status in ("RUNNING", "SCHEDULED") else started + draw.randrange(4) * MILLISECOND,
            metrics={name: draw.choice(NUMBERS) for name in METRICS if draw.random() < 0.7},
            params={name: draw.choice(TEXTS) for name in PARAMS if draw.random() < 0.7},
            tags={name: draw.choice(TEXTS) for name in TAGS if draw.random() < 0.7},
        )
        made.runs.append(run)
        for name in METRICS[1:]:
            steps = draw.choice((0, 1, 3, 40))
            made.logged[run.id, name] = [*dict.fromkeys(_logged(draw, steps))]  # what is equal is kept once
        if draw.random() < 0.08:
            made.deleted.add(run.id)
    if draw.random() < 0.3:
        made.deleted.add(draw.choice(MODELS))
    return made


def _logged(draw: random.Random, steps: int) -> Iterator[tuple[float, int, int]]:
    for step in range(steps):
        yield draw.choice(NUMBERS), draw.choice((0, step, step * 1000, -step)), START + draw.randrange(9) * MILLISECOND
