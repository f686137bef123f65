"""Our side, and the floor, each in a process of its own so that its memory is its own.

Arguments: what to run (`last`, `windows`, `floor`), a folder with the lake `materialize.prepare` made (and Parquet
files for the floor), DuckDB's memory limit. The last line of output is JSON: seconds, rows, entities, megabytes, ...
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FEATURES = tuple(f"f{n}" for n in range(10))
END = 1_700_000_000_000_000 + 90 * 86_400_000_000


def megabytes() -> int:
    """The peak of this process: unlike `getrusage`, without what the process had that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    before = time.perf_counter()
    result = work()
    return time.perf_counter() - before, result


def ours(kind: str, folder: Path, memory_limit: str) -> dict[str, Any]:
    import mainspring as ms
    from mainspring.core.locks import MemoryLocks
    from mainspring.core.time import HOUR, ManualClock
    from mainspring.data.adapters.delta import DeltaLake
    from mainspring.data.ingest import Ingestor
    from mainspring.features.adapters.sqlite import SqliteOnlineStore
    from mainspring.features.materialise import Materialiser
    from materialize import arrivals, entity, source

    members = {
        "last": {name: ms.last(name) for name in FEATURES},
        "windows": {
            "n_1h": ms.count(window="1h"),
            "mean_24h": ms.mean("f0", window="24h"),
            "sum_7d": ms.sum("f1", window="7d"),
            "max_30d": ms.max("f2", window="30d"),
        },
    }[kind]
    view = ms.feature_view(entity=entity, source=source)(type("Facts", (), members))
    clock = ManualClock(END)
    lake = DeltaLake(folder / "lake")
    with tempfile.TemporaryDirectory() as made:
        store = SqliteOnlineStore(Path(made) / "online.db")
        materialiser = Materialiser(lake, store, clock, memory_limit=memory_limit)
        seconds, report = timed(lambda: materialiser.run(view, horizon=HOUR))
        found = {"seconds": seconds, "rows": report.rows, "entities": report.entities, "megabytes": megabytes()}
        again, _ = timed(lambda: materialiser.rebuild(view, horizon=HOUR))
        found["again"] = again
        # A process that comes later, when a few rows have landed.
        Ingestor(lake, MemoryLocks(), clock).ingest(source, arrivals(100), keyings={"user": ("k",)})
        later = Materialiser(lake, store, clock, memory_limit=memory_limit)
        found["restart"], _ = timed(lambda: later.run(view, horizon=HOUR))
        runs = []
        for number in range(7):
            Ingestor(lake, MemoryLocks(), clock).ingest(source, arrivals(100, number + 1), keyings={"user": ("k",)})
            clock.advance(60_000_000)
            runs.append(timed(lambda: later.run(view, horizon=HOUR))[0])
        found["increment"] = sorted(runs)[len(runs) // 2]
        found["megabytes_after"] = megabytes()
    return found


def floor(folder: Path, memory_limit: str) -> dict[str, Any]:
    """The newest row of each key by DuckDB, and blobs that are ready into SQLite: what no store can do without."""
    import duckdb

    blob = bytes(100)
    with tempfile.TemporaryDirectory() as made:
        before = time.perf_counter()
        con = duckdb.connect(config={"memory_limit": memory_limit, "temp_directory": made})
        names = ", ".join(["k", '"at"', *FEATURES])
        # As Arrow: what rows become on their way to a store is not measured here.
        found = con.sql(
            f"SELECT {names} FROM '{folder}/facts.parquet' JOIN ("
            f'SELECT k, max("at") AS "at" FROM \'{folder}/facts.parquet\' GROUP BY k) USING (k, "at")'
        ).to_arrow_table()
        keys = found["k"].to_pylist()
        con = sqlite3.connect(Path(made) / "floor.db", isolation_level=None)
        con.execute("PRAGMA journal_mode=WAL")
        con.execute("PRAGMA synchronous=NORMAL")
        con.execute("CREATE TABLE state (key BLOB PRIMARY KEY, payload BLOB NOT NULL) WITHOUT ROWID")
        for start in range(0, len(keys), 5_000):
            con.execute("BEGIN IMMEDIATE")
            con.executemany(
                "INSERT OR REPLACE INTO state VALUES (?, ?)",
                [(key.encode(), blob) for key in keys[start : start + 5_000]],
            )
            con.execute("COMMIT")
        seconds = time.perf_counter() - before
    return {"seconds": seconds, "entities": len(keys), "megabytes": megabytes()}


def main() -> None:
    kind, folder, memory_limit = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(floor(folder, memory_limit) if kind == "floor" else ours(kind, folder, memory_limit)))


if __name__ == "__main__":
    main()
