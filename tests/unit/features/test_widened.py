"""Materialisation where a source's numbers became wider, or are at the edge of a double."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mainspring as ms
from kit.station import World, train, view
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import DType
from mainspring.core.time import HOUR, ManualClock, parse_instant
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.materialise import Materialiser
from mainspring.features.model import FeatureView
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader

AT = datetime(2013, 3, 5, 6, tzinfo=UTC)
NOW = parse_instant("2013-03-05T12:00:00Z")


def trains(whole: DType, real: DType) -> Source:
    return Source("trains", schema={"station": ms.String, "cars": whole, "delay": real}, event_time="left_at")


def shape(source: Source) -> FeatureView:
    return view(
        source,
        lowest=ms.min("cars", window="24h"),
        highest=ms.max("delay", window="24h"),
        first=ms.first("cars", window="24h"),
        last=ms.last_k("delay", 2, window="24h"),
        usual=ms.top_k("cars", 2, window="24h"),
        tenth=ms.max(ms.col("delay") * 0.1, window="24h"),
    )


def row(cars: int, delay: float, later: timedelta = timedelta()) -> dict[str, Any]:
    return {"station": "mile end", "cars": cars, "delay": delay, "left_at": AT + later}


@pytest.mark.parametrize("anew", [True, False], ids=["a new process", "a process that goes on"])
def test_a_number_that_became_wider_is_materialised_as_before(tmp_path: Path, anew: bool) -> None:
    lake, clock, store = DeltaLake(tmp_path), ManualClock(), MemoryOnlineStore()
    ingestor, materialiser = Ingestor(lake, MemoryLocks(), clock), Materialiser(lake, store, clock)
    clock.set(NOW - HOUR)
    ingestor.ingest(trains(ms.Int32, ms.Float32), [row(3, 1.7)], keyings={"station": ("station",)})
    materialiser.run(shape(trains(ms.Int32, ms.Float32)))

    clock.set(NOW)
    wide = trains(ms.Int64, ms.Float64)
    ingestor.ingest(wide, [row(3_000_000_000, 1e300, timedelta(hours=2))], keyings={"station": ("station",)})
    if anew:
        materialiser = Materialiser(lake, store, clock)
    materialiser.run(shape(wide))

    online = OnlineReader([shape(wide)], store).read({"station": ["mile end"]}, NOW).features
    asked = pa.table({"station": ["mile end"], "_at": pa.array([NOW], pa.timestamp("us", tz="UTC"))})
    (offline,) = point_in_time(asked, [shape(wide)], lake.scan, schema={"station": ms.String}).to_pylist()
    assert {name: values[0] for name, values in online.items()} == {name: offline[name] for name in online}
    assert online["Trains.highest"] == [1e300]
    assert online["Trains.lowest"] == [3]


def test_a_deviation_beyond_a_double_is_infinite_in_both_reads() -> None:
    world = World(view(sd=ms.std("delay", window="24h"), var=ms.variance("delay", window="24h")))
    world.land(train("06:00", 1e200), train("08:00", 3.0))
    world.land(train("06:10", -1e200))  # of the same tile, by another load
    assert world.both("12:00") == {"sd": float("inf"), "var": float("inf")}
