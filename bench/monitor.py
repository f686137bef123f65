"""What does monitoring cost: sketches as the log is compacted, passes over windows, and passes as the table grows?

A prediction has 25 features, and half of them have a label. First the log's segments are compacted twice, with sketches
and without; the difference is what sketching adds, and the floor of cells per second is the decoding of the segments'
frames. Then passes: the first computes the window from its sketches; the next one after a thousand more predictions;
one of a process that was started again; and passes that join labels. The floor of a pass reads the window's keys and
scores from the same files with pyarrow, and does nothing with them. bench/monitor_scale.py repeats the passes while a
table grows, and compares a window with peers. Each side runs in a process of its own. Times are of the processor; the
memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

import mainspring as ms
import monitor_scale
from mainspring.core.catalog import metadata, open_engine
from mainspring.core.locks import FileLocks
from mainspring.core.time import DAY, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.model import SEQUENCE, VISIBLE_AT, SourceColumn, TableScan
from mainspring.ledger import frames
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.adapters.unread import segments
from mainspring.ledger.columns import SCHEMA
from mainspring.ledger.model import PREDICTIONS, Asked, Batch
from mainspring.monitoring.adapters.catalog import CatalogMonitors
from mainspring.monitoring.adapters.lake import LakeSketches
from mainspring.monitoring.model import LabelRows
from mainspring.monitoring.reader import READ
from mainspring.monitoring.served import served
from mainspring.monitoring.sketching import Sketching
from mainspring.monitoring.window_updates import WindowUpdates
from mainspring.training.label import Label
from monitor_made import BATCH, FEATURES, HEADING, INSTANT, MORE, START, bundle, cpu, outcomes, peak_mb, store
from report import Case, report

WANTED_CELLS, WANTED_US = 10.0, 5.0  # millions a second and core; a prediction at 25 columns


def write(folder: Path, first: int, count: int, rows: int) -> None:
    """Log the predictions numbered `first` and on, of `rows` in the day."""
    log = SegmentLog(folder, max_buffer_bytes=1 << 40)
    rng = np.random.default_rng([1, first])
    for begin in range(first, first + count, BATCH):
        numbers = range(begin, min(begin + BATCH, first + count))
        features = rng.normal(size=(len(FEATURES), len(numbers))).round(6).tolist()
        columns = [[f"o{number}" for number in numbers], *features, rng.random(len(numbers)).tolist()]
        latencies = rng.integers(500, 5_000, len(numbers)).tolist()
        asked = [Asked("bench", latency_us, 1) for latency_us in latencies]
        log.add(Batch(HEADING, START + begin * DAY // rows, 1.0, [f"p{each}" for each in numbers], asked, columns))
    log.close()


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


def decoding(root: Path) -> dict[str, float]:
    """The floor of sketching: the log's segments are read and decoded."""

    def decode() -> None:
        for segment in segments(root / "log"):
            for payload in segment.read(len(frames.MAGIC)).payloads:
                frames.decode_batches(payload)

    return {"decode": cpu(decode)}


def plain(root: Path) -> dict[str, float]:
    """Compaction without sketches."""
    shutil.copytree(root / "log", root / "copy")
    compacting = store(root, "copy", DeltaLake(root / "plain"), sketched=False)
    return {"compact": cpu(compacting.compact), "compact MB": peak_mb()}


def sketching(root: Path) -> dict[str, float]:
    """Sketches alone, of columns that are there."""
    taken = 0.0

    class Timed(Sketching):
        def observe(self, key: str, predictions: Any) -> None:
            nonlocal taken
            taken += cpu(lambda: self.sketches(predictions))
            super().observe(key, predictions)

    described, lake = served(bundle()), DeltaLake(root / "lake")
    observer = Timed(LakeSketches(lake), lambda _: described)
    compacting = LakePredictions(root / "log", lake, FileLocks(root / "locks"), observer=observer)
    whole = cpu(compacting.compact)
    return {"compact": whole - taken, "sketch": taken, "compact MB": peak_mb()}


def passes(root: Path, rows: int) -> dict[str, float]:
    lake, made = DeltaLake(root / "lake"), bundle()
    known: LabelRows | None = None
    engine = open_engine(f"sqlite:///{root / 'catalog.db'}")
    metadata.create_all(engine)

    def started() -> WindowUpdates:
        return WindowUpdates(
            store(root, "log", lake),
            CatalogMonitors(engine),
            LakeSketches(lake),
            labels=lambda _: known,
            load=lambda _: made,
            clock=ManualClock(START + DAY),
            locks=FileLocks(root / "locks"),
            window_us=DAY,
        )

    def look(what: str) -> None:
        took[what] = cpu(lambda: windows.run("late"))
        took[f"{what} MB"] = peak_mb()

    def more(first: int) -> None:
        write(root / "log", first, MORE, rows + 3 * MORE)
        store(root, "log", lake).compact()

    took: dict[str, float] = {}
    windows = started()
    look("first")
    more(rows)
    look("more")
    more(rows + MORE)
    windows = started()
    look("again")
    known = labels(rows, 0)
    look("labels")
    more(rows + 2 * MORE)
    look("more labelled")
    return took


