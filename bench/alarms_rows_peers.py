"""Peers on independent rows: the columns and faults of bench/alarms_rows.py, in windows of 1,000 rows.

A peer's score of a column is taken in deviations of the clean windows. A column is flagged over the threshold that any
column exceeds in one of a hundred of these windows, which is kinder than a threshold that is chosen before.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alarms_peers import NAMES, absent, start

ROWS, TRAINED, CLEAN, FAULTY = 1_000, 20_000, 100, 20

Columns = Mapping[str, Any]
Make = Callable[[str, np.random.Generator, int], Columns]


def shares(make: Make, faults: Mapping[str, str], *, quick: bool = False) -> dict[str, dict[str, float]]:
    """Return for each peer that is installed the share of windows in which a fault's column is flagged.

    Args:
        make: Returns the columns of some rows with a fault, "" for none.
        faults: Fault -> its column.
    """
    missing, random = absent(), np.random.default_rng(1)
    names = [name for name in NAMES if name not in missing]
    if not names:
        return {}
    clean, faulty = (50, 5) if quick else (CLEAN, FAULTY)
    windows = [make("", random, ROWS) for _ in range(clean)]
    windows += [make(fault, random, ROWS) for fault in faults for _ in range(faulty)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _write([make("", random, ROWS) for _ in range(TRAINED // ROWS)], folder / "training.parquet")
        _write(windows, folder / "windows.parquet")
        running = {name: start(name, folder) for name in names}
        for name, process in running.items():
            if process.wait():
                raise RuntimeError(f"{name} ended with {process.returncode}")
        scores = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
    return {name: _shares(scores[name], faults, clean, faulty) for name in names}


def _shares(scores: Mapping[str, list[float]], faults: Mapping[str, str], clean: int, faulty: int) -> dict[str, float]:
    by_column: dict[str, Any] = {}
    for key, values in scores.items():
        column, numbers = key.partition("|")[0], np.array(values)
        if column:
            mean, deviation = numbers[:clean].mean(), max(numbers[:clean].std(), 1e-9)
            by_column[column] = np.maximum(by_column.get(column, -np.inf), (numbers - mean) / deviation)
    most = np.max([values[:clean] for values in by_column.values()], axis=0)
    threshold = np.sort(most)[::-1][clean // 100]
    found = {}
    for number, (fault, column) in enumerate(faults.items()):
        begin = clean + number * faulty
        found[fault] = float((by_column[column][begin : begin + faulty] > threshold).mean())
    return found


def _write(windows: list[Columns], path: Path) -> None:
    rows = [len(next(iter(window.values()))) for window in windows]
    number = np.repeat(np.arange(len(windows)), rows)
    columns = {name: pa.array(np.concatenate([window[name] for window in windows])) for name in windows[0]}
    pq.write_table(pa.table({**columns, "window": number}), path)
