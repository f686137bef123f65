"""Conformance suite of logs of messages. Derive a test class from `EventLogConformance`, with a fixture `log`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import pytest

from mainspring.core.errors import Invalid, NotFound, TooLarge
from mainspring.core.time import SystemClock
from mainspring.data.streams.model import Message, NewMessage, OffsetAhead, OffsetGone
from mainspring.data.streams.ports import Erasing, EventLog

_AT = 1_764_288_000_123_000  # whole milliseconds: some logs have no finer times
_FAR = 1_000_000  # of an offset that no test reaches


def messages(count: int, partition: int | None = 0) -> list[NewMessage]:
    """Return messages whose values are `0`, `1` and so on."""
    return [NewMessage(str(number).encode(), partition=partition) for number in range(count)]


def starts(log: EventLog, topic: str) -> dict[int, int]:
    """Return partition -> its first offset."""
    return {number: span.first for number, span in log.spans(topic, log.partitions(topic)).items()}


def read_all(log: EventLog, topic: str, after: Mapping[int, int], count: int, *, limit: int = 1_000) -> list[Message]:
    """Return the next `count` messages, read by as many calls as it takes, and check that those are in order."""
    wanted, found = dict(after), list[Message]()
    end = time.monotonic() + 30
    while len(found) < count and time.monotonic() < end:
        for message in log.read(topic, wanted, limit=limit, wait_s=1):
            assert message.offset >= wanted[message.partition]
            wanted[message.partition] = message.offset + 1
            found.append(message)
    return found


class EventLogConformance:
    many = 3_000  # messages in one call
    grows = True  # whether a topic can get more partitions
    tells_ahead = True  # whether the log knows that an offset is still to come
    groups = True  # whether the log has a place for where groups stand
    remembers_its_end = True  # whether a partition that lost all of its messages still has their offsets

    def forget(self, log: Any, topic: str, before: Mapping[int, int]) -> None:  # noqa: ARG002
        """Make the log lose messages before an offset of partitions, as its retention does."""
        pytest.skip("its retention cannot be hurried")

    @pytest.fixture
    def topic(self) -> str:
        return f"clicks.{uuid4().hex}"

    def test_creates_a_topic_once(self, log: EventLog, topic: str) -> None:
        log.create(topic, 2)
        log.create(topic, 2)
        assert topic in log.topics()
        assert log.partitions(topic) == [0, 1]

    def test_gives_a_topic_more_partitions(self, log: EventLog, topic: str) -> None:
        if not self.grows:
            pytest.skip("its topics keep the partitions that they have")
        log.create(topic, 2)
        written = log.produce(topic, messages(3, partition=1))
        log.create(topic, 4)
        assert len(log.partitions(topic)) >= 4
        newest = log.partitions(topic)[-1]
        ((partition, offset),) = log.produce(topic, [NewMessage(b"new", partition=newest)])
        assert partition == newest
        found = read_all(log, topic, {1: written[0][1], newest: offset}, 4)
        assert {each.value for each in found} == {b"0", b"1", b"2", b"new"}

    def test_refuses_fewer_partitions_and_bad_names(self, log: EventLog, topic: str) -> None:
        log.create(topic, 3)
        with pytest.raises(Invalid, match="3 partitions"):
            log.create(topic, 2)
        for name in ("", "a b", "a/b", "..", "-a", "é", "a" * 129, "a\n"):
            with pytest.raises(Invalid, match="name of a topic"):
                log.create(name)
        for count in (0, -1, 1_000_000):
            with pytest.raises(Invalid, match="partitions"):
                log.create(f"{topic}-more", count)
        assert f"{topic}-more" not in log.topics()

    def test_names_what_is_not_there(self, log: EventLog, topic: str) -> None:
        for call in (
            lambda: log.partitions(topic),
            lambda: log.spans(topic, [0]),
            lambda: log.read(topic, {0: 0}, limit=1),
            lambda: log.produce(topic, messages(1)),
        ):
            with pytest.raises(NotFound, match=topic) as refused:
                call()
            assert "mainspring topics" in str(refused.value.fix)
        log.create(topic)
        for call in (
            lambda: log.spans(topic, [0, 7]),
            lambda: log.read(topic, {0: 0, 7: 0}, limit=1),
            lambda: log.produce(topic, messages(1, partition=7)),
        ):
            with pytest.raises(NotFound, match="partition 7"):
                call()
        assert read_all(log, topic, starts(log, topic), 0) == []

    def test_a_new_topic_is_empty(self, log: EventLog, topic: str) -> None:
        log.create(topic, 2)
        spans = log.spans(topic, [0, 1])
        assert all(span.first == span.next for span in spans.values())
        assert log.read(topic, {0: spans[0].first}, limit=10) == []
        assert log.read(topic, {}, limit=10) == []
        assert log.produce(topic, []) == []

    def test_gives_back_what_was_written(self, log: EventLog, topic: str) -> None:
        log.create(topic, 2)
        written = [
            NewMessage(b"\x00\xff", b"\xfe\x00", (("trace", b"\x00"), ("trace", b""), ("ünï", b"x")), 0, _AT),
            NewMessage(b"plain", b"ana", partition=0),
            NewMessage(None, b"gone", partition=0),
            NewMessage(b"", b"", partition=0),
            NewMessage(b"x" * 100_000, None, partition=0),
            NewMessage(b"y", b"k" * 300, partition=0, at=_AT - 5_000_000),
        ]
        before = SystemClock().now()
        places = log.produce(topic, written)
        assert [partition for partition, _ in places] == [0] * len(written)
        found = read_all(log, topic, {0: places[0][1]}, len(written))
        assert [(each.key, each.value, each.headers) for each in found] == [
            (each.key, each.value, each.headers) for each in written
        ]
        assert [(each.partition, each.offset) for each in found] == places
        assert (found[0].at, found[5].at) == (_AT, _AT - 5_000_000)
        assert before - 2_000_000 <= found[1].at <= SystemClock().now() + 2_000_000

    def test_equal_keys_share_a_partition_in_their_order(self, log: EventLog, topic: str) -> None:
        log.create(topic, 3)
        first = starts(log, topic)
        keys = [f"user-{number % 7}".encode() for number in range(210)]
        for begin in (0, 70, 140):
            part = range(begin, begin + 70)
            log.produce(topic, [NewMessage(str(number).encode(), keys[number]) for number in part])
        found = read_all(log, topic, first, 210)
        assert len(found) == 210
        places: dict[bytes | None, set[int]] = {}
        orders: dict[bytes | None, list[int]] = {}
        for each in found:
            places.setdefault(each.key, set()).add(each.partition)
            orders.setdefault(each.key, []).append(int(each.value or b""))
        assert all(len(partitions) == 1 for partitions in places.values())
        assert len(set[int]().union(*places.values())) > 1
        assert all(order == sorted(order) for order in orders.values())

    def test_reads_many_without_a_gap(self, log: EventLog, topic: str) -> None:
        log.create(topic)
        first = starts(log, topic)
        count, middle = self.many, self.many // 2
        places = log.produce(topic, messages(count))
        assert len(set(places)) == count
        assert [offset for _, offset in places] == sorted(offset for _, offset in places)
        found = read_all(log, topic, first, count, limit=count // 4)
        assert [each.value for each in found] == [str(number).encode() for number in range(count)]
        three = log.read(topic, {0: places[middle][1]}, limit=3, wait_s=5)
        assert [each.value for each in three] == [str(middle + number).encode() for number in range(len(three))]
        assert 1 <= len(three) <= 3
        span = log.spans(topic, [0])[0]
        assert (span.first <= places[0][1], span.next > places[-1][1]) == (True, True)

    def test_reading_changes_nothing(self, log: EventLog, topic: str) -> None:
        log.create(topic)
        places = log.produce(topic, messages(5))
        for _ in range(2):
            assert [each.value for each in read_all(log, topic, {0: places[0][1]}, 5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert [each.value for each in read_all(log, topic, {0: places[3][1]}, 2)] == [b"3", b"4"]
        assert log.read(topic, {0: places[4][1] + 1}, limit=5) == []

    def test_keeps_to_the_limits_of_a_read(self, log: EventLog, topic: str) -> None:
        log.create(topic)
        first = starts(log, topic)
        log.produce(topic, [NewMessage(b"x" * 10_000, partition=0)] * 20)
        for limit in (1, 7):
            assert 1 <= len(log.read(topic, first, limit=limit, wait_s=5)) <= limit
        assert len(log.read(topic, first, limit=20, max_bytes=1, wait_s=5)) == 1
        assert 1 <= len(log.read(topic, first, limit=20, max_bytes=35_000, wait_s=5)) <= 4

    def test_starves_no_partition(self, log: EventLog, topic: str) -> None:
        log.create(topic, 3)
        first = starts(log, topic)
        for partition in range(3):
            log.produce(topic, messages(60, partition=partition))
        for limit, reads in ((1, 30), (10, 9)):
            wanted, seen = dict(first), set[int]()
            for number in range(reads):
                for each in log.read(topic, wanted, limit=limit, wait_s=5):
                    seen.add(each.partition)
                    wanted[each.partition] = each.offset + 1
                if len(seen) < 3:
                    time.sleep(min(0.02 * 2**number, 2.0))  # a log may be fetching the others
            assert seen == {0, 1, 2}, limit

    def test_waits_for_the_first_message(self, log: EventLog, topic: str) -> None:
        log.create(topic, 2)
        first = starts(log, topic)
        begun = time.monotonic()
        assert log.read(topic, first, limit=5, wait_s=0.3) == []
        assert 0.2 < time.monotonic() - begun < 15

        writer = threading.Timer(0.3, log.produce, (topic, messages(1, partition=1)))
        writer.start()
        begun = time.monotonic()
        found = log.read(topic, first, limit=5, wait_s=20)
        writer.join()
        assert [each.value for each in found] == [b"0"]
        assert time.monotonic() - begun < 15

    def test_producers_at_once_lose_and_mix_up_nothing(self, log: EventLog, topic: str) -> None:
        log.create(topic, 2)
        first = starts(log, topic)
        failures: list[BaseException] = []

        def produce(name: int) -> None:
            try:
                for begin in range(0, 60, 20):
                    numbers = range(begin, begin + 20)
                    log.produce(
                        topic, [NewMessage(f"{name}:{number}".encode(), str(name).encode()) for number in numbers]
                    )
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=produce, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        found = read_all(log, topic, first, 240)
        for thread in threads:
            thread.join()
        assert failures == []
        assert len({(each.partition, each.offset) for each in found}) == 240
        for name in range(4):
            said = [each.value for each in found if each.key == str(name).encode()]
            assert said == [f"{name}:{number}".encode() for number in range(60)]

    def test_a_lost_offset_is_an_error(self, log: EventLog, topic: str) -> None:
        log.create(topic, 2)
        places = log.produce(topic, messages(10))
        self.forget(log, topic, {0: places[4][1]})
        assert log.spans(topic, [0])[0].first == places[4][1]
        with pytest.raises(OffsetGone) as refused:
            log.read(topic, {0: places[3][1], 1: 0}, limit=5)
        assert (refused.value.partition, refused.value.wanted) == (0, places[3][1])
        assert refused.value.first == places[4][1]
        assert len(read_all(log, topic, {0: places[4][1]}, 6)) == 6

        self.forget(log, topic, {0: places[9][1] + 1})
        span = log.spans(topic, [0])[0]
        assert span.first == span.next == (places[9][1] + 1 if self.remembers_its_end else 0)
        with pytest.raises(OffsetGone):
            log.read(topic, {0: places[9][1]}, limit=5)
        ((_, offset),) = log.produce(topic, messages(1))
        assert offset > places[9][1]
        assert [each.offset for each in read_all(log, topic, {0: span.next}, 1)] == [offset]

    def test_erased_messages_are_gone_and_others_keep_their_offsets(self, log: EventLog, topic: str) -> None:
        if not isinstance(log, Erasing):
            pytest.skip("the log deletes no single messages")
        log.create(topic, 2)
        places = log.produce(topic, [NewMessage(b"v%d" % number, b"k", partition=0) for number in range(6)])
        places += log.produce(topic, messages(2, partition=1))
        doomed = [places[0], places[2], places[5], places[6]]
        for _ in range(2):
            log.erase(topic, doomed)
        first = starts(log, topic)
        found = read_all(log, topic, first, 4)
        assert sorted((each.partition, each.offset) for each in found) == sorted({*places} - {*doomed})
        assert {each.value for each in found} == {b"v1", b"v3", b"v4", b"1"}
        assert log.spans(topic, [0])[0].next == places[5][1] + 1
        ((_, offset),) = log.produce(topic, [NewMessage(b"new", partition=0)])
        assert offset > places[5][1]
        with pytest.raises(NotFound):
            log.erase(f"{topic}-never", [(0, 1)])

    def test_an_offset_beyond_the_end_is_an_error(self, log: EventLog, topic: str) -> None:
        if not self.tells_ahead:
            pytest.skip("the log does not number its messages")
        log.create(topic)
        places = log.produce(topic, messages(2))
        with pytest.raises(OffsetAhead) as refused:
            log.read(topic, {0: places[1][1] + _FAR}, limit=5, wait_s=5)
        assert refused.value.wanted == places[1][1] + _FAR

    def test_a_message_that_is_too_large_is_named_and_nothing_is_written(self, log: EventLog, topic: str) -> None:
        log.create(topic)
        first = starts(log, topic)
        with pytest.raises(TooLarge, match="100000000 bytes") as refused:
            log.produce(topic, [*messages(2), NewMessage(bytes(100_000_000), partition=0)])
        assert topic in str(refused.value)
        log.produce(topic, messages(1))
        assert [each.value for each in read_all(log, topic, first, 1)] == [b"0"]
        assert log.read(topic, first, limit=5, wait_s=0.2)[1:] == []

    def test_remembers_where_groups_stand(self, log: EventLog, topic: str) -> None:
        if not self.groups:
            pytest.skip("the log has no groups")
        log.create(topic, 2)
        places = log.produce(topic, messages(5))
        assert log.committed(topic, "loader") == {}
        log.commit(topic, "loader", {0: places[2][1]})
        log.commit(topic, "other", {1: 0})
        log.commit(topic, "loader", {0: places[3][1]})
        assert log.committed(topic, "loader") == {0: places[3][1]}
        assert log.committed(topic, "other") == {1: 0}

    def test_opens_again_after_it_was_closed(self, log: EventLog, topic: str) -> None:
        log.create(topic)
        places = log.produce(topic, messages(2))
        log.close()
        assert log.partitions(topic) == [0]
        log.produce(topic, messages(1))
        assert len(read_all(log, topic, {0: places[0][1]}, 3)) == 3
        log.close()
        log.close()

    def test_topics_do_not_meet(self, log: EventLog, topic: str) -> None:
        names: Sequence[str] = [topic, f"{topic}.a", f"{topic}-a", f"{topic}_a"]
        for name in names:
            log.create(name)
        for name in names:
            log.produce(name, [NewMessage(name.encode(), partition=0)])
        for name in names:
            assert [each.value for each in read_all(log, name, starts(log, name), 1)] == [name.encode()]
        assert set(names) <= set(log.topics())
