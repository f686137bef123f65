"""SQL over monitoring's tables: everything is readable, nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.console import flights
from mainspring.core.errors import Invalid
from mainspring.core.time import HOUR
from mainspring.data.adapters.delta import DeltaLake
from mainspring.ledger.columns import SCHEMA, to_batch
from mainspring.ledger.conformance import prediction
from mainspring.ledger.model import PREDICTIONS
from mainspring.monitoring.adapters.lake import LakeSketches
from mainspring.monitoring.conformance import hour_sketch
from mainspring.operations.monitor_query import query


@pytest.fixture(params=["memory", "delta"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> flights.Project:
    project = flights.populated()
    if request.param == "delta":
        project = project.having(lake=DeltaLake(tmp_path / "lake"))
    sketches = [hour_sketch("late", 1, 1.0, 70.0), hour_sketch("late", 1, 1.0, segment="b=x")]
    LakeSketches(project.lake).add("k", sketches)
    project.lake.append(PREDICTIONS, [to_batch([prediction(1), prediction(2)], 0)], SCHEMA, key="k")
    return project


def test_tables_of_the_lake_and_of_the_catalog_are_read(project: flights.Project) -> None:
    found = query(project, "SELECT endpoint, segment, rows, epoch_us(hour) FROM hours ORDER BY segment;")
    assert found.columns == ("endpoint", "segment", "rows", 'epoch_us("hour")')
    assert found.rows == [("late", "", 2, HOUR), ("late", "b=x", 1, HOUR)]
    above = "SELECT \"column\", sum(above) FROM predictions__sketches WHERE segment = '' GROUP BY ALL ORDER BY ALL"
    assert query(project, above).rows == [("a", 1), ("b", 0)]
    winds = "SELECT count(*), max(features ->> '$.\"Weather.wind\"') FROM predictions"
    assert query(project, winds).rows == [(2, "0.1")]
    windows = project.monitors.windows("late-arrival")
    total = query(project, 'SELECT sum(predictions), max("end") - min(start) > INTERVAL 1 DAY FROM windows').rows
    assert total == [(sum(each.predictions for each in windows), True)]
    assert query(project, "SELECT count(*) FROM incidents").rows == [(0,)]


def test_a_long_answer_is_cut(project: flights.Project) -> None:
    found = query(project, "SELECT * FROM range(100)", limit=10)
    assert (len(found.rows), found.cut) == (10, True)
    assert query(project, "SELECT * FROM range(10) -- all", limit=10).cut is False


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM read_blob('{lake}/**')",
        "COPY (SELECT 1) TO '{lake}/x.csv'",
        "ATTACH '{lake}/x.db'",
        "SELECT 1; SELECT 2",
        "SET enable_external_access = true",
        "INSERT INTO hours SELECT * FROM hours",
        "DROP VIEW hours",
        "SELECT * FROM scan",
        "SELECT * FROM found",
        "INSTALL httpfs",
        "SELECT 1) UNION ALL (SELECT 2",
        "not sql",
        "",
    ],
)
def test_nothing_else_is_read_and_nothing_is_written(project: flights.Project, tmp_path: Path, sql: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Invalid):
        query(project, sql.replace("{lake}", str(tmp_path)))
    assert sorted(tmp_path.rglob("*")) == before
