"""How many rows a second come from the lake into the online store, and in how much memory?

Last values of ten features against Feast's `materialize` (SQLite online, a Parquet file offline) and against a floor:
DuckDB's newest row of each key and blobs that are ready into SQLite. Windows are ours alone. Each side runs in a
process of its own. The memory is the process's peak; ten times the rows under the same limit show that it is bounded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import mainspring as ms
from environments import PEERS
from mainspring.core.time import DAY
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.arrow import landed_schema
from mainspring.data.model import Source
from mainspring.features.model import Entity
from report import Case, report

FEATURES = tuple(f"f{n}" for n in range(10))
START = 1_700_000_000_000_000
SPAN = 90 * DAY
CHUNK = 1 << 20  # rows of a load
FEAST = PEERS / "feast" / "bin" / "python"
HERE = Path(__file__).parent

entity = Entity("user", keys={"k": ms.String})
source = Source("facts", schema={"k": ms.String, **dict.fromkeys(FEATURES, ms.Float64)}, event_time="at")


def names(numbers: np.ndarray) -> pa.Array:
    return pa.array([f"user-{number:07d}" for number in numbers.tolist()])


def chunk(first: int, count: int, rows: int, users: pa.Array, seed: int) -> pa.Table:
    """The facts numbered `first` and on, by time, over the whole span."""
    rng = np.random.default_rng([seed, first])
    low, high = (START + SPAN * place // rows for place in (first, first + count))
    at = np.sort(rng.integers(low, max(high, low + 1), count))
    return pa.table(
        {
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
            "k": users.take(pa.array(rng.integers(0, len(users), count))),
            **{name: rng.standard_normal(count) for name in FEATURES},
        }
    )


def arrivals(count: int, seed: int = 0) -> pa.Table:
    """A few facts of the last minute."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.integers(START + SPAN + seed * 60_000_000 - 60_000_000, START + SPAN + seed * 60_000_000, count))
    return pa.table(
        {
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
            "k": names(rng.integers(0, 1_000, count)),
            **{name: rng.standard_normal(count) for name in FEATURES},
        }
    )


def prepare(folder: Path, rows: int, entities: int) -> None:
    """Make a lake as ingestion leaves it where every row comes in time (so every row counts), and a Parquet file."""
    users = names(np.arange(entities))
    lake = DeltaLake(folder / "lake")
    schema = landed_schema(source, {"user": ("k",)})
    with pq.ParquetWriter(folder / "facts.parquet", chunk(0, 1, rows, users, 1).schema) as file:
        for number, first in enumerate(range(0, rows, CHUNK)):
            facts = chunk(first, min(CHUNK, rows - first), rows, users, 1)
            file.write_table(facts)
            landed = facts.append_column("_visible_at", facts["at"])
            landed = landed.append_column("_seq", pa.array(np.arange(first, first + len(facts))))
            landed = landed.append_column("_batch", pa.array(["bench"] * len(facts)))
            landed = landed.append_column("_record_user", pa.array(np.ones(len(facts), bool)))
            table = landed.select(schema.names).cast(schema)
            lake.append("facts", table.to_batches(), table.schema, key=f"bench.{number}")


def side(script: str, *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    """Run one side and return what it says."""
    command: Sequence[str] = [python, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr[-2_000:])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def feast(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return what Feast's better offline store does, or why it does nothing."""
    if not FEAST.exists():
        return None, "not installed here: run `python bench/peers.py feast`"
    best: dict[str, Any] | None = None
    why = ""
    for offline in ("dask", "duckdb"):
        try:
            found = side("materialize_feast.py", str(folder), offline, python=str(FEAST))
        except subprocess.CalledProcessError as error:
            why = f"its materialize fails on {offline}: {error.stderr.strip().splitlines()[-1]}"
            continue
        if not found["found"]:
            why = f"its materialize on {offline} leaves an entity without features"
            continue
        if best is None or found["seconds"] < best["seconds"]:
            best = found | {"offline": offline}
    return best, f"offline store {best['offline']}" if best else why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--memory-limit", default="512MB", help="DuckDB's, before it spills")
    parser.add_argument("--times", type=int, default=10, help="how many times the rows the second, bounded run has")
    arguments = parser.parse_args()
    cases: list[Case] = []
    for times in dict.fromkeys((1, arguments.times)):
        rows = arguments.rows * times
        size = f"{rows / 1e6:g}M rows, {arguments.entities / 1e3:g}k entities"
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            prepare(folder, rows, arguments.entities)
            peer, why = feast(folder) if times == 1 else (None, "not run at this size")
            floor = side("materialize_side.py", "floor", str(folder), arguments.memory_limit)
            for kind, what in (("last", "10 last values"), ("windows", "4 windows")):
                mine = side("materialize_side.py", kind, str(folder), arguments.memory_limit)
                last = kind == "last"
                notes = {"feast": why} if last else {}
                speeds = {"feast": peer and round(rows / peer["seconds"])} if last else {}
                cases += [
                    Case(
                        f"{what}, {size}", "rows/s", round(rows / mine["seconds"]),
                        round(rows / floor["seconds"]) if last else None, speeds, notes, more_is_better=True,
                    ),
                    Case(
                        f"{what}, {size}: peak memory", "MB", mine["megabytes"], floor["megabytes"] if last else None,
                        {"feast": peer and peer["megabytes"]} if last else {}, notes,
                    ),
                    Case(f"{what}, {size}: rebuilt in the same process", "rows/s", round(rows / mine["again"]),
                         more_is_better=True),
                    Case(f"{what}, {size}: a new process, 100 rows later", "ms", round(mine["restart"] * 1e3)),
                    Case(f"{what}, {size}: 100 rows later", "ms", round(mine["increment"] * 1e3, 1)),
                ]  # fmt: skip
    report("materialize", cases)


if __name__ == "__main__":
    main()
