"""A damaged segment is set aside and counted, and every other prediction goes on."""

import struct
import zlib
from pathlib import Path

import pytest

from mainspring.core.errors import NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.ledger import frames
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.adapters.unread import Progress, segments
from mainspring.ledger.conformance import prediction
from mainspring.ledger.model import PREDICTIONS


def written(folder: Path, *numbers: int) -> Path:
    """Write a segment, and return it."""
    before = {segment.path for segment in segments(folder)}
    log = SegmentLog(folder)
    for number in numbers:
        log.append([prediction(number)])
    log.close()
    (path,) = {segment.path for segment in segments(folder)} - before
    return path


def cut_short(path: Path) -> None:
    (segment,) = (each for each in segments(path.parent) if each.path == path)
    segment.advance(Progress(segment.sync(), segment.sync()))
    path.write_bytes(path.read_bytes()[:60])


def planned_and_cut_short(path: Path) -> None:
    (segment,) = (each for each in segments(path.parent) if each.path == path)
    segment.advance(Progress(len(frames.MAGIC), segment.sync()))
    path.write_bytes(path.read_bytes()[:60])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def a_stranger(path: Path) -> None:
    path.write_bytes(b"something else entirely, long enough")


@pytest.mark.parametrize("damage", [cut_short, planned_and_cut_short, emptied, a_stranger])
def test_a_damaged_segment_is_set_aside_and_counted_and_the_others_are_moved(tmp_path: Path, damage) -> None:
    written(tmp_path, 1)
    damaged = written(tmp_path, 2)
    written(tmp_path, 3)
    damage(damaged)
    left = damaged.read_bytes()
    lake = MemoryLake()
    store = LakePredictions(tmp_path, lake, MemoryLocks())

    assert store.find("p3") == prediction(3)
    assert {each.id for each in store.recent()} >= {"p1", "p3"}
    assert store.digests() == {"d" * 64}
    with pytest.raises(NotFound):
        store.find("p2")

    assert store.compact() == 2
    assert sorted(lake.scan(PREDICTIONS).rows["id"].to_pylist()) == ["p1", "p3"]
    assert (tmp_path / "damaged" / damaged.name).read_bytes() == left
    assert segments(tmp_path) == []
    assert store.damaged() == 1
    assert store.compact() == 0


@pytest.mark.parametrize("content", [b"", b'{"done": "many"}'])
def test_where_the_progress_is_damaged_each_prediction_is_still_moved_once(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, 1, 2, 3)
    lake = MemoryLake()
    store = LakePredictions(tmp_path, lake, MemoryLocks(), at_once_bytes=1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(frames.MAGIC) + len(frames.encode([prediction(1)]))])
    assert store.compact() == 1
    path.write_bytes(whole)  # p1 is in the lake by now
    path.with_suffix(".progress").write_bytes(content)

    assert {each.id for each in store.recent()} == {"p1", "p2", "p3"}
    assert store.compact() == 2
    assert sorted(lake.scan(PREDICTIONS).rows["id"].to_pylist()) == ["p1", "p2", "p3"]
    assert list(tmp_path.iterdir()) == []


def test_a_whole_frame_of_something_else_is_damage_and_does_not_stop_the_others(tmp_path: Path) -> None:
    path = written(tmp_path, 1, 2)
    payload = b"\x93no predictions"
    with path.open("ab") as file:
        file.write(struct.pack("<II", len(payload), zlib.crc32(payload)) + payload)
    lake = MemoryLake()
    store = LakePredictions(tmp_path, lake, MemoryLocks())
    assert {each.id for each in store.recent()} == {"p1", "p2"}
    assert store.compact() == 2
    assert (store.damaged_frames, store.damaged()) == (1, 1)
    assert (tmp_path / "damaged" / path.name).exists()


def test_a_damaged_segment_that_is_still_written_is_left_until_its_writer_ends(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.append([prediction(1)])
    (segment,) = segments(tmp_path)
    segment.advance(Progress(segment.sync() + 100, segment.sync() + 100))
    store = LakePredictions(tmp_path, MemoryLake(), MemoryLocks())
    assert (store.compact(), store.damaged()) == (0, 0)
    log.close()
    assert (store.compact(), store.damaged()) == (0, 1)


def test_what_an_older_version_set_aside_is_counted(tmp_path: Path) -> None:
    (tmp_path / "01x.damaged").write_bytes(b"as it was")
    assert LakePredictions(tmp_path, MemoryLake(), MemoryLocks()).damaged() == 1


def test_a_commit_that_a_power_cut_left_empty_is_made_again(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path / "lake")
    folder = tmp_path / "ledger"
    written(folder, 1)
    assert LakePredictions(folder, lake, MemoryLocks()).compact() == 1
    path = written(folder, 2)
    entry = tmp_path / "lake" / PREDICTIONS / "_delta_log" / f"{1:020d}.json"
    entry.write_bytes(b"")
    store = LakePredictions(folder, DeltaLake(tmp_path / "lake"), MemoryLocks())
    assert {each.id for each in store.recent()} == {"p1", "p2"}
    entry.write_bytes(b"")
    assert store.compact() == 1
    assert {each.id for each in store.recent()} == {"p1", "p2"}
    assert not path.exists()
