"""Views of one source are read together: the source is opened once, however many views there are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import mainspring as ms
from kit.station import SCHEMA, STATION, TRAINS, instant, train
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, TableScan
from mainspring.features.declaring import feature_view
from mainspring.features.layout import layout_of
from mainspring.features.model import Entity, FeatureView
from mainspring.features.offline import point_in_time, point_in_time_pieces
from mainspring.features.offline.plan import explain
from mainspring.features.offline.stored import by_source

pytestmark = pytest.mark.slow

OTHERS = Source("others", schema=TRAINS.schema, event_time="left_at", recorded_time="known_at")
LATE = Entity("late", keys={"delay": ms.Int64})
NOW = pa.array([instant("11:30")] * 3, pa.timestamp("us", "UTC"))
OBSERVED = pa.table({"station": ["mile end", "bow", None], "_at": NOW})


def named(name: str, source: Source = TRAINS, **features: object) -> FeatureView:
    return feature_view(entity=STATION, source=source)(type(name, (), features))


def one(number: int) -> FeatureView:
    """A view of any two sources, the first with a sketch."""
    delay = ms.col("delay")
    return named(
        f"View{number}", OTHERS if number % 2 else TRAINS,
        n=ms.count(window=f"{1 + number % 3}h"),
        mean=ms.mean("delay", window="24h", where=delay > number),
        last=ms.last("delay", ttl=f"{number + 1}h"),
        many=ms.max("delay", window="1h") if number else ms.distinct(delay.cast(ms.Int64), window="1h"),
    )  # fmt: skip


VIEWS = [one(number) for number in range(20)]


class CountingLake(MemoryLake):
    """A lake that notes which tables are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def scan(self, table: str, version: int | None = None) -> TableScan:
        self.opened.append(table)
        return super().scan(table, version)


@pytest.fixture
def lake() -> CountingLake:
    lake = CountingLake()
    for source in (TRAINS, OTHERS):
        rows = [train(f"{hour:02}:{minute:02}", float(minute % 7), station=station)
                for hour in (6, 10, 11) for minute in range(0, 60, 5) for station in ("mile end", "bow")]  # fmt: skip
        Ingestor(lake, MemoryLocks(), ManualClock()).ingest(source, rows, keyings={"station": ("station",)})
    lake.opened.clear()
    return lake


def test_a_read_opens_each_source_once_and_its_values_are_those_of_each_view_alone(
    lake: CountingLake, tmp_path: Path
) -> None:
    together = point_in_time(OBSERVED, VIEWS, lake.scan, schema=SCHEMA)
    assert lake.opened == ["trains", "others"]
    for view in VIEWS:
        alone = point_in_time(OBSERVED, [view], lake.scan, schema=SCHEMA)
        assert together.select(view.columns).equals(alone.select(view.columns)), view.name
    lake.opened.clear()
    through_files = pa.concat_tables(point_in_time_pieces(OBSERVED, VIEWS, lake.scan, schema=SCHEMA, temp=tmp_path))
    assert lake.opened == ["trains", "others"]
    assert through_files.equals(together)
    lake.opened.clear()
    assert len(explain(VIEWS, lake.scan, SCHEMA)) < len(VIEWS)
    assert lake.opened == ["trains", "others"]


def test_observations_of_nobody_have_no_values(lake: CountingLake) -> None:
    nobody = OBSERVED.filter(OBSERVED["station"].is_null())
    (row,) = point_in_time(nobody, VIEWS, lake.scan, schema=SCHEMA).to_pylist()
    assert (row["View0.many"], row["View1.n"], row["View1.last"]) == (0, 0, None)


def test_only_views_of_one_entity_and_source_without_sketches_are_one() -> None:
    delayed = feature_view(entity=LATE, source=TRAINS)(type("Delayed", (), {"n": ms.count(window="1h")}))
    found = by_source([*VIEWS[:5], delayed])
    assert {source: [read.view.name for read in some] for source, some in found.items()} == {
        "trains": ["View0", "View2, View4", "Delayed"],
        "others": ["View1, View3"],
    }
    assert list(found["others"][0].view.features)[:2] == ["View1.n", "View1.mean"]


def test_very_many_features_are_not_held_in_memory_together() -> None:
    views = [named(f"V{number}", **{f"f{n}": ms.last("delay") for n in range(30)}) for number in range(5)]
    wide = named("Wide", **{f"f{n}": ms.last("delay") for n in range(100)})
    (read,) = by_source([*views, wide]).values()
    assert [len(each.view.features) for each in read] == [60, 60, 30, 100]


def test_what_is_derived_of_views_is_derived_once_however_often_they_are_read() -> None:
    first, again = ([layout_of(read.view) for reads in by_source(VIEWS).values() for read in reads] for _ in range(2))
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert first[0].dtype(next(iter(first[0].view.features))) == ms.Int64
    assert first[0].stored is again[0].stored
