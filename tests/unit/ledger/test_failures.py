"""Failures of rollouts: counted whatever happens to the disk, moved once, and readable beside older files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.full_disk import room
from kit.waiting import wait_until
from mainspring.core.errors import Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.ledger import frames
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.adapters.segmentfile import SegmentFile
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.columns import SCHEMA, to_batch
from mainspring.ledger.conformance import HEADING, batch, failure, observed, prediction, recorder
from mainspring.ledger.model import FAILURES, PREDICTIONS, Asked, Assigned, Failure, Heading, Log
from mainspring.ledger.recording import Tally


def test_a_tally_keeps_the_count_of_each_arm_kind_and_weight() -> None:
    tally = Tally()
    for number in range(1, 101):
        tally.add(failure(number, latency_us=number))
        tally.add(failure(number, version="3", latency_us=7))
    tally.add(failure(7, weight=0.5))
    tally.add(failure(8, kind="Overloaded", status=429, count=40))
    found = {(each.version, each.kind, each.weight): each for each in tally.take()}
    assert {key: each.count for key, each in found.items()} == {
        ("4", "ModelFailed", 0.75): 100,
        ("3", "ModelFailed", 0.75): 100,
        ("4", "ModelFailed", 0.5): 1,
        ("4", "Overloaded", 0.75): 40,
    }
    most = found["4", "ModelFailed", 0.75]
    assert (most.latency_us, most.at, most.unit, most.principal, most.request_id) == (50, 100_000, 0, "", "")
    assert len({each.id for each in found.values()}) == 4
    assert not tally
    assert tally.take() == []


def test_a_failure_is_sampled_as_its_request_would_be() -> None:
    """By its id, whatever its arm: else an arm that fails would lose other requests than one that answers."""
    ledger = MemoryLedger()
    by = recorder(ledger, Log(share=0.3))
    chosen = set()
    for number in range(400):
        name = f"request {number}"
        by.record(at=0, ids=[f"p{number}"], asked=[Asked("k", 5, 1, name)], features={}, outputs={"probability": [0.5]})
        found = by.failure(
            at=1, kind="Overloaded", status=429, latency_us=5, assigned=Assigned("r1", 0.1, number), principal="k",
            request_id=name,
        )  # fmt: skip
        if found is not None:
            assert (found.share, found.rollout, found.weight, found.unit) == (0.3, "r1", 0.1, number)
            chosen.add(name)
    assert chosen == {each.request_id for each in ledger.recent(limit=1_000)}
    assert 60 < len(chosen) < 180


def written(folder: Path) -> list[Failure]:
    store = LakePredictions(folder, MemoryLake(), MemoryLocks())
    store.compact()
    return store.failures("r1")


def test_what_a_full_disk_does_not_take_is_summed_up_and_written_when_there_is_room(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.append([prediction(1)])
    with room(200):
        for number in range(50):
            log.fail([failure(number), failure(number, version="3")])
            log.add(batch(10 * number, 1))
        waiting = {("late", "4"): 50, ("late", "3"): 50}
        wait_until(lambda: log.unlogged_failures == waiting, "every failure to be refused by the disk")
    log.append([prediction(2)])
    assert dict(log.unlogged_failures) == {}
    log.close()
    found = written(tmp_path)
    assert {(each.version, each.kind, each.status): each.count for each in found} == {
        ("4", "ModelFailed", 500): 50,
        ("3", "ModelFailed", 500): 50,
    }
    assert len(found) == 2


def test_a_buffer_that_is_full_keeps_the_counts(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, max_buffer_bytes=0)
    log.fail([failure(1), failure(2)])
    assert dict(log.unlogged_failures) == {("late", "4"): 2}
    log.close()
    assert [each.count for each in written(tmp_path)] == [2]


class StoppingLake(MemoryLake):
    """A lake that dies once, before it writes a table."""

    stops: str | None = None

    def append(self, table: str, *arguments: Any, **named: Any) -> int | None:
        if table == self.stops:
            self.stops = None
            raise Unavailable("killed")
        return super().append(table, *arguments, **named)


@pytest.mark.parametrize("stops", [PREDICTIONS, FAILURES])
def test_a_compaction_that_is_killed_between_its_tables_moves_each_record_once(tmp_path: Path, stops: str) -> None:
    log, lake = SegmentLog(tmp_path), StoppingLake()
    log.fail([failure(1)])
    log.append([observed(1)])
    log.close()
    store = LakePredictions(tmp_path, lake, MemoryLocks())
    lake.stops = stops
    with pytest.raises(Unavailable):
        store.compact()
    store.compact()
    found = store.observations("r1")
    assert found is not None
    assert sorted(row["id"] for each in found.batches for row in each.to_pylist()) == ["f1", "p1"]


@pytest.mark.parametrize("made", [lambda folder: DeltaLake(folder / "lake"), lambda _: MemoryLake()])
def test_a_table_from_before_rollouts_is_read_and_goes_on(tmp_path: Path, made: Any) -> None:
    old = SCHEMA.names[: SCHEMA.names.index("rollout")]
    rows = to_batch([prediction(1)]).select(old)
    lake = made(tmp_path)
    lake.append(PREDICTIONS, [rows], rows.schema, key="old")
    store = LakePredictions(tmp_path / "ledger", lake, MemoryLocks())
    first = store.observations("r1")
    assert first is not None
    assert list(first.batches) == []
    assert store.find("p1") == prediction(1)
    assert store.read("late", 0, 10_000)["id"].to_pylist() == ["p1"]
    log = SegmentLog(tmp_path / "ledger")
    log.append([observed(2)])
    log.close()
    store.compact()
    assert [store.find(f"p{number}") for number in (1, 2)] == [prediction(1), observed(2)]
    then = store.observations("r1", first.position)
    assert then is not None
    assert [row["id"] for each in then.batches for row in each.to_pylist()] == ["p2"]


class EncodedBefore(msgspec.Struct, array_like=True):
    """A batch as the version before rollouts reads it."""

    heading: int
    at: int
    share: float
    ids: list[str]
    asked: list[Any]
    columns: list[Any]
    sealed: list[bytes]


def test_segments_of_both_versions_are_read_by_both(tmp_path: Path) -> None:
    (frame,) = frames.scan(frames.encode([observed(1)], [failure(2)]), 0).payloads
    headings, found = msgspec.msgpack.Decoder(tuple[dict[int, Heading], list[EncodedBefore]]).decode(frame)
    assert [(each.ids, each.share) for each in found] == [(["p1"], 1.0), ([], 1.0)]
    assert len(headings) == 2
    before = (0, 1_000, 1.0, ["p1"], [("key-1", 700, 1, "")], [["AA"], [1.5], [1], [0.5], ["PRESENT"], [0.1], [0]], ())
    payload = msgspec.msgpack.encode(({0: HEADING}, [before]))
    content = struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    file = SegmentFile.begin(tmp_path)
    file.write(content)
    file.close()
    store = LakePredictions(tmp_path, MemoryLake(), MemoryLocks())
    assert store.compact() == 1
    assert (store.find("p1").rollout, store.find("p1").weight, store.find("p1").unit) == ("", 1.0, 0)
