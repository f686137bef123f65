"""How long does a look at one window of a million predictions take, and in how much memory?

A prediction has twelve features, and half of them have a label. The first look counts the whole window; the next one
counts a thousand more, then what comes in half a minute at 2,000 a second; one of a process that was started again
goes on from what was stored; one after a label joins the window's labels again. The floor reads the same columns from
the same files with pyarrow, and does nothing with them. Each side runs in a process of its own. The memory is the
process's peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

import mainspring as ms
from mainspring.core.catalog import metadata, open_engine
from mainspring.core.locks import FileLocks
from mainspring.core.time import DAY, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.model import SEQUENCE, VISIBLE_AT, SourceColumn, TableScan
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.columns import SCHEMA, WATCHED
from mainspring.ledger.model import PREDICTIONS
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.model import LabelRows
from mainspring.monitoring.monitor import Monitor
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.stats.reference import profile
from mainspring.training.label import Label
from report import Case, report

START = 19_700 * DAY
FEATURES = [f"Traffic.f{number}" for number in range(12)]
COMMIT = 20_000  # predictions
MORE = 1_000
MANY = 60_000  # half a minute at 2,000 a second
INSTANT = pa.timestamp("us", tz="UTC")

outcomes = ms.Source(
    "outcomes", schema={"order": ms.String, "late": ms.Boolean}, event_time="at", recorded_time="known"
)


def predictions(first: int, count: int, rows: int) -> pa.RecordBatch:
    """The predictions numbered `first` and on, of `rows` in the day."""
    rng = np.random.default_rng([1, first])
    values = rng.normal(size=(count, len(FEATURES))).round(6)
    numbers = range(first, first + count)
    columns: dict[str, Any] = {
        **dict.fromkeys(SCHEMA.names, [None] * count),
        **{name: [text] * count for name, text in (("endpoint", "late"), ("model", "late"), ("version", "1"))},
        **{name: ["{}"] * count for name in ("request", "statuses", "outputs")},
        "id": [f"p{number}" for number in numbers],
        "digest": ["d1"] * count,
        "principal": ["bench"] * count,
        "at": [START + number * DAY // rows for number in numbers],
        "latency_us": rng.integers(500, 5_000, count),
        "keys": [f'{{"order":"o{number}"}}' for number in numbers],
        "features": [msgspec.json.encode(dict(zip(FEATURES, row, strict=True))).decode() for row in values.tolist()],
        "score": rng.random(count),
        "share": [1.0] * count,
        "personal": ["[]"] * count,
    }
    return pa.RecordBatch.from_arrays([pa.array(columns[each.name], each.type) for each in SCHEMA], schema=SCHEMA)


def append(lake: DeltaLake, first: int, count: int, rows: int) -> None:
    for begin in range(first, first + count, COMMIT):
        batch = predictions(begin, min(COMMIT, first + count - begin), rows)
        lake.append(PREDICTIONS, [batch], SCHEMA, key=f"bench:{begin}")


def labels(rows: int, version: int) -> LabelRows:
    """Labels of every second prediction, an hour after the day began at the earliest."""
    numbers = np.arange(0, rows, 2)
    known = pa.array(START + numbers * DAY // rows + 1_000, INSTANT)
    table = pa.table(
        {
            "order": [f"o{number}" for number in numbers.tolist()],
            "late": pa.array(np.random.default_rng(version).random(len(numbers)) < 0.3),
            "at": known,
            "known": known,
            VISIBLE_AT: known,
            SEQUENCE: pa.array(numbers),
        }
    )
    return LabelRows(Label(SourceColumn(outcomes, "late")), {"order": ms.String}, TableScan(version, rows=table))


def served() -> Bundle:
    rng = np.random.default_rng(0)
    reference = profile({**{name: rng.normal(size=50_000) for name in FEATURES}, "probability": rng.random(50_000)})
    inputs = tuple(Input(name, ms.Float64) for name in FEATURES)
    manifest = Manifest(
        model="late",
        task="binary",
        flavour="onnx",
        inputs=inputs,
        outputs=("probability",),
        run_id="r",
        dataset_commit="c",
        features_digest="f",
        code_version="v",
        created_at=0,
    )
    return Bundle("d1", manifest, {"reference.json": msgspec.json.encode(reference)})


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return round(int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024, 1)


def ours(root: Path, rows: int) -> dict[str, float]:
    lake, known, bundle = DeltaLake(root / "lake"), labels(rows, 0), served()
    engine = open_engine(f"sqlite:///{root / 'catalog.db'}")
    metadata.create_all(engine)

    def started() -> Monitor:
        return Monitor(
            LakePredictions(root / "ledger", lake, FileLocks(root / "locks")),
            CatalogMonitors(engine),
            labels=lambda _: known,
            load=lambda _: bundle,
            clock=ManualClock(START + DAY),
            locks=FileLocks(root / "locks"),
            window_us=DAY,
        )

    def look(what: str) -> None:
        began = time.perf_counter()
        monitor.run("late")
        took[what] = time.perf_counter() - began
        took[f"{what} MB"] = peak_mb()

    took: dict[str, float] = {}
    whole = rows + MANY + 2 * MORE
    monitor = started()
    look("first")
    append(lake, rows, MORE, whole)
    look("more")
    append(lake, rows + MORE, MANY, whole)
    look("many")
    append(lake, rows + MORE + MANY, MORE, whole)
    monitor = started()
    look("again")
    known = labels(rows, 1)
    look("labels")
    return took


def floor(root: Path, rows: int) -> dict[str, float]:
    began = time.perf_counter()
    files = DeltaLake(root / "lake").scan(PREDICTIONS).files or ()
    batches = ds.dataset(list(files), schema=SCHEMA, format="parquet").to_batches(columns=[*WATCHED], use_threads=False)
    assert sum(batch.num_rows for batch in batches) == rows
    return {"first": time.perf_counter() - began, "first MB": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--side", choices=["ours", "floor"])
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps((ours if asked.side == "ours" else floor)(asked.root, asked.rows)))
        return
    with tempfile.TemporaryDirectory() as folder:
        append(DeltaLake(Path(folder) / "lake"), 0, asked.rows, asked.rows + MANY + 2 * MORE)

        def side(name: str) -> dict[str, float]:
            command = [sys.executable, __file__, "--rows", str(asked.rows), "--root", folder, "--side", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            return dict(json.loads(done.stdout.splitlines()[-1]))

        least, mine = side("floor"), side("ours")
    what = {
        "first": f"first look at {asked.rows:,} predictions",
        "more": f"{MORE:,} more",
        "many": f"{MANY:,} more",
        "again": f"{MORE:,} more, started again",
        "labels": "other labels",
    }
    cases = [Case(text, "s", mine[name], least.get(name)) for name, text in what.items()]
    cases += [
        Case(f"{text}: peak memory", "MB", mine[f"{name} MB"], least.get(f"{name} MB")) for name, text in what.items()
    ]
    report("monitor", cases)


if __name__ == "__main__":
    main()
