from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mainspring.core.errors import Corrupt, Invalid, NotFound, StorageFull
from mainspring.data import duck
from mainspring.data.model import TableScan

pytestmark = pytest.mark.slow


def scan_of(*files: Path) -> TableScan:
    return TableScan(0, files=tuple(map(str, files)), schema=pq.read_schema(files[0]))


def read(scan: TableScan, con: duckdb.DuckDBPyConnection) -> None:
    with duck.duck_errors("trips", scan):
        duck.register(con, "there", scan)
        for batch in con.sql("SELECT * FROM there ORDER BY x DESC").to_arrow_reader(10_000):
            assert batch.num_rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"x": [float(n) for n in range(200_000)], "n": range(200_000)}), path, row_group_size=50_000
    )
    return path


def test_nan_in_a_file_is_nan_although_its_statistics_leave_it_out(tmp_path: Path) -> None:
    path = tmp_path / "nan.parquet"
    pq.write_table(pa.table({"x": [math.nan, 5.0, 7.0]}), path)
    assert pq.read_metadata(path).row_group(0).column(0).statistics.max == 7.0
    con = duck.connect()
    duck.register(con, "there", scan_of(path))
    found = con.execute(
        "SELECT count(*) FILTER (isnan(x)), count(*) FILTER (x > 1 AND NOT isnan(x)), max(x) FROM there"
    )
    nans, above, largest = found.fetchall()[0]
    assert (nans, above) == (1, 2)
    assert math.isnan(largest)
    assert con.execute("SELECT count(*) FROM there WHERE isnan(x)").fetchall() == [(1,)]


