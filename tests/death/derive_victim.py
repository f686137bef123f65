"""Processes that compute a derived table and are killed: run by test_derive_kill.py, not a test itself.

`derive_victim.py FOLDER SECONDS...` lands reviews and derives in a copy of FOLDER, once for each of SECONDS, in a child
that is killed after so long; then again until all is done, and prints as one line of JSON what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from kit.reviews import Careful, batch, reviews
from mainspring.core.locks import FileLocks
from mainspring.core.time import HOUR, ManualClock, parse_instant
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import QUARANTINE_SUFFIX, SEQUENCE
from mainspring.features.functions.deriving import Deriver
from mainspring.features.functions.model import DERIVED_FROM, FAILURE, DerivedSource

NOW = parse_instant("2024-03-05T10:00:00Z") + 10 * HOUR
KEYINGS = {"shop": ("shop",)}
ROWS = 60


def parts(folder: Path) -> tuple[DeltaLake, Ingestor, FileLocks]:
    lake, locks = DeltaLake(folder / "lake"), FileLocks(folder / "locks")
    return lake, Ingestor(lake, locks, ManualClock(NOW)), locks


def land(folder: Path, seeds: range) -> None:
    for seed in seeds:
        parts(folder)[1].ingest(reviews, batch(seed, ROWS), keyings=KEYINGS)


def derive(folder: Path, seeds: range) -> None:
    """Land and derive, batch after batch."""
    assert isinstance(Careful.source, DerivedSource)
    deriver = Deriver(*parts(folder))
    print("ready", flush=True)
    for seed in seeds:
        land(folder, range(seed, seed + 1))
        deriver.derive(Careful.source, KEYINGS)


def content(folder: Path) -> dict[str, Any]:
    """A digest of the derived rows and of what they are derived from, in the order of arrival."""
    lake, _, _ = parts(folder)
    name = Careful.source.name
    columns = f"{DERIVED_FROM}, shop, written_at, size, _record_shop"
    with duck.connect() as con:
        duck.register(con, "derived", lake.scan(name))
        duck.register(con, "aside", lake.scan(name + QUARANTINE_SUFFIX))
        duck.register(con, "parent", lake.scan("reviews"))
        rows = con.execute(f"SELECT {columns} FROM derived ORDER BY {SEQUENCE}").fetchall()
        aside = con.execute(f"SELECT {DERIVED_FROM}, {FAILURE} FROM aside ORDER BY CAST({DERIVED_FROM} AS BIGINT)")
        failed = aside.fetchall()
        every = [row[0] for row in con.execute(f"SELECT {SEQUENCE} FROM parent ORDER BY 1").fetchall()]
    return {
        "rows": len(rows),
        "failed": len(failed),
        "each_once": sorted([row[0] for row in rows] + [int(row[0]) for row in failed]) == every,
        "in_order": [row[0] for row in rows] == sorted(row[0] for row in rows),
        "digest": hashlib.sha256(repr((rows, failed)).encode()).hexdigest(),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    if sys.argv[2] == "work":
        derive(folder, range(2, 5))
        return
    for seconds in sys.argv[2:]:
        copy = folder.with_name(f"{folder.name}-trial")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen([sys.executable, __file__, str(copy), "work"], env=environment, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        try:
            child.wait(float(seconds))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        status = child.wait()
        derive(copy, range(2, 5))  # a batch that was landed is not landed again
        print(json.dumps(content(copy) | {"killed": status == -signal.SIGKILL}), flush=True)


if __name__ == "__main__":
    main()
