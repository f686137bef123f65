"""The read from a file to a file gives what the read in memory gives, and leaves nothing behind."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.station import SCHEMA, World, instant, train
from mainspring.core.errors import InvalidData, NotFound, StorageFull
from mainspring.features.model import FeatureView
from mainspring.features.offline import pieces, placing, point_in_time, point_in_time_pieces
from mainspring.features.offline.pieces import write_whole

INSTANT = pa.timestamp("us", tz="UTC")
FIELDS = {**SCHEMA, "seats": ms.Int64}
STATIONS = [f"station {n}" for n in range(20)]


def features() -> tuple[FeatureView, Any]:
    from kit.station import STATION, TRAINS

    @ms.feature_view(entity=STATION, source=TRAINS)
    class Trains:
        delay = ms.last("delay", ttl="2h")
        n = ms.count(window="1h")
        mean = ms.mean("delay", window="24h", default=-1.0)
        double = n * 2

    @ms.on_demand_features
    class Asked:
        crowd = Trains.n * ms.col("seats")

    return Trains, Asked


@pytest.fixture(scope="module")
def made() -> tuple[World, list[Any]]:
    rng = random.Random(5)
    groups = list(features())
    rows = [
        train(f"{rng.randrange(24):02}:{rng.randrange(60):02}", rng.random(), station=rng.choice(STATIONS))
        for _ in range(3000)
    ]
    return World(groups[0], rows), groups


def observations(rows: int) -> pa.Table:
    rng = random.Random(rows)
    start, end = instant("00:00"), instant("23:59")
    return pa.table(
        {
            "seats": pa.array([rng.randrange(100) for _ in range(rows)], pa.int64()),
            "station": pa.array([rng.choice([*STATIONS, "nowhere", None]) for _ in range(rows)], pa.string()),
            "_at": pa.array([rng.randrange(start, end) for _ in range(rows)], INSTANT),
        }
    )


@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, 5000])
def test_pieces_are_the_whole(
    tmp_path: Path, made: tuple[World, list[Any]], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "PIECE_ROWS", 1000)
    monkeypatch.setattr(pieces, "PIECE_ROWS", 1000)
    world, groups = made
    asked = observations(rows)
    pq.write_table(asked, tmp_path / "asked.parquet", row_group_size=700)
    wanted = point_in_time(asked, groups, world.lake.scan, schema=FIELDS)
    seen: list[int] = []
    for given in (asked, tmp_path / "asked.parquet"):
        found_in_pieces = point_in_time_pieces(given, groups, world.lake.scan, schema=FIELDS, temp=tmp_path / "spill")
        written = write_whole(tmp_path / "out.parquet", found_in_pieces, seen.append)
        found = pq.read_table(tmp_path / "out.parquet")
        assert written == rows
        assert found.equals(wanted)
    assert seen[-1] == rows
    assert {path.name for path in tmp_path.iterdir()} == {"asked.parquet", "out.parquet", "spill"}
    assert list((tmp_path / "spill").iterdir()) == []


def test_an_iterator_that_is_left_early_leaves_nothing(tmp_path: Path, made: tuple[World, list[Any]]) -> None:
    world, groups = made
    found = point_in_time_pieces(observations(10), groups, world.lake.scan, schema=FIELDS, temp=tmp_path)
    assert next(found).num_rows == 10
    assert list(tmp_path.iterdir())
    found.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_whole_is_not_there(
    tmp_path: Path, made: tuple[World, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    world, groups = made
    asked = observations(20_000)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "out.parquet").write_bytes(b"as it was")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    found = point_in_time_pieces(asked, groups, world.lake.scan, schema=FIELDS, temp=tmp_path / "spill")
    try:
        with pytest.raises(StorageFull, match="No space left"), closing(found):
            write_whole(tmp_path / "out.parquet", found)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert (tmp_path / "out.parquet").read_bytes() == b"as it was"
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_file_of_observations_that_is_not_there_or_no_file_is_refused(
    tmp_path: Path, made: tuple[World, list[Any]]
) -> None:
    world, groups = made
    with pytest.raises(NotFound, match=r"file of observations .*asked\.parquet"):
        next(point_in_time_pieces(tmp_path / "asked.parquet", groups, world.lake.scan, schema=FIELDS))
    (tmp_path / "asked.parquet").write_bytes(b"station,_at")
    with pytest.raises(InvalidData, match=r"asked\.parquet cannot be read"):
        next(point_in_time_pieces(tmp_path / "asked.parquet", groups, world.lake.scan, schema=FIELDS))
