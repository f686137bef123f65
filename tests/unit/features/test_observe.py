from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

import mainspring as ms
from mainspring.core.errors import Invalid
from mainspring.core.expr import col
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, ManualClock, to_datetime
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.features.model import Entity, Observations
from mainspring.features.offline import observe

PLACE = Entity("place", keys={"place": ms.String})
TRIPS = Source(
    "trips", schema={"place": ms.String, "km": ms.Float32, "starts_at": ms.Timestamp}, event_time="booked_at"
)
AT = Observations(TRIPS, keys=[PLACE], at=col("starts_at") - ms.hours(2))


def trip(place: str, hour: int | None) -> dict[str, Any]:
    starts_at = None if hour is None else to_datetime(hour * HOUR)
    return {"booked_at": to_datetime(0), "place": place, "km": 1.5, "starts_at": starts_at}


@pytest.fixture
def lake() -> MemoryLake:
    lake = MemoryLake()
    rows = [trip("c", 9), trip("a", 7), trip("nowhere", None), trip("b", 7), trip("d", 8)]
    Ingestor(lake, MemoryLocks(), ManualClock()).ingest(TRIPS, rows, keyings={})
    return lake


def test_rows_come_by_time_with_the_instant_of_each(lake: MemoryLake) -> None:
    found = observe(AT, lake.scan)
    assert found.column_names == ["booked_at", "place", "km", "starts_at", "_at"]
    assert found.schema.field("_at").type == pa.timestamp("us", tz="UTC")
    assert found.schema.field("km").type == pa.float32()
    assert found.column("place").to_pylist() == ["a", "b", "d", "c"]  # at one instant in the order of arrival
    assert found.column("_at").cast(pa.int64()).to_pylist() == [5 * HOUR, 5 * HOUR, 6 * HOUR, 7 * HOUR]


def test_a_filter_chooses_what_is_an_observation(lake: MemoryLake) -> None:
    def places(where: Any) -> list[str]:
        chosen = Observations(TRIPS, keys=[PLACE], at=AT.at, where=where)
        return list(observe(chosen, lake.scan, since=6 * HOUR).column("place").to_pylist())

    assert places(col("place") != "d") == ["c"]
    assert places((col("place") == "d") | (col("place") == "a")) == ["d"]
    assert places(ms.when(col("place") == "d", True)) == ["d"]  # null is not true


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (col("km"), "filtered by a Float32"),
        (col("miles") > 1, r"filtered by \['miles'\], which the source does not have"),
        (col("place") > 1, "place"),
        ("km > 1", "filtered by 'km > 1'"),
    ],
)
def test_a_filter_that_is_none_is_refused_where_it_is_declared(where: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        Observations(TRIPS, keys=[PLACE], at=AT.at, where=where)


def test_since_is_in_and_until_is_out(lake: MemoryLake) -> None:
    def places(**bounds: int) -> list[str]:
        return list(observe(AT, lake.scan, **bounds).column("place").to_pylist())

    assert places(since=5 * HOUR, until=7 * HOUR) == ["a", "b", "d"]
    assert places(since=5 * HOUR + 1) == ["d", "c"]
    assert places(until=5 * HOUR) == []
    assert places(since=0, until=HOUR) == []
