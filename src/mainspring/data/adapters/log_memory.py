"""A log of messages in memory: for tests, and for what need not outlive its process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from mainspring.core.time import Clock, SystemClock
from mainspring.data.streams.limits import (
    LARGEST_BYTES,
    check_offset,
    check_sizes,
    check_topic,
    fewer_partitions,
    partition_of,
    take_in_turns,
    unknown_partition,
    unknown_topic,
)
from mainspring.data.streams.model import Message, NewMessage, Span


class _Partition:
    def __init__(self) -> None:
        self.first = 0
        self.messages: list[Message] = []

    @property
    def span(self) -> Span:
        return Span(self.first, self.first + len(self.messages))


class MemoryLog:
    """Topics as lists. Shared by the threads of one process."""

    def __init__(self, clock: Clock | None = None, *, largest_bytes: int = LARGEST_BYTES) -> None:
        self._clock = clock or SystemClock()
        self._largest_bytes = largest_bytes
        self._topics: dict[str, list[_Partition]] = {}
        self._groups: dict[tuple[str, str], dict[int, int]] = {}
        self._written = 0
        self._turn = 0
        self._changed = threading.Condition()

    def create(self, topic: str, partitions: int = 1) -> None:
        check_topic(topic, partitions)
        with self._changed:
            there = self._topics.setdefault(topic, [])
            if len(there) > partitions:
                raise fewer_partitions(topic, partitions, len(there))
            there += [_Partition() for _ in range(partitions - len(there))]

    def topics(self) -> list[str]:
        return sorted(self._topics)

    def partitions(self, topic: str) -> list[int]:
        return list(range(len(self._partitions(topic))))

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        with self._changed:
            return {number: self._partition(topic, number).span for number in partitions}

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        end = time.monotonic() + wait_s
        with self._changed:
            while True:
                found = self._found(topic, after, limit, max_bytes)
                left = end - time.monotonic()
                if found or left <= 0:
                    return found
                self._changed.wait(left)

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        check_sizes(topic, messages, self._largest_bytes)
        now = self._clock.now()
        with self._changed:
            count = len(self._partitions(topic))
            places = [partition_of(message, count, self._written + i) for i, message in enumerate(messages)]
            targets = [self._partition(topic, place) for place in places]
            written = []
            for message, place, target in zip(messages, places, targets, strict=True):
                at = now if message.at is None else message.at
                kept = Message(place, target.span.next, message.key, message.value, at, message.headers)
                target.messages.append(kept)
                written.append((place, kept.offset))
            self._written += len(messages)
            self._changed.notify_all()
        return written

    def forget(self, topic: str, before: Mapping[int, int]) -> None:
        """Remove messages before an offset of partitions, as retention does."""
        with self._changed:
            for number, offset in before.items():
                partition = self._partition(topic, number)
                removed = max(0, min(offset, partition.span.next) - partition.first)
                del partition.messages[:removed]
                partition.first += removed

    def committed(self, topic: str, group: str) -> dict[int, int]:
        return dict(self._groups.get((topic, group), {}))

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        self._groups.setdefault((topic, group), {}).update(offsets)

    def close(self) -> None:
        pass  # there is nothing to close; the messages stay

    def _partitions(self, topic: str) -> list[_Partition]:
        if topic not in self._topics:
            raise unknown_topic(topic)
        return self._topics[topic]

    def _partition(self, topic: str, number: int) -> _Partition:
        there = self._partitions(topic)
        if not 0 <= number < len(there):
            raise unknown_partition(topic, number, len(there))
        return there[number]

    def _found(self, topic: str, after: Mapping[int, int], limit: int, max_bytes: int) -> list[Message]:
        ways = []
        self._partitions(topic)
        for number, offset in after.items():
            partition = self._partition(topic, number)
            check_offset(topic, number, offset, partition.span)
            start = offset - partition.first
            ways.append(iter(partition.messages[start : start + limit]))
        self._turn += 1
        return take_in_turns(ways, self._turn, limit, max_bytes)
