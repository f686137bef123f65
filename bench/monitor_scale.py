"""The part of bench/monitor.py that grows a table: does a monitor's pass stay the same?

Predictions go straight into the lake's tables, 100,000 a day, with their sketches; the rows repeat, with ids, keys and
times of their own. At each size a new process looks: at what came, at a thousand more predictions, and then with the
labels of the last 30 days, of every second prediction, and at a thousand more again. Beside ours, on a window of
100,000 rows by column, the peers compare 25 columns with 20,000 training rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import mainspring as ms
from environments import PEERS, recorded
from mainspring.core.catalog import metadata, open_engine
from mainspring.core.locks import FileLocks
from mainspring.core.time import DAY, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.model import SEQUENCE, VISIBLE_AT, SourceColumn, TableScan
from mainspring.ledger.column_batches import ColumnBatch
from mainspring.ledger.columns import SCHEMA
from mainspring.ledger.model import PREDICTIONS, Asked
from mainspring.ledger.ports import Observed
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.adapters.lake import LakeSketches
from mainspring.monitoring.figures import empty_window, with_drift
from mainspring.monitoring.hours import HourSketch, made
from mainspring.monitoring.model import LabelRows
from mainspring.monitoring.served import served
from mainspring.monitoring.sketching import Sketching
from mainspring.monitoring.window_updates import WindowUpdates
from mainspring.training.label import Label
from monitor_made import FEATURES, HEADING, INSTANT, MORE, START, bundle, cpu, outcomes, peak_mb, store
from report import Case

SIZES = (300_000, 1_000_000, 3_000_000, 10_000_000)
A_DAY = 100_000
STEP = DAY // A_DAY
CHUNK = 50_000
WINDOW, TRAINED = 100_000, 20_000
NAMES = ("evidently", "nannyml", "alibi-detect", "whylogs")
_SILENT = {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}


def append(root: Path, first: int, end: int) -> dict[str, float]:
    """Append the predictions numbered `first` to `end`, and their sketches."""
    lake, described = DeltaLake(root / "lake"), served(bundle())
    observer = Sketching(LakeSketches(lake), lambda _: described)
    took = 0.0
    for begin in range(first, end, CHUNK):
        numbers = np.arange(begin, min(begin + CHUNK, end))
        took += cpu(lambda numbers=numbers: _append(lake, observer, numbers))  # type: ignore[misc]
    return {"grow": took}


def _append(lake: DeltaLake, observer: Sketching, numbers: Any) -> None:
    rows = len(numbers)
    at = START + numbers * STEP
    text = pc.cast(pa.array(numbers), pa.string())
    version = lake.version(PREDICTIONS)
    batch, features, score = _template()
    keys = pc.binary_join_element_wise(pa.scalar('{"order":"o'), text, pa.scalar('"}'), "")
    changed = {
        "id": pc.binary_join_element_wise(pa.scalar("p"), text, ""),
        "at": pa.array(at, pa.timestamp("us", tz="UTC")),
        "keys": keys,
        "arrival": pa.repeat(pa.scalar(0 if version is None else version + 1, pa.int64()), rows),
    }
    arrays = [changed.get(field.name, batch.column(place)[:rows]) for place, field in enumerate(SCHEMA)]
    key = f"chunk:{numbers[0]}"
    lake.append(PREDICTIONS, [pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)], SCHEMA, key=key)
    latencies = np.random.default_rng(int(numbers[0])).integers(500, 5_000, rows)
    cut = {name: values[:rows] for name, values in features.items()}
    observer.observe(key, [Observed("late", "1", "d1", at, np.ones(rows), latencies, cut, score[:rows])])


_made: list[Any] = []


def _template() -> Any:
    if not _made:
        rng = np.random.default_rng(1)
        features = {name: rng.normal(size=CHUNK).round(6) for name in FEATURES}
        score = rng.random(CHUNK)
        columns = [["o"] * CHUNK, *(values.tolist() for values in features.values()), score.tolist()]
        batch = ColumnBatch(
            HEADING, ["p"] * CHUNK, np.zeros(CHUNK, np.int64), np.ones(CHUNK),
            [Asked("bench", 1_000, CHUNK)], [None], columns, [],
        )  # fmt: skip
        _made.extend([batch.record_batch(0), features, score])
    return _made


def labels(end: int) -> LabelRows:
    """Labels of every second prediction of the last 30 days."""
    numbers = np.arange(max(0, end - 30 * A_DAY), end, 2)
    known = pa.array(START + numbers * STEP + 1_000, INSTANT)
    table = pa.table(
        {
            "order": pc.binary_join_element_wise(pa.scalar("o"), pc.cast(pa.array(numbers), pa.string()), ""),
            "late": pa.array(np.random.default_rng(end).random(len(numbers)) < 0.3),
            "at": known,
            "known": known,
            VISIBLE_AT: known,
            SEQUENCE: pa.array(numbers),
        }
    )
    return LabelRows(Label(SourceColumn(outcomes, "late")), {"order": ms.String}, TableScan(end, rows=table))


def look(root: Path, end: int) -> dict[str, float]:
    """Passes of a new process over a table of `end` predictions."""
    lake, known_bundle = DeltaLake(root / "lake"), bundle()
    engine = open_engine(f"sqlite:///{root / 'catalog.db'}")
    metadata.create_all(engine)
    clock = ManualClock(START + end * STEP)
    known: LabelRows | None = None
    windows = WindowUpdates(
        store(root, "log", lake), CatalogMonitors(engine), LakeSketches(lake),
        labels=lambda _: known, load=lambda _: known_bundle, clock=clock, locks=FileLocks(root / "locks"),
        window_us=DAY,
    )  # fmt: skip
    took: dict[str, float] = {}

    def timed(what: str) -> None:
        clock.set(clock.now() + STEP * MORE)
        took[what] = cpu(lambda: windows.run("late"))
        took[f"{what} MB"] = peak_mb()

    timed("came")
    append(root, end, end + MORE)
    timed("more")
    known = labels(end)
    timed("labels")
    append(root, end + MORE, end + 2 * MORE)
    timed("labelled")
    return took


def ours(folder: Path) -> dict[str, float]:
    """Sketch and test of one window, its columns in memory."""
    described = served(bundle())
    window = pq.read_table(folder / "window.parquet")
    columns = {name: window[name].combine_chunks() for name in window.column_names}
    assert described.ruler is not None

    def compare() -> None:
        sketch, pairs, summaries = described.ruler.measure_all(columns)  # type: ignore[union-attr]
        hour = HourSketch("late", "1", "d1", 0, "", sketch, pairs, rows=len(window), summaries=summaries)
        assert with_drift(empty_window("late", 0, DAY, DAY), made([hour]), lambda _: described).judged

    compare()
    return {"us": cpu(compare) / len(window) * 1e6, "MB": peak_mb()}


def peers() -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return each side's figures on one window, and why peers are missing."""
    found: dict[str, dict[str, float]] = {}
    missing = {name: f"not installed: python bench/peers.py {name}" for name in NAMES if recorded(PEERS / name) is None}
    with tempfile.TemporaryDirectory() as made_here:
        folder, rng = Path(made_here), np.random.default_rng(5)
        for name, rows in (("training", TRAINED), ("window", WINDOW)):
            pq.write_table(pa.table({each: rng.normal(size=rows) for each in FEATURES}), folder / f"{name}.parquet")
        found["ours"] = ours(folder)
        for name in NAMES:
            if name in missing:
                continue
            command = [str(PEERS / name / "bin" / "python"), str(Path(__file__).with_name("monitor_peer.py")), name]
            done = subprocess.run(
                [*command, str(folder)], env={**os.environ, **_SILENT}, check=False, capture_output=True, text=True
            )
            if done.returncode:
                missing[name] = (done.stderr.strip().splitlines() or ["it ended"])[-1]
            else:
                found[name] = json.loads(done.stdout.splitlines()[-1])
    return found, missing


