"""Every warehouse that runs on this machine, against the shared suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from kit.depth import deep
from kit.engines import ROOT, python_of
from mainspring.core.errors import Invalid, NotFound, Unavailable
from mainspring.core.settings import Url
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.data.warehouse.conformance import DELIVERIES, Shop, WarehouseConformance
from mainspring.data.warehouse.ports import UnloadedFile


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("warehouse") / "it's.duckdb"
    with duckdb.connect(str(path)) as con:
        con.register("found", DELIVERIES)
        con.execute("CREATE SCHEMA raw; CREATE TABLE raw.deliveries AS FROM found")
        con.execute("CREATE TABLE odd AS SELECT 1 AS n, [1] AS list, TIME '10:00' AS hour")
    return path


@pytest.fixture(scope="module")
def opened(file: Path) -> Iterator[DuckdbWarehouse]:
    with closing(DuckdbWarehouse(file)) as warehouse:
        yield warehouse


class TestDuckdbWarehouse(WarehouseConformance):
    many = "SELECT range AS n FROM range(1000000)"
    has_ids = False

    @pytest.fixture
    def warehouse(self, opened: DuckdbWarehouse) -> DuckdbWarehouse:
        return opened

    @pytest.fixture
    def shop(self, tmp_path: Path) -> Shop:
        def content(file: UnloadedFile) -> bytes:
            return Path(file.at).read_bytes()

        return Shop("raw.deliveries", Url(f"file://{tmp_path / 'unloaded'}"), content)

    def test_columns_of_other_types_are_left_out_and_refused(self, warehouse: DuckdbWarehouse) -> None:
        assert list(warehouse.columns("odd")) == ["n"]
        with pytest.raises(Invalid, match=r"Column 'list' .* list<"), warehouse.read('SELECT n, "list" FROM odd'):
            pass

    def test_nothing_is_written_to_the_file(self, warehouse: DuckdbWarehouse) -> None:
        for text in ("DELETE FROM odd", "CREATE TABLE other (n int)", "DROP TABLE odd"):
            with pytest.raises(Invalid, match="read-only"), warehouse.read(text):
                pass


def test_a_file_that_is_missing_damaged_or_being_written_is_named(tmp_path: Path, file: Path) -> None:
    missing = tmp_path / "missing.duckdb"
    with pytest.raises(NotFound, match=r"missing\.duckdb"):
        DuckdbWarehouse(missing).ping()
    assert not missing.exists()
    (tmp_path / "text.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(Invalid, match=r"text\.duckdb is not a file of DuckDB"):
        DuckdbWarehouse(tmp_path / "text.duckdb").ping()
    held = tmp_path / "held.duckdb"
    writes = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", writes, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        warehouse = DuckdbWarehouse(held)
        with pytest.raises(Unavailable, match=r"held\.duckdb is being written"):
            warehouse.ping()
        writer.communicate()
    assert warehouse.ping()


@deep
@pytest.mark.timeout(1200)
def test_snowflakes_connector_on_a_server_of_its_protocol() -> None:
    in_environment("snowflake-client", "kit/snowflake_warehouse.py", FAKESNOW_PYTHON=str(python_of("snowflake")))


@deep
@pytest.mark.timeout(1200)
def test_bigquerys_client_on_a_server_of_its_protocol() -> None:
    in_environment("bigquery", "kit/bigquery_warehouse.py")


def in_environment(engine: str, tests: str, **variables: str) -> None:
    """Run tests in the environment of an engine, which sees this one's packages, too."""
    ran = subprocess.run(
        [str(python_of(engine)), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", tests],
        cwd=ROOT / "tests", env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(ran.stdout)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    assert re.search(r"[2-9]\d passed", ran.stdout)
