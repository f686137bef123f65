"""A stream's messages are in the table once each, whatever happens to those who land them."""

from collections.abc import Mapping
from typing import Any

import pytest

from kit.streamed import CORRECTED, CORRECTED_STREAM, ListLog, lander, values
from kit.visits import NOW
from mainspring.core.errors import NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import SECOND, ManualClock
from mainspring.data import commits
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.restore import restore
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.landing import LEASE_US, Lander
from mainspring.data.streams.model import OffsetGone
from mainspring.project.catalog import memory_catalog

pytestmark = pytest.mark.slow

TABLES = (CORRECTED.name, f"{CORRECTED.name}__quarantine", f"{CORRECTED.name}__dead_letters")


class House:
    """A lake, a catalog and a log, whose workers may stop anywhere."""

    def __init__(self, *partitions: list[bytes]) -> None:
        self.lake, self.locks = MemoryLake(), MemoryLocks()
        self.store = CatalogStreams(memory_catalog(), "lake")
        self.clock = ManualClock(NOW)
        self.log = ListLog("visits", partitions)

    def lander(self, owner: str = "one", stream: Stream = CORRECTED_STREAM, lake: Any = None) -> Lander:
        return lander(lake or self.lake, self.locks, self.store, self.log, self.clock, owner=owner, stream=stream)

    def counts(self) -> list[int]:
        return [self.lake.describe(name).rows if self.lake.version(name) is not None else 0 for name in TABLES]

    def rows(self) -> list[list[dict[str, Any]]]:
        return [
            [] if self.lake.version(name) is None else self.lake.scan(name).rows.sort_by("_seq").to_pylist()  # type: ignore[union-attr]
            for name in TABLES
        ]

    def total(self) -> int:
        return sum(map(len, self.log.values))


def drain(*landers: Lander) -> int:
    batches = 0
    while sum(each.step() is not None for each in landers):
        batches += 1
    return batches


def test_every_message_is_a_row_a_quarantined_row_or_a_dead_letter() -> None:
    house = House(values(1, 150), values(2, 90))
    one = house.lander()
    assert drain(one) == 8
    assert sum(house.counts()) == house.total() == 240
    assert all(house.counts())
    assert drain(house.lander("two")) == 0  # the first has the leases
    assert one.watermark() is not None
    assert NOW - 2 * 3_600 * SECOND < (one.watermark() or 0) < NOW
    letters = house.rows()[2]
    assert {letter["offset"] for letter in letters} <= {str(3 * index) for index in range(150)}
    assert all(letter["reason"] and letter["value"] for letter in letters)


def test_a_worker_that_dies_at_any_write_changes_nothing() -> None:
    undisturbed = House(values(1, 150), values(2, 90))
    drain(undisturbed.lander())

    class Dead(Exception): ...

    class Dying:
        def __init__(self, inner: Any, left: int, after: bool) -> None:
            self.inner, self.left, self.after = inner, left, after

        def __getattr__(self, name: str) -> Any:
            found = getattr(self.inner, name)
            if name not in ("append", "rewrite"):
                return found

            def stepped(*arguments: Any, **options: Any) -> Any:
                self.left -= 1
                if not self.left and not self.after:
                    raise Dead
                made = found(*arguments, **options)
                if not self.left:
                    raise Dead
                return made

            return stepped

    house = House(values(1, 150), values(2, 90))
    deaths = 0
    for number in range(1, 200):
        house.clock.set(NOW)
        dying = house.lander(f"{number}", lake=Dying(house.lake, 1 + number % 4, bool(number % 2)))
        try:
            if not drain(dying) and dying.epochs:
                break
        except Dead:
            deaths += 1
        house.store.release(CORRECTED.name, f"{number}")
    assert deaths > 10
    assert house.rows() == undisturbed.rows()


def test_a_restored_table_reads_its_messages_again() -> None:
    house = House(values(1, 150))
    one, snapshots = house.lander(), CatalogSnapshots(memory_catalog())
    one.step()
    early = commits.record(house.lake, snapshots, house.clock, "early").id
    drain(one)
    rows = house.rows()
    restored = restore(house.lake, snapshots, house.locks, house.clock, early, source=CORRECTED.name)
    assert {table.table for table in restored.tables} == set(TABLES)
    assert 0 < sum(house.counts()) <= 40
    house.clock.advance(3 * SECOND)
    drain(one)
    assert [_facts(table) for table in house.rows()] == [_facts(table) for table in rows]
    for table in TABLES:
        house.lake.restore(table, None)
    house.log.values[0] += values(9, 1)  # it arrives before the worker's next look
    drain(one)
    assert sum(house.counts()) == 151