@pytest.mark.parametrize("damage", ["cut", "empty", "data", "pages", "footer"])
def test_a_damaged_file_is_named(tmp_path: Path, file: Path, damage: str) -> None:
    good = tmp_path / "good.parquet"
    good.write_bytes(file.read_bytes())
    content = bytearray(file.read_bytes())
    if damage in ("cut", "empty"):
        content = content[: 1000 if damage == "cut" else 0]
    start, length = {"data": (len(content) // 2, 30_000), "pages": (4, 5_000), "footer": (len(content) - 300, 200)}.get(
        damage, (0, 0)
    )
    content[start : start + length] = b"\xa5" * length
    file.write_bytes(content)
    scan = scan_of(good, file)
    with pytest.raises(Corrupt, match=r"rows\.parquet") as caught:
        read(scan, duck.connect())
    assert "good.parquet" not in str(caught.value)
    assert "backup" in str(caught.value.fix)


def test_a_file_that_went_away_is_no_damage(file: Path) -> None:
    scan = scan_of(file)
    con = duck.connect()
    duck.register(con, "there", scan)
    file.unlink()
    with pytest.raises(NotFound, match=r"trips is missing.*rows\.parquet"), duck.duck_errors("trips", scan):
        con.execute("SELECT sum(x) FROM there").fetchall()


def test_a_mistake_of_ours_stays_what_it_is() -> None:
    con = duck.connect()
    with pytest.raises(duckdb.BinderException), duck.duck_errors("trips"):
        con.execute("SELECT nothing FROM range(3)")


def test_what_does_not_fit_in_memory_goes_to_the_folder_and_leaves_it(tmp_path: Path) -> None:
    con = duck.connect("20MB", tmp_path / "state" / "spill", threads=1)
    con.execute("CREATE TEMP TABLE much AS SELECT range AS x, random() AS y FROM range(5_000_000)")
    (own,) = (tmp_path / "state" / "spill").iterdir()
    assert sum(path.stat().st_size for path in own.iterdir()) > 10e6
    con.close()
    assert list((tmp_path / "state" / "spill").iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from mainspring.data import duck
con = duck.connect("20MB", Path({str(tmp_path)!r}), threads=1)
con.execute("CREATE TEMP TABLE much AS SELECT range AS x, random() AS y FROM range(5_000_000)")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.iterdir()
    mine = tmp_path / f"spill-{os.getpid()}-living"
    mine.mkdir()
    duck.connect("20MB", tmp_path).close()
    assert not left.exists()
    assert mine.exists()


def test_a_full_folder_says_what_to_do(tmp_path: Path) -> None:
    con = duck.connect("20MB", tmp_path, threads=1)
    con.execute("SET max_temp_directory_size = '5MB'")
    with pytest.raises(StorageFull, match="No space left while reading trips") as full, duck.duck_errors("trips"):
        con.execute("CREATE TEMP TABLE much AS SELECT range AS x, random() AS y FROM range(5_000_000)")
    assert "free some space" in str(full.value.fix)


def test_too_little_memory_says_what_to_do(file: Path) -> None:
    with pytest.raises(StorageFull, match="trips cannot be read within the memory limit") as low:
        read(scan_of(file), duck.connect("1MB", threads=1))
    assert "memory_limit" in str(low.value.fix)


def test_little_memory_is_for_few_threads() -> None:
    def threads(limit: str, number: int | None = None) -> int:
        return int(duck.one_row(duck.connect(limit, threads=number), "SELECT current_setting('threads')")[0])

    assert threads("100MB") == 1
    assert threads("2GB") == min(16, threads("-1"))
    assert threads("100MB", 3) == 3


@pytest.mark.parametrize(("limit", "threads"), [("much", None), ("2GB", 0)])
def test_a_limit_that_is_none_is_refused(limit: str, threads: int | None) -> None:
    with pytest.raises(Invalid, match=f"{limit}"):
        duck.connect(limit, threads=threads)


def test_columns_that_a_file_lacks_are_null(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "old.parquet")
    schema = pa.schema([("x", pa.float64()), ("later", pa.string())])
    scan = TableScan(1, files=(str(tmp_path / "old.parquet"),), schema=schema)
    con = duck.connect()
    duck.register(con, "there", scan)
    assert con.execute("SELECT later, x FROM there").fetchall() == [(None, 1.0)]


def test_a_group_of_rows_larger_than_the_memory_is_read(tmp_path: Path) -> None:
    rows = 400_000
    numbers = np.random.default_rng(0).random((12, rows))  # 38 MB in one group, of which every column is read
    pq.write_table(pa.table({f"x{n}": column for n, column in enumerate(numbers)}), tmp_path / "wide.parquet")
    con = duck.connect("32MB", threads=1)
    duck.register(con, "there", scan_of(tmp_path / "wide.parquet"))
    sums = ", ".join(f"sum(x{n})" for n in range(12))
    with duck.duck_errors("wide"):
        found = duck.one_row(con, f"SELECT {sums} FROM there")
    assert found == pytest.approx(numbers.sum(axis=1).tolist())


def test_short_sessions_share_a_database_and_no_temporary_table() -> None:
    with duck.session() as one, duck.session() as other:
        one.execute("CREATE TEMP TABLE own AS SELECT 1 AS a")
        one.execute("CREATE TABLE common AS SELECT 2 AS a")
        assert other.execute("FROM common").fetchall() == [(2,)]
        with pytest.raises(duckdb.CatalogException):
            other.execute("FROM own")
    for _ in range(50):  # then what the database remembers of files is let go
        with duck.session() as last, pytest.raises(duckdb.CatalogException):
            last.execute("FROM own")
    with duck.session() as new, pytest.raises(duckdb.CatalogException):
        new.execute("FROM common")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork of a process with threads
def test_a_forked_process_leaves_the_database_of_its_parent_alone() -> None:
    with duck.session() as session:
        session.execute("CREATE OR REPLACE TABLE of_the_parent AS SELECT 1 AS a")
    if not (child := os.fork()):
        code = 1
        try:
            with duck.session() as session:
                assert session.execute("SELECT count(*) FROM range(500_000)").fetchall() == [(500_000,)]
                session.execute("CREATE TABLE of_the_parent AS SELECT 2 AS a")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
