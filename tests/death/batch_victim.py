"""Processes that score batches and are killed: run by test_batch_kill.py, not a test itself.

`batch_victim.py KIND:STEP...`: for each step a batch run of its own, in a child that kills itself (SIGKILL) at that
change of the output, then in one that nobody kills; says as one line of JSON what is there then. Changes are the
renames of files and the commits of the lake, before and after each. Step 0 kills nobody; a step below 1 is a moment in
seconds. KIND is `folder`, `table`, or `features`: a folder with features read by key.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kit import scoring
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.operations.batch.running import run_batch
from mainspring.operations.batch.values import Request

ROWS, CHUNK_ROWS = 100, 30


def given(kind: str, path: Path) -> None:
    """Write rows, of which some fail in some chunks."""
    if kind == "features":
        rows = scoring.parcels(ROWS)
        hubs = [None if row in (3, 40, 41) else hub for row, hub in enumerate(rows["hub"].to_pylist())]
        pq.write_table(rows.set_column(1, "hub", pa.array(hubs)), path)
        return
    rows = scoring.numbers(ROWS)
    made = [None if row in (3, 40, 41) else scoring.NOW + row for row in range(ROWS)]
    pq.write_table(rows.append_column("made_at", pa.array(made, scoring.INSTANT)), path)


def score(root: Path, kind: str) -> None:
    project = scoring.project_at(root, on_disk=True)
    output = "scored" if kind == "table" else str(root / "out")
    features = kind == "features"
    target, as_of = (scoring.FEATURES, "posted_at") if features else (scoring.NETWORK, "made_at")
    request = Request(
        target, str(root / "rows.parquet"), output, as_of, asked_by="job", threads=2, chunk_rows=CHUNK_ROWS
    )
    run_batch(project, request)


def content(root: Path, kind: str) -> dict[str, Any]:
    """Return digests of what is there, apart from what is of the run alone: its id and its duration."""
    if kind == "table":
        lake = DeltaLake(root / "lake")
        with duck.connect() as con:
            duck.register(con, "scored", lake.scan("scored"))
            rows = con.sql("FROM scored").to_arrow_table()
            duck.register(con, "refused", lake.scan("scored__quarantine"))
            refused = con.sql("FROM refused").to_arrow_table()
            duck.register(con, "batches", lake.scan("scored__batches"))
            (document,) = duck.one_row(con, "SELECT document FROM batches WHERE kind = 'report'")
        report = json.loads(document)
        left: list[str] = []
    else:
        rows = pq.read_table(root / "out")
        refused = pq.read_table(root / "out" / "_quarantine")
        report = scoring.facts(root / "out")
        left = [path.name for path in (root / "out").rglob("*.partial")]
    ids = rows["prediction_id"].to_pylist()
    kept = [name for name in rows.column_names if name != "prediction_id"]
    of_run = {"run", "source", "output", "seconds", "rows_per_s", "resumed", "ended_at"}
    return {
        "rows": _digest(rows.select(kept).to_pylist()),
        "refused": _digest(refused.to_pylist()),
        "report": _digest([{name: value for name, value in report.items() if name not in of_run}]),
        "count": len(rows),
        "ids": len(set(ids)),
        "left": left,
    }


def _digest(rows: list[Any]) -> str:
    return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()


class Steps:
    """Kills this process at the n-th change."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._lock = threading.Lock()
        self.passed = 0

    def step(self) -> None:
        with self._lock:
            self.passed += 1
            if self.passed == self._number:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **options: Any) -> Any:
            self.step()
            found = change(*arguments, **options)
            self.step()
            return found

        return stepped


def forked(work: Callable[[], object]) -> int:
    """Run `work` in a forked child and return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def dying(root: Path, kind: str, number: int) -> None:
    steps = Steps(number)
    if kind == "table":
        DeltaLake.append = steps.around(DeltaLake.append)  # type: ignore[method-assign]
    else:
        Path.replace = steps.around(Path.replace)  # type: ignore[method-assign]
    score(root, kind)


def later(root: Path, kind: str, after_s: float) -> None:
    """Score until a moment comes."""

    def kill() -> None:
        time.sleep(after_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    score(root, kind)


def trial(kind: str, number: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        given(kind, root / "rows.parquet")
        # The scans are in the lake before the first change that counts.
        forked(partial(scoring.project_at, root, on_disk=True))
        moment = 0 < number < 1
        status = forked(lambda: later(root, kind, number) if moment else dying(root, kind, int(number)))
        if status not in (0, signal.SIGKILL):
            raise SystemExit(f"a child ended with {status}")
        if status and forked(lambda: score(root, kind)):
            raise SystemExit("the child that nobody killed failed")
        killed = status == signal.SIGKILL
        if forked(lambda: print(json.dumps(content(root, kind) | {"killed": killed}), flush=True)):
            raise SystemExit("what is there cannot be read")


def main() -> None:
    for word in sys.argv[1:]:
        kind, _, step = word.partition(":")
        trial(kind, float(step))


if __name__ == "__main__":
    main()
