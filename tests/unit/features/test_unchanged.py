"""A process that never read a source before, and has nothing to do: nothing of the source is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

import mainspring as ms
from kit.depth import examples
from kit.station import TRAINS, instant, train, view
from mainspring.core.errors import Corrupt
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, TableScan
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.model import FeatureView, MaterialiseReport
from mainspring.features.online import OnlineReader

pytestmark = pytest.mark.slow

VIEW = view(
    n=ms.count(window="1h"), mean=ms.mean("delay", window="24h"), last=ms.last("delay", ttl="2h"),
    kinds=ms.distinct(ms.col("delay").cast(ms.Int64), window="24h"),
)  # fmt: skip
NOW = instant("12:00")
VERSIONED = Source(
    "calls", schema={"station": ms.String, "delay": ms.Float64, "call": ms.String}, event_time="left_at",
    recorded_time="known_at", id="call",
)  # fmt: skip


class CountingLake(DeltaLake):
    """A lake on disk that counts how often it is asked for the files of a version."""

    scans = 0

    def scan(self, table: str, version: int | None = None) -> TableScan:
        self.scans += 1
        return super().scan(table, version)


class Station:
    """A lake on disk and an online store, of which each run is a process that knows nothing of the earlier ones."""

    def __init__(self, folder: Path, features: FeatureView) -> None:
        self.folder = folder
        self.view = features
        self.lake = CountingLake(folder)
        self.store = MemoryOnlineStore()
        self.clock = ManualClock(NOW)

    def land(self, *times: str, **more: str) -> None:
        rows = [train(at, number / 2, station=f"station {number % 3}") | more for number, at in enumerate(times)]
        Ingestor(self.lake, MemoryLocks(), self.clock).ingest(self.view.source, rows, keyings={"station": ("station",)})

    def run(self, *, horizon: int = 0, compact: bool = False) -> MaterialiseReport:
        self.lake = CountingLake(self.folder)
        materialiser = Materialiser(self.lake, self.store, self.clock)
        report = materialiser.run(self.view, horizon=horizon)
        if compact:
            assert not materialiser.compact(self.view)
        materialiser.close()
        return report

    def damage(self) -> None:
        """Let whoever opens a data file of the lake fail."""
        for file in self.folder.rglob("*.parquet"):
            if "_delta_log" not in file.parts:
                file.write_bytes(b"no Parquet at all")

    def read(self) -> tuple[object, object]:
        found = OnlineReader([self.view], self.store).read({"station": ["station 0", "station 1"]}, self.clock.now())
        return found.features, found.statuses

    def rebuilt(self) -> tuple[object, object]:
        """What is read of states that were built anew now."""
        other = Station(self.folder, self.view)
        other.clock.set(self.clock.now())
        other.run()
        return other.read()


@pytest.fixture
def station(tmp_path: Path) -> Station:
    station = Station(tmp_path / "lake", VIEW)
    station.land("06:00", "06:10", "09:00", "11:10", "11:59")
    return station


@pytest.mark.parametrize("later", examples(gate=(0, 90 * MINUTE), deep=(0, MINUTE, 30 * MINUTE, 90 * MINUTE, 3 * DAY)))
def test_a_new_process_opens_no_file_of_a_source_where_nothing_landed(station: Station, later: int) -> None:
    station.run(horizon=HOUR, compact=True)
    station.clock.advance(later)
    wanted = station.rebuilt()
    station.damage()
    report = station.run(horizon=HOUR, compact=True)
    assert (report.through, report.entities, report.rows) == (NOW + later, 0, 0)
    assert station.store.position(slot(VIEW)) == NOW + later
    assert station.lake.scans == 0
    assert station.read() == wanted


def test_it_opens_them_where_something_landed(station: Station) -> None:
    station.run()
    station.clock.advance(MINUTE)
    station.run()
    station.land("11:30")
    assert station.run().entities == 2  # and another, whose row of 11:59 had not settled at first
    assert station.read() == station.rebuilt()
    station.land("11:31")
    station.damage()
    with pytest.raises(Corrupt):
        station.run()


def test_it_opens_them_where_a_row_of_before_begins_to_count(station: Station) -> None:
    station.land("12:30", "13:30")
    station.run(horizon=HOUR)
    station.clock.advance(10 * MINUTE)
    for wait in (20 * MINUTE, HOUR, HOUR):
        station.clock.advance(wait)
        station.run(horizon=HOUR)
        assert station.read() == station.rebuilt()
    station.damage()
    station.clock.advance(DAY)
    station.run(horizon=HOUR)
    assert station.lake.scans == 0


def test_it_opens_them_where_a_version_of_a_fact_ends(tmp_path: Path) -> None:
    station = Station(tmp_path / "lake", view(VERSIONED, mean=ms.mean("delay", window="24h"), last=ms.last("delay")))
    station.land("09:00", call="first")
    station.run()
    station.land("13:00", call="first")  # supersedes the other an hour from now
    assert station.run().entities == 1
    for wait in (HOUR - MINUTE, 2 * MINUTE, HOUR, DAY):
        station.clock.advance(wait)
        station.run()
        assert station.read() == station.rebuilt()
    station.damage()
    station.run()
    assert station.lake.scans == 0


def test_it_opens_them_where_the_table_went_back_and_forth(station: Station) -> None:
    station.run()
    newest = station.lake.version(TRAINS.name)
    station.lake.restore(TRAINS.name, 0)
    station.land("10:00", "10:01", "10:02")
    assert station.lake.version(TRAINS.name) != newest
    station.run()
    assert station.read() == station.rebuilt()


def test_what_was_still_to_settle_settles_once_something_lands(station: Station) -> None:
    station.run()
    station.clock.advance(HOUR)
    station.run()
    station.clock.advance(HOUR)
    station.land("13:00")
    station.run()
    settled = dict(station.store.states())
    other = Station(station.folder, VIEW)
    other.clock.set(station.clock.now())
    other.run()
    assert {key: state.payload for key, state in settled.items() if len(key[1]) > 1} == {
        key: state.payload for key, state in other.store.states().items() if len(key[1]) > 1
    }
