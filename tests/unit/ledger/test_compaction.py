"""Compaction: each prediction once, whatever happens on the way."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from mainspring.core.errors import Unavailable
from mainspring.core.locks import FileLocks, MemoryLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.ledger import frames
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.adapters.unread import Progress, segments
from mainspring.ledger.columns import SCHEMA, to_batch
from mainspring.ledger.conformance import explanation, prediction
from mainspring.ledger.model import PREDICTIONS, REQUESTED


class StoppingLake(MemoryLake):
    """A lake during whose append the process dies: `before` it has written, or after."""

    def __init__(self) -> None:
        super().__init__()
        self.stops: str | None = None

    def append(self, table, rows, schema, *, key):
        if self.stops == "before":
            raise Unavailable("killed before")
        version = super().append(table, rows, schema, key=key)
        if self.stops == "after":
            raise Unavailable("killed after")
        return version


def compacted(lake: MemoryLake) -> list[str]:
    return sorted(lake.scan(PREDICTIONS).rows["id"].to_pylist())


def written(folder: Path, *numbers: int, close: bool = True) -> SegmentLog:
    log = SegmentLog(folder)
    for number in numbers:
        log.append([prediction(number)])
    if close:
        log.close()
    return log


@pytest.mark.parametrize("stops", ["before", "after"])
@pytest.mark.parametrize("live", [False, True])
def test_a_killed_compaction_is_carried_out_once_by_the_next(tmp_path: Path, stops: str, live: bool) -> None:
    log = written(tmp_path, 1, 2, close=not live)
    lake = StoppingLake()
    lake.stops = stops
    with pytest.raises(Unavailable):
        LakePredictions(tmp_path, lake, MemoryLocks()).compact()
    lake.stops = None
    if live:
        log.append([prediction(3)])  # the range that was planned must not grow by it
    store = LakePredictions(tmp_path, lake, MemoryLocks())
    assert store.compact() == (2 if stops == "before" else 0) + live
    assert compacted(lake) == ["p1", "p2", "p3"][: 2 + live]
    log.close()
    assert store.compact() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_deleting_a_segment_and_its_progress_counts_nothing_again(tmp_path: Path) -> None:
    written(tmp_path, 1)
    lake = MemoryLake()
    (segment,) = segments(tmp_path)
    store = LakePredictions(tmp_path, lake, MemoryLocks())
    assert store.compact() == 1
    segment.advance(Progress(500, 500))  # what the kill left
    assert store.compact() == 0
    assert compacted(lake) == ["p1"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at_once", [1, 700, 3_000])
def test_a_long_segment_is_moved_in_parts_each_prediction_once(tmp_path: Path, at_once: int) -> None:
    log = SegmentLog(tmp_path)
    for number in range(0, 40, 2):
        log.append([prediction(number), prediction(number + 1)])
    log.close()
    (segment,) = segments(tmp_path)
    content = segment.path.read_bytes()
    length = len(frames.encode([prediction(0), prediction(1)]))
    place = len(frames.MAGIC) + 3 * length + 30
    segment.path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] + b"torn")
    lake = MemoryLake()
    store = LakePredictions(tmp_path, lake, MemoryLocks(), at_once_bytes=at_once)
    assert (store.compact(), store.torn_bytes, store.damaged_frames) == (38, 4, 1)
    assert compacted(lake) == sorted(f"p{number}" for number in range(40) if number not in (6, 7))


def test_a_live_segment_is_read_to_its_last_whole_frame_and_stays(tmp_path: Path) -> None:
    log = written(tmp_path, 1, close=False)
    (segment,) = segments(tmp_path)
    half = frames.encode([prediction(2)])
    with segment.path.open("ab") as file:
        file.write(half[:20])
    lake = MemoryLake()
    store = LakePredictions(tmp_path, lake, MemoryLocks())
    assert (store.compact(), store.compact(), store.torn_bytes) == (1, 0, 0)
    with segment.path.open("ab") as file:
        file.write(half[20:])
    assert store.compact() == 1
    assert compacted(lake) == ["p1", "p2"]
    log.close()


def test_a_torn_tail_of_a_dead_writer_is_counted_and_dropped(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    (segment,) = segments(tmp_path)
    with segment.path.open("ab") as file:
        file.write(frames.encode([prediction(3)])[:-1])
    lake = MemoryLake()
    store = LakePredictions(tmp_path, lake, MemoryLocks())
    assert store.compact() == 2
    assert store.torn_bytes == len(frames.encode([prediction(3)])) - 1
    assert compacted(lake) == ["p1", "p2"]
    assert segments(tmp_path) == []


def test_a_damaged_frame_is_counted_and_its_segment_kept(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3)
    (segment,) = segments(tmp_path)
    content = bytearray(segment.path.read_bytes())
    content[len(frames.MAGIC) + len(frames.encode([prediction(1)])) + 30] ^= 1
    segment.path.write_bytes(content)
    lake = MemoryLake()
    store = LakePredictions(tmp_path, lake, MemoryLocks())
    assert store.compact() == 2
    assert store.damaged_frames == 1
    assert compacted(lake) == ["p1", "p3"]
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]
    assert [path.name for path in (tmp_path / "damaged").glob("*.segment")] == [segment.path.name]
    assert store.compact() == 0


def test_what_the_killed_left_half_made_is_tidied_up(tmp_path: Path) -> None:
    log = written(tmp_path, 1, close=False)
    (tmp_path / "01x.new").write_bytes(b"")
    (tmp_path / ".01x.progress.123.partial").write_bytes(b"{")
    LakePredictions(tmp_path, MemoryLake(), MemoryLocks()).compact()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".progress", ".segment"]
    log.close()


def test_a_table_and_a_segment_of_an_older_version_are_read_and_go_on(tmp_path: Path) -> None:
    old = SCHEMA.names[: SCHEMA.names.index("request_id")]
    rows = to_batch([prediction(1)]).select(old)
    lake = DeltaLake(tmp_path / "lake")
    lake.append(PREDICTIONS, [rows], rows.schema, key="old")
    names = ("request_id", "share", "personal", "sealed")
    before = {name: value for name, value in msgspec.to_builtins(prediction(2)).items() if name not in names}
    payload = msgspec.msgpack.encode([before])
    frame = struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    folder = tmp_path / "ledger"
    written(folder, 3)
    (folder / "00old.segment").write_bytes(frames.MAGIC_BEFORE + frame)
    store = LakePredictions(folder, lake, MemoryLocks())
    assert store.find("p2") == prediction(2)
    assert store.compact() == 2
    assert [store.find(f"p{number}") for number in (1, 2, 3)] == [prediction(1), prediction(2), prediction(3)]
    assert store.read("late", 0, 10_000)["share"].to_pylist() == [1.0, 1.0, 1.0]


def test_compactors_at_once_move_each_prediction_once(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path / "ledger", max_bytes=1_500)
    lake = MemoryLake()

    def compact(_: int) -> int:
        return LakePredictions(tmp_path / "ledger", lake, FileLocks(tmp_path / "locks")).compact()

    with ThreadPoolExecutor(4) as threads:
        moving = [threads.submit(compact, 0)]
        for number in range(60):
            log.append([prediction(number)])
            if number % 6 == 0:
                moving.append(threads.submit(compact, number))
        moved = sum(each.result() for each in moving)
    log.close()
    assert moved + compact(0) == 60
    assert compacted(lake) == sorted(f"p{number}" for number in range(60))


def test_explanations_survive_lost_progress_and_are_counted_when_they_cannot_be_written(tmp_path: Path) -> None:
    log, store = SegmentLog(tmp_path), LakePredictions(tmp_path, MemoryLake(), MemoryLocks())
    log.explain([explanation(1)])
    log.append([prediction(1)])
    store.compact()
    log.explain([explanation(1, REQUESTED)])
    log.append([prediction(2)])
    for progress in tmp_path.glob("*.progress"):
        progress.write_bytes(b"{")
    store.compact()
    assert store.explanations("p1") == [explanation(1, REQUESTED), explanation(1)]
    assert store.explained("late", "3", 0, 10_000) == [explanation(1)]
    assert sorted(each.id for each in store.recent()) == ["p1", "p2"]
    log.close()
    log.explain([explanation(3)])
    assert log.unlogged == {("late", "explanation"): 1}
