"""A log in memory, for tests of streams that need nothing of a log but its order."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from zlib import crc32

from mainspring.core.errors import NotFound
from mainspring.data.streams.model import Message, NewMessage, OffsetGone, Span


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
        for partition, offset in after.items():
            if offset < (first := self.first.get((topic, partition), 0)):
                raise OffsetGone(topic, partition, offset, first)
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

    def all(self, topic: str) -> list[Message]:
        return [message for messages in self._topics[topic] for message in messages]


class FileLog(ListLog):
    """The same over a file, for tests that kill processes: what `produce` returned is there afterwards."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, partitions INTEGER)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS messages (topic TEXT, partition INTEGER, offset INTEGER, key BLOB, value BLOB, "
            "at INTEGER, headers BLOB, PRIMARY KEY (topic, partition, offset))"
        )

    def create(self, topic: str, partitions: int = 1) -> None:
        self._db.execute("INSERT OR REPLACE INTO topics VALUES (?, ?)", (topic, partitions))

    def partitions(self, topic: str) -> list[int]:
        found = self._db.execute("SELECT partitions FROM topics WHERE name = ?", (topic,)).fetchone()
        if found is None:
            raise NotFound(f"There is no topic {topic!r}.")
        return list(range(found[0]))

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        return {each: Span(0, self._next(topic, each)) for each in partitions}

    def _next(self, topic: str, partition: int) -> int:
        query = "SELECT coalesce(max(offset) + 1, 0) FROM messages WHERE topic = ? AND partition = ?"
        return int(self._db.execute(query, (topic, partition)).fetchone()[0])

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        share = max(1, limit // len(after))
        query = "SELECT * FROM messages WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?"
        rows = [row for each, at in after.items() for row in self._db.execute(query, (topic, each, at, share))]
        if not rows:
            time.sleep(wait_s)
        return [
            Message(partition, offset, key, value, at, _headers(headers))
            for _, partition, offset, key, value, at, headers in rows
        ]

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        count, written = len(self.partitions(topic)), []
        self._db.execute("BEGIN IMMEDIATE")
        for each in messages:
            partition = each.partition if each.partition is not None else crc32(each.key or b"") % count
            offset = self._next(topic, partition)
            headers = json.dumps([[name, value.decode()] for name, value in each.headers])
            row = (topic, partition, offset, each.key, each.value, self.now if each.at is None else each.at, headers)
            self._db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            written.append((partition, offset))
        self._db.execute("COMMIT")
        return written

    def all(self, topic: str) -> list[Message]:
        found = dict.fromkeys(self.partitions(topic), 0)
        return sorted(self.read(topic, found, limit=1 << 40), key=lambda each: (each.partition, each.offset))


def _headers(text: str) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value.encode()) for name, value in json.loads(text))
