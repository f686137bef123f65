"""What does it cost to look at a table, to compare two of its versions, and to go back?

The profile stands against DuckDB's own SUMMARIZE of the same files, which has neither histograms nor counted values.
Each runs in a process of its own, whose largest memory is told. Going back stands against writing the rows anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mainspring.core.locks import MemoryLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.diff import diff
from mainspring.data.profile import profile
from report import Case, report

TABLE = "facts"
PIECE = 1_000_000
MEMORY = "1GB"


def rows(count: int, start: int) -> pa.Table:
    chance = np.random.default_rng(start)
    missing = chance.random(count) < 0.1
    return pa.table(
        {
            "at": pa.array((np.arange(count) + start) * 1_000_000, pa.timestamp("us", "UTC")),
            "amount": chance.lognormal(3, 2, count),
            "score": pa.array(chance.random(count, np.float32), mask=missing),
            "kind": pa.array(chance.integers(0, 20, count, np.int32)),
            "place": pa.array(chance.integers(0, 500, count)).cast(pa.string()),
            "person": pa.array(chance.integers(0, 10_000_000, count)).cast(pa.string()),
            "_seq": pa.array(np.arange(count) + start),
        }
    )


def fill(lake: DeltaLake, count: int) -> None:
    for start in range(0, count, PIECE):
        piece = rows(min(PIECE, count - start), start)
        lake.append(TABLE, piece.to_batches(), piece.schema, key=f"{start}")
    piece = rows(max(count // 100, 1), count)
    lake.append(TABLE, piece.to_batches(), piece.schema, key="more")


def look(what: str, folder: Path, count: int) -> dict[str, Any]:
    """Do one thing; return the seconds and the largest memory, MB."""
    lake = DeltaLake(folder, MemoryLocks())
    if what == "fill":
        fill(lake, count)
        return {}
    newest = lake.version(TABLE) or 0
    scan = lake.scan(TABLE)
    begun = time.perf_counter()
    if what == "profile":
        profile(scan, memory_limit=MEMORY)
    elif what == "summarize":
        with duckdb.connect(config={"memory_limit": MEMORY}) as con:
            con.execute("SET enable_progress_bar = false")
            columns = ", ".join(f'"{name}"' for name in (scan.schema or ()).names if not name.startswith("_"))
            con.execute(f"SUMMARIZE SELECT {columns} FROM read_parquet({list(scan.files or ())})").fetchall()
    elif what == "diff":
        diff(lake, {TABLE: newest - 1}, {TABLE: newest}, memory_limit=MEMORY)
    elif what == "restore":
        lake.restore(TABLE, newest - 1)
    else:
        with duckdb.connect(config={"memory_limit": MEMORY}) as con:
            reader = con.sql(f"SELECT * FROM read_parquet({list(lake.scan(TABLE, 0).files or ())})").to_arrow_reader()
            lake.replace(TABLE, reader, scan.schema or pa.schema([]), key=os.urandom(8).hex())
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run(what: str, folder: Path, count: int = 0) -> dict[str, Any]:
    """Do one thing in a process of its own: what it remembers as its largest memory begins with its parent's."""
    command = [sys.executable, __file__, "--look", what, "--folder", str(folder), "--rows", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def best(what: str, folder: Path, rounds: int) -> dict[str, Any]:
    return min((run(what, folder) for _ in range(rounds)), key=lambda found: float(found["seconds"]))


def cases(folder: Path, count: int, rounds: int) -> Sequence[Case]:
    run("fill", folder, count)
    total = DeltaLake(folder).describe(TABLE).rows
    ours, floor = best("profile", folder, rounds), best("summarize", folder, rounds)
    difference = best("diff", folder, rounds)
    restored = best("restore", folder, 1)
    one_piece = best("rewrite", folder, 1)
    size = f"{total:,} rows x 6 columns"

    def speed(found: dict[str, Any]) -> float:
        return float(total / found["seconds"])

    return [
        Case(
            f"profile, {size}", "rows/s", speed(ours), speed(floor), more_is_better=True, notes={"floor": "SUMMARIZE"}
        ),
        Case(f"profile, {size}: memory", "MB", ours["mb"], floor["mb"], notes={"memory": f"DuckDB may use {MEMORY}"}),
        Case(f"diff of two versions, 1% came, {size}", "s", difference["seconds"], total / speed(floor)),
        Case(f"diff of two versions, 1% came, {size}: memory", "MB", difference["mb"]),
        Case(f"restore, {size}", "s", restored["seconds"], notes={"restore": "by the log alone"}),
        Case(f"writing {min(PIECE, count):,} rows anew", "s", one_piece["seconds"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--look", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.look:
        print(json.dumps(look(arguments.look, arguments.folder, arguments.rows)))
        return
    with tempfile.TemporaryDirectory() as folder:
        report("describe", cases(Path(folder) / "lake", arguments.rows, arguments.rounds))


if __name__ == "__main__":
    main()
