"""Peers on independent rows: the columns and faults of bench/alarms_rows.py, in windows of three sizes.

A peer's score of a column is taken in deviations of the clean windows. A column is flagged over the threshold that any
column exceeds in one of these windows, which is kinder than a threshold that is chosen before. How often the peer as it
comes reports a column in clean windows stands beside.
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
CHUNKS = 20  # windows of training at least
CLEAN, FAULTY = 50, 5  # windows without a fault, and with each fault
MOST = 1e4  # of a score: a chi-square of a category that the reference lacks is infinite
FEWER = {"evidently": (20, 2)}  # it takes two seconds for a window
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
        numbers = {name: FEWER.get(name, (CLEAN, FAULTY)) for name in names}
        for clean, faulty in {*numbers.values()}:
            for rows in sizes:
                folder = Path(made) / f"{rows}-{clean}"
                folder.mkdir()
                random = np.random.default_rng(rows)
                chunks = max(TRAINED // rows, CHUNKS)
                _write([make("", random, rows) for _ in range(chunks)], folder / "training.parquet")
                windows = [make("", random, rows) for _ in range(clean)]
                windows += [make(fault, random, rows) for fault in faults for _ in range(faulty)]
                _write(windows, folder / "windows.parquet")
        folders = {name: [Path(made) / f"{rows}-{clean}" for rows in sizes] for name, (clean, _) in numbers.items()}
        processes = {name: start(name, *folders[name]) for name in names}

        def shares() -> Shares:
            found = {}
            for name, process in processes.items():
                wait(name, process, folders[name][0])
                for folder, rows in zip(folders[name], sizes, strict=True):
                    scores = json.loads((folder / f"{name}.json").read_text())
                    found[name, rows] = _shares(scores, faults, *numbers[name])
            return found

        try:
            yield shares
        finally:
            for process in processes.values():
                process.kill()
                process.wait()


def _shares(scores: dict[str, list[float]], faults: Mapping[str, str], clean: int, faulty: int) -> dict[str, float]:
    found = {AS_IT_COMES: float(np.mean(scores.pop(DEFAULT)[:clean]))}
    by_column: dict[str, Any] = {}
    for key, values in scores.items():
        column, numbers = key.partition("|")[0], np.clip(values, -MOST, MOST)
        if column:
            mean, deviation = numbers[:clean].mean(), max(numbers[:clean].std(), 1e-9)
            by_column[column] = np.maximum(by_column.get(column, -np.inf), (numbers - mean) / deviation)
    most = np.max([values[:clean] for values in by_column.values()], axis=0)
    threshold = np.sort(most)[::-1][1]
    for number, (fault, column) in enumerate(faults.items()):
        begin = clean + number * faulty
        found[fault] = float((by_column[column][begin : begin + faulty] > threshold).mean())
    return found


def _write(windows: list[Columns], path: Path) -> None:
    rows = [len(next(iter(window.values()))) for window in windows]
    number = np.repeat(np.arange(len(windows)), rows)
    columns = {name: pa.array(np.concatenate([window[name] for window in windows])) for name in windows[0]}
    pq.write_table(pa.table({**columns, "window": number}), path)
