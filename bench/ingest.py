"""How much processor time and memory does ingestion cost beside a bare Delta write, and does it grow with the table?

Each size is one Parquet file of card payments in order of time, where one row in fifty becomes known a minute late.
Ours validates, deduplicates, ranks and lands the rows; the floor is `deltalake.write_deltalake` of the same file. Then
100 more rows land on the same table, in a new process. Time is processor time, user and system, so that a busy machine
changes it little; each is the least of rounds in which ours and the floor take turns, for what disturbs a run only adds
to it (a virtual machine may take as long again to give memory for the first time). Memory is the highest peak.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from materialize_side import megabytes
from report import Case, report

START = 1_700_000_000_000_000
STEP = 100_000  # microseconds between payments
CHUNK = 1 << 20  # rows made at a time
FEW = 100
INSTANT = pa.timestamp("us", tz="UTC")


def payments(first: int, count: int, cards: int) -> pa.Table:
    """Return the payments numbered `first` and on."""
    rng = np.random.default_rng([7, first])
    at = START + STEP * np.arange(first, first + count)
    late = np.where(rng.random(count) < 0.02, 60_000_000, 0)
    number = rng.integers(0, cards, count)
    return pa.table(
        {
            "at": pa.array(at, INSTANT),
            "known": pa.array(at + late, INSTANT),
            "payment": pa.array(np.char.mod("p%011d", np.arange(first, first + count)).astype(object)),
            "card": pa.array(np.char.mod("c%08d", number).astype(object)),
            "merchant": pa.array(rng.integers(0, 5_000, count)),
            "amount": np.round(rng.gamma(2, 20, count), 2),
            "abroad": rng.random(count) < 0.1,
        }
    )


def prepare(path: Path, rows: int, cards: int) -> None:
    with pq.ParquetWriter(path, payments(0, 1, cards).schema) as file:
        for first in range(0, rows, CHUNK):
            file.write_table(payments(first, min(CHUNK, rows - first), cards))


def spent(work: Callable[[], Any]) -> dict[str, Any]:
    before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall": time.perf_counter() - wall,
        "megabytes": megabytes(),
    }


def ours(folder: Path, file: Path, unique: bool) -> dict[str, Any]:
    import mainspring as ms
    from mainspring.core.locks import FileLocks
    from mainspring.core.time import SystemClock
    from mainspring.data.adapters.delta import DeltaLake
    from mainspring.data.ingest import Ingestor

    source = ms.Source(
        "payments",
        schema={
            "payment": ms.String,
            "card": ms.String,
            "merchant": ms.Int64,
            "amount": ms.Float64,
            "abroad": ms.Boolean,
        },
        event_time="at",
        recorded_time="known",
        checks=[
            ms.checks.in_range("amount", 0, 100_000),
            ms.checks.not_null("card"),
            *([ms.checks.unique("payment")] if unique else []),
        ],
    )
    ingestor = Ingestor(DeltaLake(folder), FileLocks(folder.parent / "locks"), SystemClock())
    return spent(lambda: ingestor.ingest(source, file, keyings={"card": ("card",)}))


def bare(folder: Path, file: Path) -> dict[str, Any]:
    from deltalake import write_deltalake

    parquet = pq.ParquetFile(file)
    batches = parquet.iter_batches(batch_size=65_536)
    reader = pa.RecordBatchReader.from_batches(parquet.schema_arrow, batches)
    return spent(lambda: write_deltalake(folder, reader, mode="append"))


def side(kind: str, folder: Path, file: Path) -> dict[str, Any]:
    os.sync()  # ours syncs what it lands: it shall not pay for what others left unwritten
    done = subprocess.run(
        [sys.executable, __file__, "--side", kind, str(folder), str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr[-2_000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(rows: int, cards: int, unique: bool, rounds: int) -> list[Case]:
    mine = "unique" if unique else "ours"
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder / "file.parquet", rows, cards)
        pq.write_table(payments(rows, FEW, cards), folder / "few.parquet")
        for _ in range(rounds):
            for kind in ("bare", mine):
                for name in ("file", "few"):
                    found.setdefault((kind, name), []).append(side(kind, folder / kind, folder / f"{name}.parquet"))
                shutil.rmtree(folder / kind)
    what = ", payment is unique" if unique else ""
    names = {"file": f"{rows / 1e6:g}M rows from a file{what}", "few": f"{FEW} more rows on {rows / 1e6:g}M rows{what}"}
    return [
        Case(names[name], unit, *(worth(one[key] for one in found[kind, name]) for kind in (mine, "bare")))
        for unit, key, worth in (("processor s", "cpu", min), ("peak MB", "megabytes", max))
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000, 20_000_000])
    parser.add_argument("--cards", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unique", action="store_true", help="the source also says that its payments are unique")
    parser.add_argument("--small", action="store_true", help="100,000 and 1,000,000 rows")
    parser.add_argument("--side", nargs=3, metavar=("KIND", "FOLDER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        kind, folder, file = arguments.side
        found = bare(Path(folder), Path(file)) if kind == "bare" else ours(Path(folder), Path(file), kind == "unique")
        print(json.dumps(found))
        return
    sizes = [100_000, 1_000_000] if arguments.small else arguments.rows
    report(
        "ingest",
        [case for rows in sizes for case in measure(rows, arguments.cards, arguments.unique, arguments.rounds)],
    )


if __name__ == "__main__":
    main()