def floor(root: Path) -> dict[str, float]:
    def read() -> None:
        files = DeltaLake(root / "lake").scan(PREDICTIONS).files or ()
        batches = ds.dataset(list(files), schema=SCHEMA, format="parquet").to_batches(
            columns=[*READ], use_threads=False
        )
        assert sum(batch.num_rows for batch in batches) > 0

    return {"labels": cpu(read), "labels MB": peak_mb()}


SIDES: dict[str, Callable[[Path, int], dict[str, float]]] = {  # in this order: one needs what the others leave
    "decoding": lambda root, _: decoding(root),
    "plain": lambda root, _: plain(root),
    "sketching": lambda root, _: sketching(root),
    "floor": lambda root, _: floor(root),
    "passes": passes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000, help="logged predictions")
    parser.add_argument("--most", type=int, default=monitor_scale.SIZES[-1], help="predictions of the growing table")
    parser.add_argument("--side", choices=[*SIDES, *monitor_scale.SIDES])
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args()
    if asked.side:
        sides = SIDES | monitor_scale.SIDES
        print(json.dumps(sides[asked.side](asked.root, asked.rows)))
        return

    def side(name: str, rows: int, folder: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--rows", str(rows), "--root", folder, "--side", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "log", 0, asked.rows, asked.rows + 3 * MORE)
        found = {name: side(name, asked.rows, folder) for name in SIDES}
    cases = measured(found, asked.rows)
    with tempfile.TemporaryDirectory() as folder:
        sizes = [size for size in monitor_scale.SIZES if size <= asked.most]
        grown = {size: side("grow", size, folder) | side("look", size, folder) for size in sizes}
    cases += monitor_scale.cases(grown)
    met(cases[:3], grown)
    report("monitor", cases)


def met(cases: list[Case], grown: dict[int, dict[str, float]]) -> None:
    """Print what was wanted, what was got, and whether that is met."""
    sizes = [*grown]
    wanted = [
        ("cells sketched, M/s a core", f">= {WANTED_CELLS}", cases[0].ours, cases[0].ours >= WANTED_CELLS),
        ("sketches in all, µs a prediction", f"<= {WANTED_US}", cases[2].ours, cases[2].ours <= WANTED_US),
    ]
    if len(sizes) > 1:
        for what, unit in (("more", "s"), ("more MB", "MB"), ("labelled MB", "MB")):
            first, last = (grown[size][what] for size in (sizes[0], sizes[-1]))
            wanted.append(
                (f"{what}, {unit}: {sizes[0]:,} to {sizes[-1]:,}", "<= 2x", round(last / first, 2), last <= 2 * first)
            )
    for name, want, got, is_met in wanted:
        print(f"{name:50} wanted {want:8} got {got:8} {'met' if is_met else 'NOT MET'}")


def measured(found: dict[str, dict[str, float]], rows: int) -> list[Case]:
    cells = rows * (len(FEATURES) + 1)
    decoded, sketched, apart, took = (found[name] for name in ("decoding", "sketching", "plain", "passes"))
    us = 1e6 / rows
    cases = [
        Case("cells sketched", "M/s a core", round(cells / sketched["sketch"] / 1e6, 2),
             round(cells / decoded["decode"] / 1e6, 2), more_is_better=True),
        Case("sketching", "µs a prediction", round(sketched["sketch"] * us, 2), round(decoded["decode"] * us, 2)),
        Case("sketching and storing sketches", "µs a prediction",
             round((sketched["compact"] - apart["compact"]) * us, 2)),  # sketched once, as the timed turn is left out
        Case("compaction without sketches", "µs a prediction", round(apart["compact"] * us, 2)),
        Case("compaction: peak memory", "MB", sketched["compact MB"], apart["compact MB"]),
    ]  # fmt: skip
    what = {
        "first": f"first pass over {rows:,} predictions",
        "more": f"{MORE:,} more",
        "again": f"{MORE:,} more, started again",
        "labels": "pass that joins all labels",
        "more labelled": f"{MORE:,} more, with labels",
    }
    least = found["floor"]
    cases += [Case(text, "s", round(took[name], 3), least.get(name)) for name, text in what.items()]
    cases += [
        Case(f"{text}: peak memory", "MB", took[f"{name} MB"], least.get(f"{name} MB")) for name, text in what.items()
    ]
    return cases


if __name__ == "__main__":
    main()
