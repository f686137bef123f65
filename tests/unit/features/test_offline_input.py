"""What people bring as observations, and what can be wrong with it or with the lake."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mainspring as ms
from kit.station import SCHEMA, STATION, TRAINS, World, instant, train, view
from mainspring.core.errors import Corrupt, Invalid, InvalidData, NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import TableScan
from mainspring.features.offline import point_in_time

pytestmark = pytest.mark.slow

FEATURES = view(delay=ms.last("delay"), n=ms.count(window="1h"))
INSTANT = pa.timestamp("us", tz="UTC")


@pytest.fixture
def world() -> World:
    return World(FEATURES, [train("10:00", 4.0), train("10:10", 6.0, station="bow road")])


def asked(stations: Any, times: list[str]) -> pa.Table:
    return pa.table({"station": stations, "_at": pa.array([*map(instant, times)], INSTANT)})


def read(world: World, observations: Any, **options: Any) -> dict[str, list[Any]]:
    found = point_in_time(observations, [world.view], world.lake.scan, schema=SCHEMA, **options)
    return {name: found.column(f"Trains.{name}").to_pylist() for name in ("delay", "n")}


def test_no_observations_give_no_rows_and_every_column(world: World) -> None:
    found = point_in_time(asked(pa.array([], pa.string()), []), [world.view], world.lake.scan, schema=SCHEMA)
    assert found.num_rows == 0
    assert found.schema.names == ["station", "_at", "Trains.delay", "Trains.n"]
    assert found.schema.field("Trains.n").type == pa.int64()


def test_no_rows_in_the_source_give_nulls_and_counts_of_nothing() -> None:
    world = World(FEATURES)
    world.land()
    assert read(world, asked(["mile end"], ["10:30"])) == {"delay": [None], "n": [0]}


def test_equal_observations_have_equal_rows(world: World) -> None:
    found = read(world, asked(["mile end", "bow road", "mile end", "mile end"], ["10:30"] * 4))
    assert found == {"delay": [4.0, 6.0, 4.0, 4.0], "n": [1, 1, 1, 1]}


def test_an_observation_later_than_all_data_sees_the_last_of_it(world: World) -> None:
    found = read(world, asked(["mile end", "mile end"], ["2030-01-01T00:00:00Z", "10:30"]))
    assert found == {"delay": [4.0, 4.0], "n": [0, 1]}


@pytest.mark.parametrize("at", [2**63 - 1, -(2**63), 10**17, -(10**17)])
def test_instants_that_no_clock_shows_are_only_far_away(world: World, at: int) -> None:
    table = pa.table({"station": ["mile end", "mile end"], "_at": pa.array([at, instant("10:30")], INSTANT)})
    assert read(world, table) == {"delay": [4.0 if at > 0 else None, 4.0], "n": [0, 1]}


def test_an_observation_without_a_time_or_a_key_matches_nothing(world: World) -> None:
    table = pa.table({"station": ["mile end", None], "_at": pa.array([None, instant("10:30")], INSTANT)})
    assert read(world, table) == {"delay": [None, None], "n": [0, 0]}
    nothing = pa.table({"station": pa.nulls(2), "_at": pa.array([instant("10:30")] * 2, INSTANT)})
    assert read(world, nothing) == {"delay": [None, None], "n": [0, 0]}
    never = pa.table({"station": ["mile end"], "_at": pa.nulls(1, INSTANT)})
    assert read(world, never) == {"delay": [None], "n": [0]}


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), None]
)
def test_text_is_text_however_it_is_held(world: World, kind: pa.DataType | None) -> None:
    stations = pa.array(["mile end", None, "bow road"])
    table = asked(stations.dictionary_encode() if kind is None else stations.cast(kind), ["10:30"] * 3)
    assert read(world, table) == {"delay": [4.0, None, 6.0], "n": [1, 0, 1]}


def test_chunks_and_slices_are_read_as_the_whole(world: World) -> None:
    whole = asked(["x", "mile end", "bow road", "mile end", "y"], ["09:00", "10:30", "10:30", "10:05", "09:00"])
    pieces = pa.concat_tables([whole.slice(1, 1), whole.slice(2, 0), whole.slice(2, 2)])
    assert read(world, pieces) == {"delay": [4.0, 6.0, 4.0], "n": [1, 1, 1]}


def test_the_columns_and_their_metadata_stay_as_they_came(world: World) -> None:
    fields = pa.schema(
        [pa.field("station", pa.string(), metadata={"pii": "no"}), ("_at", INSTANT), ("note", pa.int8())]
    )
    table = asked(["mile end"], ["10:30"]).append_column("note", pa.array([1], pa.int8())).cast(fields)
    table = table.replace_schema_metadata({"made": "by hand"})
    found = point_in_time(table, [world.view], world.lake.scan, schema=SCHEMA)
    assert found.select(table.column_names).schema.equals(table.schema, check_metadata=True)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames_are_observations(world: World, frame: Any) -> None:
    moment = datetime(2013, 3, 5, 10, 30, tzinfo=UTC)
    assert read(world, frame({"station": ["mile end"], "_at": [moment]})) == {"delay": [4.0], "n": [1]}


def test_times_of_python_and_pandas_without_a_zone_are_refused(world: World) -> None:
    naive = datetime(2013, 3, 5, 10, 30)  # noqa: DTZ001
    for observations in (
        pa.table({"station": ["mile end"], "_at": [naive]}),
        pd.DataFrame({"station": ["mile end"], "_at": [naive]}),
        pd.DataFrame({"station": ["mile end"], "_at": [pd.Timestamp(naive)]}),
        pl.DataFrame({"station": ["mile end"], "_at": [naive]}),
    ):
        with pytest.raises(InvalidData, match=r"_at.*no time zone") as caught:
            read(world, observations)
        assert "tz_localize" in str(caught.value.fix)
    zone = timezone(timedelta(hours=-5))
    aware = pa.table({"station": ["mile end"], "_at": [datetime(2013, 3, 5, 5, 30, tzinfo=zone)]})
    assert read(world, aware) == {"delay": [4.0], "n": [1]}


def test_a_column_that_is_missing_is_named(world: World) -> None:
    with pytest.raises(InvalidData, match=r"no column 'station'; they have \['_at'\]"):
        read(world, asked(["mile end"], ["10:30"]).select(["_at"]))
    with pytest.raises(InvalidData, match="no column '_at'"):
        read(world, asked(["mile end"], ["10:30"]).select(["station"]))
    with pytest.raises(InvalidData, match="no column 'when'"):
        read(world, asked(["mile end"], ["10:30"]), at="when")


def test_what_is_no_table_is_refused(world: World) -> None:
    with pytest.raises(InvalidData, match="unsupported type list"):
        read(world, [{"station": "mile end", "_at": 5}])


def test_a_column_named_like_a_feature_is_refused(world: World) -> None:
    table = asked(["mile end"], ["10:30"]).append_column("Trains.delay", pa.array([1.0]))
    with pytest.raises(InvalidData, match=r"have a column 'Trains\.delay'"):
        read(world, table)


def test_a_source_that_was_ingested_before_the_entity_is_refused(world: World) -> None:
    line = ms.Entity("line", keys={"station": ms.String})
    other = view(entity=line, delay=ms.last("delay"))
    with pytest.raises(Invalid, match="before entity 'line' was declared") as caught:
        point_in_time(asked(["mile end"], ["10:30"]), [other], world.lake.scan, schema=SCHEMA)
    assert caught.value.fix == "run `mainspring apply`."


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLake:
    lake = DeltaLake(tmp_path / "lake")
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    for number in range(3):
        rows = [train(f"{10 + number}:{minute:02}", float(minute)) for minute in range(40)]
        ingestor.ingest(TRAINS, rows, keyings={"station": tuple(STATION.keys)})
    return lake


def test_a_damaged_file_is_named_with_the_way_out(lake: DeltaLake) -> None:
    victim = Path(lake.scan("trains").files[1])  # type: ignore[index]
    content = bytearray(victim.read_bytes())
    content[4 : len(content) // 2] = b"\xa5" * (len(content) // 2 - 4)
    victim.write_bytes(content)
    with pytest.raises(Corrupt, match=victim.name) as caught:
        point_in_time(asked(["mile end"], ["14:00"]), [FEATURES], lake.scan, schema=SCHEMA)
    assert "backup" in str(caught.value.fix)


def test_a_version_is_read_whole_although_newer_ones_come(lake: DeltaLake) -> None:
    pinned = lake.scan("trains")
    rows = [train("12:59", 99.0)]
    Ingestor(lake, MemoryLocks(), ManualClock()).ingest(TRAINS, rows, keyings={"station": tuple(STATION.keys)})
    question = asked(["mile end"], ["14:00"])
    old = point_in_time(question, [FEATURES], lambda _: pinned, schema=SCHEMA).to_pylist()[0]
    new = point_in_time(question, [FEATURES], lake.scan, schema=SCHEMA).to_pylist()[0]
    assert (old["Trains.delay"], new["Trains.delay"]) == (39.0, 99.0)


def test_a_version_that_is_vacuumed_while_it_is_read_says_so(lake: DeltaLake) -> None:
    def scan(table: str) -> TableScan:
        pinned = lake.scan(table)
        Path(pinned.files[0]).unlink()  # type: ignore[index]
        return pinned

    with pytest.raises(NotFound, match="is missing") as caught:
        point_in_time(asked(["mile end"], ["14:00"]), [FEATURES], scan, schema=SCHEMA)
    assert "again" in str(caught.value.fix)


def test_columns_that_came_later_are_null_before(lake: DeltaLake) -> None:
    wider = replace(TRAINS, schema={**TRAINS.schema, "platform": ms.String})
    Ingestor(lake, MemoryLocks(), ManualClock()).ingest(
        wider, [{**train("13:30", 1.0), "platform": "7"}], keyings={"station": tuple(STATION.keys)}
    )
    features = view(wider, platform=ms.last("platform"))
    found = point_in_time(asked(["mile end"] * 2, ["13:00", "14:00"]), [features], lake.scan, schema=SCHEMA)
    assert found.column("Trains.platform").to_pylist() == [None, "7"]


def test_windows_before_1970_round_down_too() -> None:
    at = -10 * 3_600_000_000  # 14:00 on the last day of 1969
    rows = [
        {"left_at": moment, "known_at": moment, "station": "mile end", "delay": 1.0}
        for moment in (datetime(1969, 12, 31, 12, 59, tzinfo=UTC), datetime(1969, 12, 31, 13, 1, tzinfo=UTC))
    ]
    world = World(FEATURES, rows)
    for by, wanted in ((-1, 2), (0, 1), (1, 1)):
        table = pa.table({"station": ["mile end"], "_at": pa.array([at + by], INSTANT)})
        for worth in (0, 16):
            assert read(world, table, rows_worth_a_tile=worth)["n"] == [wanted]
