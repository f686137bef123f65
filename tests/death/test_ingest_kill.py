"""kill -9 of an ingestion at random moments, and several at once: the table is the one an undisturbed run leaves."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.depth import deep, examples
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Float32, Int32, String
from mainspring.core.time import ManualClock
from mainspring.data import duck
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.commits import vacuum
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, in_range, unique
from mainspring.data.ports import LakeTables
from mainspring.project.catalog import memory_catalog

KEYINGS = {"origin": ("origin",), "plane": ("origin", "plane")}
FLIGHTS = Source(
    "flights",
    schema={"origin": String, "plane": Int32, "delay": Float32},
    event_time="departed",
    recorded_time="recorded",
    checks=[in_range("delay", 0, 0.95), unique("departed", "plane")],
)
OPTIONS = {"batch_rows": 150, "load_rows": 1_500}
CHILD = """
import json, sys
from pathlib import Path
from mainspring.core.locks import FileLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor

sys.path.insert(0, {tests!r})
from death.test_ingest_kill import FLIGHTS, KEYINGS, OPTIONS

lake, locks, file = map(Path, sys.argv[1:])
ingestor = Ingestor(DeltaLake(lake), FileLocks(locks), ManualClock(), **OPTIONS)
print("ready", flush=True)
sys.stdin.readline()
report = ingestor.ingest(FLIGHTS, file, keyings=KEYINGS, progress=lambda done, total: print(done, flush=True))
print(json.dumps([report.rows, report.quarantined, report.already]), flush=True)
"""
ROWS = 4_000


def flights(rows: int, seed: int) -> pa.Table:
    """Return rows in no order of time, with ties, late records and rows that fail."""
    chance = random.Random(seed)
    departed = [chance.randrange(600) for _ in range(rows)]
    return pa.table(
        {
            "departed": pa.array(departed, pa.timestamp("us", "UTC")),
            "recorded": pa.array([each + chance.randrange(60) for each in departed], pa.timestamp("us", "UTC")),
            "origin": [chance.choice(["EWR", "JFK", "LGA", None]) for _ in range(rows)],
            "plane": pa.array([chance.randrange(400) for _ in range(rows)], pa.int32()),
            "delay": pa.array([chance.random() for _ in range(rows)], pa.float32()),
        }
    )


def start(lake: Path, locks: Path, file: Path) -> subprocess.Popen[str]:
    program = CHILD.format(tests=str(Path(__file__).parent.parent))
    command = [sys.executable, "-c", program, str(lake), str(locks), str(file)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def finish(child: subprocess.Popen[str]) -> list[int]:
    """Return what the child's ingestion reports: landed, quarantined, already."""
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    report: list[int] = json.loads(output.splitlines()[-1])
    return report


def content(lake: LakeTables, table: str) -> list[dict[str, Any]]:
    with duck.connect() as con:
        duck.register(con, "scanned", lake.scan(table))
        return con.sql("SELECT * FROM scanned ORDER BY _seq").to_arrow_table().to_pylist()


def check_every_version(lake: DeltaLake) -> None:
    """Every version that a reader could have met has the flags of the rule, by its words."""
    with duck.connect() as con:
        for version in range((lake.version("flights") or 0) + 1):
            duck.register(con, "v", lake.scan("flights", version))
            for name, keys in KEYINGS.items():
                same = " AND ".join(f"other.{key} = v.{key}" for key in keys)
                wrong = duck.one_row(
                    con,
                    f"""SELECT count(*) FROM v WHERE _record_{name} IS DISTINCT FROM
                        (origin IS NOT NULL AND plane IS NOT NULL AND NOT EXISTS (
                            FROM v AS other WHERE {same} AND other._visible_at <= v._visible_at AND
                            (other.departed, other.recorded, other._seq) > (v.departed, v.recorded, v._seq)))""",
                )
                assert wrong == (0,), (version, name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """Return a folder with the files to land, and what landing both leaves."""
    folder = tmp_path_factory.mktemp("undisturbed")
    pq.write_table(flights(500, seed=1), folder / "first.parquet")
    pq.write_table(flights(ROWS, seed=2), folder / "second.parquet")
    lake = DeltaLake(folder / "lake")
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(), **OPTIONS)
    for name in ("first", "second"):
        ingestor.ingest(FLIGHTS, folder / f"{name}.parquet", keyings=KEYINGS)
    check_every_version(lake)
    tables = {table: content(lake, table) for table in lake.tables()}
    assert sum(map(len, tables.values())) == ROWS + 500
    assert all(len(rows) > 200 for rows in tables.values())
    return folder, tables


def test_a_killed_ingestion_is_resumed_and_nothing_is_there_twice(tmp_path: Path, undisturbed: Any) -> None:
    folder, expected = undisturbed
    lake = DeltaLake(tmp_path / "lake")
    Ingestor(lake, MemoryLocks(), ManualClock(), **OPTIONS).ingest(FLIGHTS, folder / "first.parquet", keyings=KEYINGS)
    chance = random.Random()
    killed = 0
    for _ in range(examples(gate=12, deep=30)):
        child = start(tmp_path / "lake", tmp_path / "locks", folder / "second.parquet")
        assert child.stdout is not None
        go(child)
        for _ in range(chance.randrange(5)):
            child.stdout.readline()
        time.sleep(chance.random() * 0.1)  # any moment will do
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        killed += child.returncode == -signal.SIGKILL
        if child.returncode == 0 or killed == 5:
            break
    there = sum(len(content(lake, table)) for table in lake.tables()) - 500
    child = start(tmp_path / "lake", tmp_path / "locks", folder / "second.parquet")
    go(child)
    landed, quarantined, already = finish(child)
    assert already == there
    assert landed + quarantined + already == ROWS
    assert {table: content(lake, table) for table in lake.tables()} == expected
    check_every_version(lake)
    # What the killed left behind is swept up, and nothing else.
    vacuum(lake, CatalogSnapshots(memory_catalog()))
    assert {table: content(lake, table) for table in lake.tables()} == expected
    lying = {path.name for path in (tmp_path / "lake").rglob("*.parquet") if "_delta_log" not in path.parts}
    assert lying == {Path(file).name for table in lake.tables() for file in lake.scan(table).files or ()}


@pytest.mark.parametrize(
    "shared",
    [pytest.param(True, marks=deep, id="under one lock"), pytest.param(False, id="where no lock reaches")],
)
def test_one_batch_by_several_processes_at_once_lands_once(shared: bool, tmp_path: Path, undisturbed: Any) -> None:
    folder, expected = undisturbed
    lake = DeltaLake(tmp_path / "lake")
    Ingestor(lake, MemoryLocks(), ManualClock(), **OPTIONS).ingest(FLIGHTS, folder / "first.parquet", keyings=KEYINGS)
    children = [
        start(tmp_path / "lake", tmp_path / ("locks" if shared else f"locks-{number}"), folder / "second.parquet")
        for number in range(3)
    ]
    for child in children:
        go(child)
    reports = [finish(child) for child in children]
    assert {table: content(lake, table) for table in lake.tables()} == expected
    check_every_version(lake)
    assert all(sum(report) == ROWS for report in reports)
    if shared:
        assert sorted(report[2] for report in reports) == [0, ROWS, ROWS]
