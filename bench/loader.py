"""How many rows a second does `ms.Loader` make shuffled batches of, from Parquet, and what do they cost a processor?

Rows of 32 float32 columns and a target, in row groups of 100,000, as batches of 256 tensors; a window of 200,000 rows.
The floor reads rows at random from a memory-mapped NumPy matrix, all of it in the page cache: no decoding, no shuffle
in memory. PyTorch's DataLoader reads the same Parquet by an IterableDataset, once row by row with its own collation, as
in its documentation, and once by batches that the dataset makes itself of one shuffled row group at a time, which is
less of a shuffle and the most that can be written by hand; without worker processes, as these compete with the training
for two processors. Ray Data reads with a local shuffle of as many rows, for half a minute, in its own environment:
`python bench/peers.py ray`; the processor time of its processes is not taken. Sides take turns; the best turn counts,
by the clock and by the processor's time of all threads, which a machine that does something else too disturbs less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset

from environments import PEERS
from mainspring.training.loading.loader import Loader
from report import Case, report

COLUMNS, BATCH, GROUP, WINDOW = 32, 256, 100_000, 200_000
NAMES = [f"c{number}" for number in range(COLUMNS)]
RAY = PEERS / "ray" / "bin" / "python"
ABSENT = "not installed: python bench/peers.py ray"


def write(folder: Path, rows: int) -> None:
    drawn = np.random.default_rng(0)
    matrix = drawn.normal(size=(rows, COLUMNS + 1)).astype(np.float32)
    np.save(folder / "rows.npy", matrix)
    columns = dict(zip([*NAMES, "y"], matrix.T, strict=True))
    pq.write_table(pa.table({name: pa.array(np.ascontiguousarray(each)) for name, each in columns.items()}),
                   folder / "rows.parquet", row_group_size=GROUP)  # fmt: skip


def ours(path: Path) -> int:
    loader = Loader(path / "rows.parquet", inputs=NAMES, targets=["y"], window=WINDOW)
    return counted((torch.from_numpy(inputs), torch.from_numpy(y)) for inputs, y in loader.batches(BATCH, seed=1))


def floor(path: Path) -> int:
    matrix = np.load(path / "rows.npy", mmap_mode="r")
    order = np.random.default_rng(1).permutation(len(matrix))
    batches = (torch.from_numpy(matrix[order[at : at + BATCH]]) for at in range(0, len(matrix), BATCH))
    return counted((rows[:, :-1], rows[:, -1:]) for rows in batches)


class ByRow(IterableDataset[Any]):
    """Rows one by one, shuffled inside row groups."""

    def __init__(self, path: Path) -> None:
        self._path = path / "rows.parquet"

    def groups(self) -> Iterator[tuple[Any, Any]]:
        drawn = np.random.default_rng(1)
        file = pq.ParquetFile(self._path)
        for group in drawn.permutation(file.num_row_groups).tolist():
            table = file.read_row_group(group)
            order = drawn.permutation(table.num_rows)
            inputs = np.column_stack([table[name].to_numpy() for name in NAMES])
            yield torch.from_numpy(inputs[order]), torch.from_numpy(table["y"].to_numpy()[order, None])

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for inputs, targets in self.groups():
            yield from zip(inputs, targets, strict=True)


class ByBatch(ByRow):
    """The same in batches."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for inputs, targets in self.groups():
            yield from zip(inputs.split(BATCH), targets.split(BATCH), strict=True)


def by_row(path: Path) -> int:
    return counted(DataLoader(ByRow(path), batch_size=BATCH))


def by_batch(path: Path) -> int:
    return counted(DataLoader(ByBatch(path), batch_size=None))


def counted(batches: Any) -> int:
    return sum(len(inputs) for inputs, targets in batches if len(inputs) == len(targets))


def rates(action: Callable[[Path], int], folder: Path) -> tuple[float, float]:
    begun, used = time.perf_counter(), time.process_time()
    rows = action(folder)
    return rows / (time.perf_counter() - begun), rows / (time.process_time() - used)


def by_ray(folder: Path) -> float | None:
    if not RAY.exists():
        return None
    command = [str(RAY), str(Path(__file__).with_name("loader_ray.py")), str(folder / "rows.parquet"), str(WINDOW)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["rows_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    best: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, asked.rows)
        for turn in range(asked.turns):
            for side in (floor, ours, by_batch, *([by_row] if turn == 0 else [])):
                found = rates(side, folder)
                before = best.get(side.__name__, found)
                best[side.__name__] = max(found[0], before[0]), max(found[1], before[1])
        ray = by_ray(folder)
    notes = {} if ray else {"Ray Data": ABSENT}
    cases = []
    for of, unit in ((0, "rows/s"), (1, "rows/s of processor")):
        peers: dict[str, float | None] = {
            "DataLoader by batch": best["by_batch"][of],
            "DataLoader by row": best["by_row"][of],
        }
        if of == 0:
            peers["Ray Data"] = ray
        figures = {peer: None if value is None else round(value) for peer, value in peers.items()}
        cases.append(Case("shuffled batches from Parquet", unit, round(best["ours"][of]), round(best["floor"][of]),
                          figures, notes if of == 0 else {}, more_is_better=True))  # fmt: skip
    report("loader", cases)


if __name__ == "__main__":
    main()
