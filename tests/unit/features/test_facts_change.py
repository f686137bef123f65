"""Online states and tiles where what landed rows say changes: by corrections, another id, or a table landed anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mainspring as ms
from kit.depth import examples, in_turns
from kit.station import view
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

pytestmark = pytest.mark.slow

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


def both(features: FeatureView, lake: DeltaLake, store: MemoryOnlineStore) -> dict[str, Any]:
    """Return the features at `NOW`, which are the same in both reads."""
    asked = pa.table({"station": ["mile end"], "_at": pa.array([NOW], pa.timestamp("us", tz="UTC"))})
    (offline,) = point_in_time(asked, [features], lake.scan, schema={"station": ms.String}).to_pylist()
    online = OnlineReader([features], store).read({"station": ["mile end"]}, NOW).features
    assert {name: values[0] for name, values in online.items()} == {name: offline[name] for name in online}
    return offline


LANDED = [row("a", 9, 9, 1.0), row("a", 9, 7, 2.0), row("b", 8, 8, 5.0), row("b", 8, 6, None, void=True)]
BARE, RETRACTED, NAMED = trains(), trains(id="train", retracted="void"), trains(id="train")


@pytest.mark.parametrize(
    ("declared", "anew"),
    in_turns(
        [(BARE, RETRACTED, 2.0), (RETRACTED, BARE, 8.0), (RETRACTED, NAMED, 2.0), (NAMED, RETRACTED, 2.0)],
        [True, False],
    ),
)
def test_states_follow_what_the_rows_are_declared_to_be(
    tmp_path: Path, declared: tuple[Source, Source, float], anew: bool
) -> None:
    first, then, total = declared
    lake, clock, store = DeltaLake(tmp_path), ManualClock(NOW - HOUR), MemoryOnlineStore()
    ingestor, materialiser = Ingestor(lake, MemoryLocks(), clock), Materialiser(lake, store, clock)
    ingestor.ingest(first, LANDED, keyings=KEYINGS)
    materialiser.run(shape(first))
    ingestor.conform(then, KEYINGS)

    clock.set(NOW)
    if anew:
        materialiser = Materialiser(lake, store, clock)
    materialiser.run(shape(then))
    assert both(shape(then), lake, store)["Trains.total"] == total


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


@pytest.mark.parametrize("corrected", examples(gate=(1, 4), deep=(1, 2, 3, 4)))
def test_tiles_are_made_anew_however_many_rows_of_a_load_are_corrected(tmp_path: Path, corrected: int) -> None:
    lake, clock, store = DeltaLake(tmp_path), ManualClock(NOW - 5 * HOUR), MemoryOnlineStore()
    ingestor = Ingestor(lake, MemoryLocks(), clock)
    ingestor.ingest(NAMED, [row(f"{n}", 9, 9, 1.0) for n in range(5)], keyings=KEYINGS)
    Materialiser(lake, store, clock).run(shape(NAMED))
    ingestor.ingest(NAMED, [row(f"{n}", 9, 4, 10.0) for n in range(corrected)], keyings=KEYINGS)
    clock.set(NOW)
    Materialiser(lake, store, clock).run(shape(NAMED))
    assert both(shape(NAMED), lake, store)["Trains.total"] == 5 - corrected + 10 * corrected


@pytest.mark.parametrize("changed", [1, 2])
def test_a_table_landed_anew_with_other_values_is_materialised_anew(tmp_path: Path, changed: int) -> None:
    clock, store = ManualClock(NOW), MemoryOnlineStore()
    features = view(BARE, total=ms.sum("delay", window="24h"))
    for landed, total in ((0, 4.0), (changed, 4.0 + 9 * changed)):
        lake = DeltaLake(tmp_path)
        rows = [row(f"{n}", 9, 9, 10.0 if n < landed else 1.0) for n in range(4)]
        Ingestor(lake, MemoryLocks(), clock).ingest(BARE, rows, keyings=KEYINGS)
        Materialiser(lake, store, clock).run(features)
        assert both(features, lake, store)["Trains.total"] == total
        shutil.rmtree(tmp_path / "trains")
