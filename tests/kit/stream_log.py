"""A log in memory, for tests of streams that need nothing of a log but its order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from zlib import crc32

from mainspring.core.errors import NotFound
from mainspring.data.streams.limits import check_offset
from mainspring.data.streams.model import Message, NewMessage, Span
from mainspring.data.streams.ports import EventLog


class ListLog:
    """`data.streams.ports.EventLog` over lists. `first` may be raised, as by retention."""

    def __init__(self) -> None:
        self._topics: dict[str, list[list[Message]]] = {}
        self.first: dict[tuple[str, int], int] = {}
        self.now = 0
        self._lock = threading.Lock()

    def create(self, topic: str, partitions: int = 1) -> None:
        lists = self._topics.setdefault(topic, [])
        lists += [[] for _ in range(partitions - len(lists))]

    def topics(self) -> list[str]:
        return sorted(self._topics)

    def partitions(self, topic: str) -> list[int]:
        if topic not in self._topics:
            raise NotFound(f"There is no topic {topic!r}.")
        return list(range(len(self._topics[topic])))

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        return {each: Span(self.first.get((topic, each), 0), len(self._topics[topic][each])) for each in partitions}

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        self.partitions(topic)
        for partition, span in self.spans(topic, after).items():
            check_offset(topic, partition, after[partition], span)
        share = max(1, limit // len(after))
        with self._lock:
            found = [each for number, offset in after.items() for each in self._topics[topic][number][offset:][:share]]
        if not found:
            time.sleep(wait_s)
        return found

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        lists = self._topics[topic]
        written = []
        with self._lock:
            for each in messages:
                partition = each.partition if each.partition is not None else crc32(each.key or b"") % len(lists)
                at = self.now if each.at is None else each.at
                made = Message(partition, len(lists[partition]), each.key, each.value, at, each.headers)
                lists[partition].append(made)
                written.append((partition, made.offset))
        return written

    def committed(self, topic: str, group: str) -> dict[int, int]:
        return {}

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        pass

    def close(self) -> None:
        pass


def all_messages(log: EventLog, topic: str) -> list[Message]:
    """Return every message of a topic, by partition and offset."""
    found: list[Message] = []
    for partition, span in log.spans(topic, log.partitions(topic)).items():
        offset = span.first
        while offset < span.next:
            found += log.read(topic, {partition: offset}, limit=1_000)
            offset = found[-1].offset + 1
    return found
