from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import mainspring as ms
from kit.station import SCHEMA, STATION, TRAINS, instant, train, view
from mainspring.core.errors import Invalid
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.features.offline.plan import explain


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLake:
    lake = DeltaLake(tmp_path)
    for hour in (10, 11):
        rows = [train(f"{hour}:{minute:02}", float(minute)) for minute in range(60)]
        Ingestor(lake, MemoryLocks(), ManualClock()).ingest(TRAINS, rows, keyings={"station": ("station",)})
    return lake


@ms.feature_view(entity=STATION, source=TRAINS)
class Trains:
    delay = ms.last("delay")
    n = ms.count(window="1h")
    long = ms.max("delay", window="30d", where=ms.col("delay") > 3)
    share = n / 60


@ms.on_demand_features
class Asked:
    more = Trains.n + ms.col("seats")


def test_the_plan_names_what_is_read(lake: DeltaLake) -> None:
    steps = explain([Trains, Asked], lake.scan, {**SCHEMA, "seats": ms.Int64})
    assert [(step.view, step.what, step.features) for step in steps] == [
        ("Trains", "last values", ("delay",)),
        ("Trains", "windows", ("n",)),
        ("Trains", "windows", ("long",)),
        ("Trains", "computed", ("share",)),
        ("Asked", "computed", ("more",)),
    ]
    first, hour, month, share, more = steps
    assert (first.source, first.version, first.rows, first.files) == ("trains", 1, 120, 2)
    assert first.columns == ("station", "_visible_at", "left_at", "_record_station", "_seq", "delay")
    assert "ASOF JOIN" in first.sql
    assert hour.columns == ("station", "_visible_at", "left_at")
    assert month.columns == ("station", "_visible_at", "left_at", "delay")
    assert (share.source, share.files, share.columns) == ("", 0, ("n",))
    assert more.columns == ("Trains.n", "seats")
    assert not any(step.plan for step in steps)


@pytest.mark.parametrize("analyze", [False, True])
def test_the_sql_is_the_sql_that_runs(lake: DeltaLake, analyze: bool) -> None:
    steps = explain([Trains], lake.scan, SCHEMA, analyze=analyze)
    con = duck.connect()
    duck.register(con, "source", lake.scan("trains"))
    now = instant("11:30")
    con.register("observed", pa.table({"_i": [0], "_t": [now], "station": ["mile end"]}))
    con.execute(f"SET VARIABLE oldest = {now}; SET VARIABLE newest = {now}")
    found = []
    for step in steps[:3]:
        *made, result = step.sql.split(";\n")
        for statement in made:
            con.execute(statement)
        found.append(con.execute(result).fetchall())
        for name in ("folded", "rows_in", "asked", "single", "level_1", "level_0"):
            for kind in ("TABLE", "VIEW"):
                if f"CREATE TEMP {kind} {name} " in step.sql:
                    con.execute(f"DROP {kind} {name}")
    assert found == [[(0, 29.0)], [(0, 60)], [(0, 59.0)]]


def test_duckdb_is_asked_when_wanted(lake: DeltaLake) -> None:
    steps = explain([Trains], lake.scan, SCHEMA, analyze=True)
    assert "Asof Join" in steps[0].plan
    assert all("Join" in step.plan for step in steps[:3])


def test_a_source_without_the_flag_is_refused(lake: DeltaLake) -> None:
    line = ms.Entity("line", keys={"station": ms.String})
    with pytest.raises(Invalid, match="before entity 'line' was declared"):
        explain([view(entity=line, delay=ms.last("delay"))], lake.scan, SCHEMA)


def test_a_sweep_shows_what_is_swept(lake: DeltaLake) -> None:
    (step,) = explain([view(tail=ms.quantile("delay", 0.9, window="24h"))], lake.scan, SCHEMA, analyze=True)
    assert "-- swept" in step.sql
    assert "ORDER BY kid, moment" in step.sql
