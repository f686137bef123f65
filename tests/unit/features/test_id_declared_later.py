"""Online states where a source's id, or its retraction, is declared after they were made, changed or taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mainspring as ms
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, ManualClock, parse_instant, to_datetime
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.materialise import Materialiser
from mainspring.features.model import FeatureView
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader
from station import view

NOW = parse_instant("2013-03-05T12:00:00Z")
SCHEMA = {"station": ms.String, "delay": ms.Float64, "train": ms.String, "void": ms.Boolean}
KEYINGS = {"station": ("station",)}


def trains(**declared: Any) -> Source:
    return Source("trains", schema=SCHEMA, event_time="left_at", recorded_time="known_at", **declared)


def shape(source: Source) -> FeatureView:
    return view(source, n=ms.count(window="24h"), total=ms.sum("delay", window="24h"), last=ms.last("delay"))


def row(train: str, left: int, known: int, delay: float | None, *, void: bool = False) -> dict[str, Any]:
    left_at, known_at = to_datetime(NOW - left * HOUR), to_datetime(NOW - known * HOUR)
    return {"left_at": left_at, "known_at": known_at, "station": "mile end", "delay": delay, "train": train,
            "void": void}  # fmt: skip


LANDED = [row("a", 9, 9, 1.0), row("a", 9, 7, 2.0), row("b", 8, 8, 5.0), row("b", 8, 6, None, void=True)]
BARE, RETRACTED, NAMED = trains(), trains(id="train", retracted="void"), trains(id="train")


@pytest.mark.parametrize("anew", [True, False], ids=["a new process", "a process that goes on"])
@pytest.mark.parametrize(
    ("first", "then", "total"),
    [(BARE, RETRACTED, 2.0), (RETRACTED, BARE, 8.0), (RETRACTED, NAMED, 2.0), (NAMED, RETRACTED, 2.0)],
    ids=["declared", "taken away", "nothing retracts", "retracts"],
)
def test_states_follow_what_the_rows_are_declared_to_be(
    tmp_path: Path, first: Source, then: Source, total: float, anew: bool
) -> None:
    lake, clock, store = DeltaLake(tmp_path), ManualClock(NOW - HOUR), MemoryOnlineStore()
    ingestor, materialiser = Ingestor(lake, MemoryLocks(), clock), Materialiser(lake, store, clock)
    ingestor.ingest(first, LANDED, keyings=KEYINGS)
    materialiser.run(shape(first))
    ingestor.conform(then, KEYINGS)

    clock.set(NOW)
    if anew:
        materialiser = Materialiser(lake, store, clock)
    materialiser.run(shape(then))
    asked = pa.table({"station": ["mile end"], "_at": pa.array([NOW], pa.timestamp("us", tz="UTC"))})
    (offline,) = point_in_time(asked, [shape(then)], lake.scan, schema={"station": ms.String}).to_pylist()
    online = OnlineReader([shape(then)], store).read({"station": ["mile end"]}, NOW).features
    assert offline["Trains.total"] == total
    assert {name: values[0] for name, values in online.items()} == {name: offline[name] for name in online}


@pytest.mark.parametrize(("first", "then"), [(BARE, RETRACTED), (RETRACTED, BARE), (RETRACTED, NAMED)])
def test_a_live_bundle_with_an_earlier_declaration_is_served_what_the_table_says(
    tmp_path: Path, first: Source, then: Source
) -> None:
    lake, clock, store = DeltaLake(tmp_path), ManualClock(NOW), MemoryOnlineStore()
    ingestor, materialiser = Ingestor(lake, MemoryLocks(), clock), Materialiser(lake, store, clock)
    ingestor.ingest(first, LANDED, keyings=KEYINGS)
    ingestor.conform(then, KEYINGS)
    states = []
    for declared in (first, then):
        materialiser.run(shape(declared))
        states.append(OnlineReader([shape(declared)], store).read({"station": ["mile end"]}, NOW).features)
    assert states[0] == states[1]