def _facts(table: list[dict[str, Any]]) -> list[str]:
    """Return rows without the numbers of their batches, which go on counting after a restore."""
    return sorted(
        str({name: value for name, value in row.items() if name not in ("_seq", "_batch", "_superseded_by")})
        for row in table
    )


def test_workers_share_partitions_and_a_suspended_one_writes_nothing() -> None:
    house = House(*(values(seed, 60) for seed in range(5)))
    one, two = house.lander("one"), house.lander("two")
    one.step()
    assert sorted(one.epochs) == [0, 1, 2, 3, 4]
    house.clock.advance(2 * SECOND)
    assert two.step() is None  # all are taken
    one.step()
    house.clock.advance(2 * SECOND)
    two.step()
    assert (len(one.epochs), len(two.epochs)) == (3, 2)
    assert not {*one.epochs} & {*two.epochs}
    # `one` is suspended between its read and its write; meanwhile its leases end, and `two` reads everything.
    read = house.log.read

    def suspended(*arguments: Any, **options: Any) -> Any:
        found = read(*arguments, **options)
        house.log.read = read  # type: ignore[method-assign]
        house.clock.advance(LEASE_US + SECOND)
        drain(two)
        assert sorted(two.epochs) == [0, 1, 2, 3, 4]
        return found

    house.log.read = suspended  # type: ignore[method-assign]
    before = house.total()
    assert one.step() is None
    assert sum(house.counts()) == before
    drain(one, two)
    assert sum(house.counts()) == house.total()


def test_a_partition_more_is_read_and_a_topic_that_vanishes_is_named() -> None:
    house = House(values(1, 20))
    one = house.lander()
    drain(one)
    house.log.create("visits", 2)
    house.log.values[1] = list(values(2, 20))
    house.clock.advance(3 * SECOND)
    drain(one)
    assert sum(house.counts()) == 40
    house.log.topic = "other"
    house.clock.advance(3 * SECOND)
    with pytest.raises(NotFound, match="'visits'"):
        one.step()


def test_a_stream_may_start_at_the_next_message_and_seek_past_lost_ones() -> None:
    house = House(values(1, 20))
    late = Stream(CORRECTED, topic="visits", start="next")
    one = house.lander(stream=late)
    assert one.step() is None
    house.log.values[0] += values(2, 5)
    house.log.create("visits", 2)
    house.log.values[1] += values(3, 2)  # of a partition that is added later, nothing is passed over
    house.clock.advance(3 * SECOND)
    drain(one)
    assert sum(house.counts()) == 7
    house.log.values[0] += values(3, 30)
    house.log.first[0] = 40
    with pytest.raises(OffsetGone, match="begins at offset 120; offset 73"):
        one.step()
    one.seek({0: 120})
    drain(one)
    assert sum(house.counts()) == 22
    assert drain(house.lander("other")) == 0


def test_at_its_start_a_stream_passes_over_the_messages_of_partitions_that_another_worker_holds() -> None:
    house = House(*(values(seed, 20) for seed in range(4)))
    late = Stream(CORRECTED, topic="visits", start="next")
    house.store.claim(CORRECTED.name, "two", [2, 3], house.clock.now(), house.clock.now() + LEASE_US)
    one = house.lander("one", stream=late)
    assert one.step() is None
    assert sorted(one.epochs) == [0, 1]
    house.log.values[1] += values(5, 3)
    house.log.values[2] += values(6, 4)
    assert drain(one, house.lander("two", stream=late)) > 0
    assert sum(house.counts()) == 7


def test_an_open_batch_of_lost_messages_does_not_bar_a_seek() -> None:
    house = House(values(1, 60))
    one = house.lander()
    one.step()

    def broken(*_: Any, **__: Any) -> Mapping[str, int]:
        raise KeyboardInterrupt

    append, rewrite = house.lake.append, house.lake.rewrite
    house.lake.append = house.lake.rewrite = broken  # type: ignore[assignment,method-assign]
    with pytest.raises(KeyboardInterrupt):
        one.step()
    house.lake.append, house.lake.rewrite = append, rewrite  # type: ignore[method-assign]
    house.log.first[0] = 60
    one.seek({0: 180})
    drain(one)
    assert house.lake.marks(CORRECTED.name, ["offset/visits/0"]) == {"offset/visits/0": 180}
