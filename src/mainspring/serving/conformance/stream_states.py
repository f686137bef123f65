"""Checks that every `StateStore` passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mainspring.core.errors import Conflict, NotFound
from mainspring.serving.streaming.progress import BatchRecord, Progress
from mainspring.serving.streaming.state import (
    DEAD_LETTER,
    OUTPUT,
    Commit,
    Erased,
    PartitionState,
    StateStore,
    Waiting,
)


def _batch(number: int, *, at: int = 0, outputs: int = 2, **changes: Any) -> Commit:
    """Return batch `number`, of ten messages and some outputs, accepted at `at`."""
    before = Progress(str(number * 10 - 10), batch=number - 1, seq=(number - 1) * outputs)
    after = Progress(str(number * 10), batch=number, seq=number * outputs, accepted_at=at)
    outbox = [Waiting(before.seq + 1 + n, OUTPUT, 1, b"%d" % n) for n in range(outputs)]
    given: dict[str, Any] = {"states": {}, "outbox": outbox}
    return Commit(after, BatchRecord(before, after.next, {}), **{**given, **changes})


class StateStoreConformance:
    """Derive from it, with a fixture `store` that returns an empty store.

    Attributes:
        shared: Whether machines share it, so that epochs are checked.
    """

    shared = False

    @pytest.fixture
    def state(self, store: StateStore) -> PartitionState:
        state = store.open(3, 1)
        state.enlist(["topic:a", "dead letters"], ["predictions"])
        return state

    def test_a_partition_begins_once_and_is_listed(self, store: StateStore) -> None:
        assert store.partitions() == []
        state = store.open(10, 1)
        assert (state.progress(), state.undelivered(), state.delivered()) == (None, 0, 0)
        state.begin(Progress("7"))
        assert store.open(10).progress() == Progress("7")
        store.open(9, 1).begin(Progress(str(1 << 90)))
        assert store.partitions() == [9, 10]
        assert state.progress() == Progress("7")

    def test_where_partitions_begin_is_stored_once(self, store: StateStore) -> None:
        assert store.starts(lambda: {0: 7, 3: 1 << 90}) == {0: 7, 3: 1 << 90}

        def late() -> dict[int, int]:  # not asked
            raise AssertionError

        assert store.starts(late) == {0: 7, 3: 1 << 90}
        assert store.partitions() == []

    def test_who_is_faster_stores_where_partitions_begin(self, store: StateStore) -> None:
        def slow() -> dict[int, int]:
            assert store.starts(lambda: {1: 2}) == {1: 2}
            return {1: 3}

        assert store.starts(slow) == {1: 2}

    def test_a_commit_has_progress_states_outputs_and_record(self, store: StateStore, state: PartitionState) -> None:
        made = _batch(1, states={b"a": (5, b"A"), b"\x00": (6, b"")})
        state.commit(made)
        other = store.open(3)
        assert other.progress() == made.progress
        assert other.states([b"a", b"b", b"\x00"]) == {b"a": b"A", b"\x00": b""}
        assert other.states([]) == {}
        assert other.waiting(0) == list(made.outbox)
        assert (other.waiting(1), other.waiting(0, 1), other.waiting(0, until=1)) == (
            list(made.outbox[1:]), list(made.outbox[:1]), list(made.outbox[:1]),
        )  # fmt: skip
        assert list(other.batches()) == [(1, made.record)]
        state.commit(_batch(2, states={b"a": (9, b"AA")}))
        assert other.all_states() == {b"a": b"AA", b"\x00": b""}
        assert store.open(4).states([b"a"]) == {}

    def test_states_that_expired_are_deleted_and_can_be_undone(self, state: PartitionState) -> None:
        state.commit(_batch(1, states={b"old": (5, b"1"), b"used": (5, b"2"), b"new": (8, b"3")}))
        second = _batch(2, states={b"used": (9, b"4")}, expired=8)
        second.record.undo[b"used"] = b"2"
        state.commit(second)
        assert state.all_states() == {b"used": b"4", b"new": b"3"}
        assert [record.undo for _, record in state.batches(1)] == [{b"used": b"2", b"old": b"1"}]

    def test_batches_are_read_in_both_orders(self, state: PartitionState) -> None:
        for number in range(1, 151):
            state.commit(_batch(number, outputs=0))
        numbers = list(range(1, 151))
        assert [number for number, _ in state.batches()] == numbers
        assert [number for number, _ in state.batches(100)] == numbers[100:]
        assert [number for number, _ in state.batches(2, limit=70)] == numbers[2:72]
        assert [number for number, _ in state.newest_batches()] == numbers[::-1]

    def test_batches_are_forgotten_once_they_are_old_and_logged(self, state: PartitionState) -> None:
        for number in range(1, 4):
            state.commit(_batch(number, at=number))
        state.commit(_batch(4, at=4, kept_since=3))
        assert [number for number, _ in state.batches()] == [1, 2, 3, 4]
        state.deliver("predictions", 1)
        state.commit(_batch(5, at=5, kept_since=3))
        assert [number for number, _ in state.batches()] == [2, 3, 4, 5]
        state.deliver("predictions", 5)
        state.commit(_batch(6, at=6, kept_since=3))
        assert [number for number, _ in state.batches()] == [3, 4, 5, 6]

    def test_outputs_wait_for_the_slowest_sink(self, store: StateStore, state: PartitionState) -> None:
        state.commit(_batch(1))
        other = store.open(3, 1)
        other.deliver("topic:a", 2, b"there")
        assert (state.delivered(), state.undelivered(), state.done("topic:a"), state.note("topic:a")) == (
            0,
            2,
            2,
            b"there",
        )
        other.deliver("topic:a", note=b"here", durable=True)
        other.deliver("dead letters", 1)
        assert (state.done("topic:a"), state.note("topic:a"), state.delivered(), state.undelivered()) == (
            2,
            b"here",
            1,
            1,
        )
        state.commit(_batch(2))
        assert [each.seq for each in state.waiting(0)] == [2, 3, 4]
        assert (state.done("nobody"), state.note("nobody")) == (0, b"")

    def test_sinks_keep_their_numbers_and_new_ones_begin_with_what_comes_next(
        self, store: StateStore, state: PartitionState
    ) -> None:
        first = state.sinks()
        assert first == {"topic:a": 0, "dead letters": 1, "predictions": -1}
        assert (state.number("topic:a"), state.number("predictions")) == (0, -1)
        state.commit(_batch(1))
        again = store.open(3, 1).enlist(["dead letters", "table:b"], ["predictions", "others"])
        assert again == {"dead letters": 1, "table:b": 0, "predictions": -1, "others": -2}
        assert (state.done("table:b"), state.done("others"), state.done("dead letters")) == (2, 1, 0)
        with pytest.raises(NotFound, match="'topic:a'"):
            state.number("topic:a")

    def test_a_kind_of_entry_is_kept(self, state: PartitionState) -> None:
        entries = [Waiting(1, DEAD_LETTER, 1 << 40, b"\xff"), Waiting(2, OUTPUT, 0, b"")]
        state.commit(_batch(1, outbox=entries))
        assert state.waiting(0) == entries

    def test_only_a_message_that_was_begun_is_blamed_for_a_death(self, store: StateStore) -> None:
        state = store.open(0, 1)
        assert state.opened() == (False, 0)
        assert store.open(0, 1).opened() == (True, 0)  # it died, but on no message
        state.attempt(1)
        assert store.open(0, 1).opened() == (True, 1)
        state.attempt(2)
        state.begin(Progress("8"))  # it got further
        assert store.open(0, 1).opened() == (True, 0)
        state.survived()
        assert store.open(0, 1).opened() == (False, 0)

    def test_a_snapshot_does_not_move(self, store: StateStore, state: PartitionState) -> None:
        state.commit(_batch(1, states={b"a": (1, b"1")}))
        reader = store.open(3)
        with reader.snapshot():
            assert reader.all_states() == {b"a": b"1"}
            if self.concurrent(store):
                state.commit(_batch(2, states={b"a": (2, b"2")}))
            assert reader.all_states() == {b"a": b"1"}
            assert [number for number, _ in reader.newest_batches()] == [1]
        reader.close()

    def concurrent(self, _store: StateStore) -> bool:
        """Return whether one object may write while another has a snapshot."""
        return True

    def test_a_process_that_lost_its_partition_writes_nothing(self, store: StateStore, state: PartitionState) -> None:
        if not self.shared:
            pytest.skip("its partitions have locks that end with their holders")
        state.commit(_batch(1))
        new = store.open(3, 2)
        writes: list[Callable[[], object]] = [
            lambda: state.commit(_batch(2)), lambda: state.deliver("topic:a", 2), lambda: state.begin(Progress("0")),
            lambda: state.attempt(1), state.survived, state.opened, lambda: state.enlist(["topic:b"]),
            lambda: store.open(3, 1),
        ]  # fmt: skip
        for write in writes:
            with pytest.raises(Conflict, match=r"Partition 3 .* another process"):
                write()
        assert new.progress() == _batch(1).progress
        new.commit(_batch(2))
        assert [number for number, _ in state.batches()] == [1, 2]

    def test_what_is_erased_is_in_no_state_batch_or_output(self, store: StateStore, state: PartitionState) -> None:
        class Mine:
            def has(self, key: bytes) -> bool:
                return key == b"mine"

            def batch(self, record: BatchRecord) -> BatchRecord | None:
                left = {key: content for key, content in record.undo.items() if key != b"mine"}
                changed = msgspec.structs.replace(record, undo=left, erased=True)
                return None if left == record.undo else changed

            def entry(self, entry: Waiting) -> Waiting | None:
                return Waiting(entry.seq, entry.kind, 0, b"") if entry.body == b"1" else None

        made = _batch(1, states={b"mine": (5, b"A"), b"other": (6, b"B")})
        made.record.undo.update({b"mine": b"a", b"other": b"b"})
        state.commit(made)
        state.commit(_batch(2, outbox=[Waiting(3, OUTPUT, 1, b"2")]))
        assert (state.erasures(), store.open(3).erase(Mine(), dry_run=True)) == (0, 3)
        assert (state.erasures(), store.open(3).erase(Mine())) == (0, 3)
        assert (state.erasures(), store.open(3).erase(Mine())) == (1, 0)
        assert state.all_states() == {b"other": b"B"}
        assert [(record.undo, record.erased) for _, record in state.batches()] == [
            ({b"other": b"b"}, True),
            ({}, False),
        ]
        assert [(each.sinks, each.body) for each in state.waiting(0)] == [(1, b"0"), (0, b""), (1, b"2")]
        with pytest.raises(Erased):
            state.commit(_batch(3, erasures=0))
        state.commit(_batch(3, erasures=1))
        assert (store.partitions(), state.progress()) == ([3], _batch(3).progress)
