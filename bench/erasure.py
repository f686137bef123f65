"""Erasure of one of many subjects from tables in every version, tiles, online states and keys.

Each subject has two rows, an online state and a tile. The floor reads, filters and writes again the Parquet files that
have the subject's rows, and nothing else.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.data import commits
from mainspring.operations.ingest import land
from mainspring.operations.materialize import materialise_views
from mainspring.operations.subjects import erasing
from mainspring.operations.subjects.naming import find_subjects
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from report import Case

_FILES = 10
_PROJECT = """
import mainspring as ms

customer = ms.Entity("customer", keys={"customer": ms.String})
purchases = ms.Source("purchases", schema={"customer": ms.String, "amount": ms.Float64}, event_time="at")


@ms.feature_view(entity=customer, source=purchases)
class Spending:
    spent = ms.sum("amount", window="30d")
    last = ms.last("amount")
"""


def erasure(subjects: int) -> list[Case]:
    """Measure the erasure of one subject of so many."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mainspring.toml").write_text('name = "bench"\nmodules = ["erasure_bench"]\n')
        (folder / "erasure_bench.py").write_text(_PROJECT)
        project = open_project(load_settings(folder, overrides={"tracking": "memory://"}, environment={}))
        for turn in range(_FILES):
            ids = range(turn, 2 * subjects, _FILES)
            rows = pa.table(
                {
                    "customer": [f"customer-{each % subjects:012d}" for each in ids],
                    "amount": [float(each % 97) for each in ids],
                    "at": pa.array([1_700_000_000_000_000 + each * 1_000 for each in ids], pa.timestamp("us", "UTC")),
                }
            )
            pq.write_table(rows, folder / "rows.parquet")
            land(project, "purchases", str(folder / "rows.parquet"))
        commits.commit(project.lake, project.snapshots, project.wall)
        materialise_views(project)
        (one,) = find_subjects(project, "customer", [f"customer-{subjects // 3:012d}"])
        floor = min(_rewritten(project.lake.scan("purchases").files or (), one.keys["customer"]) for _ in range(3))
        begun = time.perf_counter()
        erasing.erase(project, [one])
        took = time.perf_counter() - begun
        assert erasing.plan(project, [one]).held == []
        project.close()
    return [Case(f"one of {subjects:,} subjects erased", "s", round(took, 2), round(floor, 3))]


def _rewritten(files: tuple[str, ...], customer: object) -> float:
    begun = time.perf_counter()
    for file in files:
        if pc.any(pc.equal(pq.read_table(file, columns=["customer"])["customer"], customer)).as_py():
            rows = pq.read_table(file)
            pq.write_table(rows.filter(pc.not_equal(rows["customer"], customer)), f"{file}.floor")
            Path(f"{file}.floor").unlink()
    return time.perf_counter() - begun