def grow(root: Path, end: int) -> dict[str, float]:
    """Append predictions until there are `end`."""
    counted = DeltaLake(root / "lake").version(PREDICTIONS)
    have = 0 if counted is None else max(size for size in SIZES if size < end) + 2 * MORE
    return append(root, have, end)


SIDES: dict[str, Callable[[Path, int], dict[str, float]]] = {"grow": grow, "look": look}


def cases(grown: Mapping[int, Mapping[str, float]]) -> list[Case]:
    """Return the cases of passes by the table's size, and of one window beside the peers."""
    what = {
        "came": "all that came",
        "more": f"{MORE:,} more",
        "labels": "labels of 30 days",
        "labelled": f"{MORE:,} more, with labels",
    }
    found = [
        Case(f"{size:,} in the table: {text}", unit, round(took[name + more], 3))
        for name, text in what.items()
        for more, unit in (("", "s"), (" MB", "MB"))
        for size, took in grown.items()
    ]
    sides, missing = peers()
    for unit, key in (("µs a prediction", "us"), ("MB", "MB")):
        theirs = {name: round(sides[name][key], 2) if name in sides else None for name in NAMES}
        found.append(
            Case(f"one window of {WINDOW:,} rows", unit, round(sides["ours"][key], 2), peers=theirs, notes=missing)
        )
    return found
