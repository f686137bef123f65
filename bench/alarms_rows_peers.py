"""Peers on independent rows: the columns and faults of bench/alarms_rows.py, in windows of three sizes.

A peer's score of a column is taken in deviations of the clean windows. A column is flagged over the threshold that any
column exceeds in one of these fifty windows, which is kinder than a threshold that is chosen before. How often the peer
as it comes reports a column in clean windows stands beside. Five windows a fault: Evidently takes a second for each.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alarms_peers import DEFAULT, absent, start, wait

NAMES = ("evidently", "nannyml", "alibi-detect", "whylogs")
SIZES, TRAINED = (100, 1_000, 10_000), 20_000
CHUNKS, CLEAN, FAULTY = 20, 50, 5  # windows: of training at least, without a fault, with each fault
AS_IT_COMES = "as it comes"

Columns = Mapping[str, Any]
Make = Callable[[str, np.random.Generator, int], Columns]
Shares = Mapping[tuple[str, int], Mapping[str, float]]  # of a peer and size: fault -> share of windows


@contextmanager
def running(make: Make, faults: Mapping[str, str], *, quick: bool = False) -> Iterator[Callable[[], Shares]]:
    """Start the peers that are installed; yield a function that waits for the shares of windows they flag.

    A peer's shares are those in which a fault's column is flagged, and, `AS_IT_COMES`, of clean windows with any.

    Args:
        make: Returns the columns of some rows with a fault, "" for none.
        faults: Fault -> its column.
    """
    names = [name for name in NAMES if name not in absent(NAMES)]
    sizes = SIZES[:2] if quick else SIZES
    with tempfile.TemporaryDirectory() as made:
        folders = [Path(made) / str(rows) for rows in (sizes if names else ())]
        for folder, rows in zip(folders, sizes, strict=False):
            folder.mkdir()
            random = np.random.default_rng(rows)
            windows = [make("", random, rows) for _ in range(CLEAN)]
            windows += [make(fault, random, rows) for fault in faults for _ in range(FAULTY)]
            chunks = max(TRAINED // rows, CHUNKS)
            _write([make("", random, rows) for _ in range(chunks)], folder / "training.parquet")
            _write(windows, folder / "windows.parquet")
        processes = {name: start(name, *folders) for name in names}

        def shares() -> Shares:
            found = {}
            for name, process in processes.items():
                wait(name, process, folders[0])
                for folder, rows in zip(folders, sizes, strict=True):
                    found[name, rows] = _shares(json.loads((folder / f"{name}.json").read_text()), faults)
            return found

        try:
            yield shares
        finally:
            for process in processes.values():
                process.kill()
                process.wait()


def _shares(scores: dict[str, list[float]], faults: Mapping[str, str]) -> dict[str, float]:
    found = {AS_IT_COMES: float(np.mean(scores.pop(DEFAULT)[:CLEAN]))}
    by_column: dict[str, Any] = {}
    for key, values in scores.items():
        column, numbers = key.partition("|")[0], np.array(values)
        if column:
            mean, deviation = numbers[:CLEAN].mean(), max(numbers[:CLEAN].std(), 1e-9)
            by_column[column] = np.maximum(by_column.get(column, -np.inf), (numbers - mean) / deviation)
    most = np.max([values[:CLEAN] for values in by_column.values()], axis=0)
    threshold = np.sort(most)[::-1][1]
    for number, (fault, column) in enumerate(faults.items()):
        begin = CLEAN + number * FAULTY
        found[fault] = float((by_column[column][begin : begin + FAULTY] > threshold).mean())
    return found


def _write(windows: list[Columns], path: Path) -> None:
    rows = [len(next(iter(window.values()))) for window in windows]
    number = np.repeat(np.arange(len(windows)), rows)
    columns = {name: pa.array(np.concatenate([window[name] for window in windows])) for name in windows[0]}
    pq.write_table(pa.table({**columns, "window": number}), path)
