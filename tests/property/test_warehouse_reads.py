"""Features that a warehouse reads are those of the local read, whatever the rows, in pieces and in memory."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.depth import deep, examples
from kit.engines import ROOT, python_of
from kit.histories import History, histories
from kit.warehouse_reads import TABLE, check_read, exact_columns, rows_of
from mainspring.core.expr.dialects import DIALECTS
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.features.needed import needed_for, stored_part
from mainspring.features.offline import pieces, placing
from mainspring.features.warehouse import Tables, stored_statement

ENVIRONMENTS = {"snowflake": "snowflake-client", "bigquery": "bigquery"}
COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=examples(gate=6, deep=300),
)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 7)
    monkeypatch.setattr(placing, "PIECE_ROWS", 5)


def file_of(path: Path, rows: pa.Table) -> Path:
    """A new file of DuckDB with some rows."""
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as con:
        con.execute("SET timezone = 'UTC'")
        con.register("_given", rows)
        con.execute(f'CREATE TABLE "{TABLE}" AS FROM _given')
    return path


@COMMON
@given(history=histories(), data=st.data())
def test_a_read_of_a_warehouse_is_the_local_read(tmp_path: Path, history: History, data: st.DataObject) -> None:
    arrives = data.draw(st.booleans())
    with closing(DuckdbWarehouse(file_of(tmp_path / "rows.duckdb", rows_of(history, arrives=arrives)))) as warehouse:
        check_read(warehouse, history, data, tmp_path, arrives=arrives)


@pytest.mark.parametrize("name", ["snowflake", "bigquery"])
@COMMON
@given(history=histories())
def test_a_version_of_tables_is_read_by_a_parser(name: str, history: History) -> None:
    dialect, now = DIALECTS[name], 1_700_000_000_000_001
    views = stored_part([history.view], needed_for([history.view, history.ask], exact_columns(history)))
    if not views:
        return
    text, _ = stored_statement(views, dialect, Tables("asked", "t", counted=True, as_of=now), "i")
    (tree,) = sqlglot.parse(text, dialect=name)
    assert tree is not None
    found = [table for table in tree.find_all(sqlglot.exp.Table) if table.name == "facts"]
    assert found
    for table in found:
        version = table.args.get("version") or table.args.get("when")
        assert version is not None
        assert str(now) in version.sql(name)
    asked = [table for table in tree.find_all(sqlglot.exp.Table) if table.name == "asked"]
    assert not any(table.args.get("version") or table.args.get("when") for table in asked)


@deep
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["snowflake", "bigquery"])
def test_reads_by_a_client_of_the_warehouse_are_the_local_ones(name: str) -> None:
    variables = {"FAKESNOW_PYTHON": str(python_of("snowflake"))} if name == "snowflake" else {}
    command = [python_of(ENVIRONMENTS[name]), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    ran = subprocess.run(
        [*map(str, command), f"kit/{name}_reads.py"],
        cwd=ROOT / "tests", capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", **variables},
    )  # fmt: skip
    print(ran.stdout)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    assert re.search(r"1 passed", ran.stdout)
