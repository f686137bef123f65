"""The embedded log: one SQLite file that many processes write and read at once.

A message's row number is its partition's number and its offset, so that one tree holds the messages in the order in
which they are read. Offsets count up in the transaction that writes, and are never given twice.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import msgspec

from mainspring.core.sqlite_file import SqliteFile
from mainspring.core.time import Clock, SystemClock
from mainspring.data.streams.limits import (
    LARGEST_BYTES,
    check_offset,
    check_sizes,
    check_topic,
    fewer_partitions,
    partition_of,
    size_of,
    take_in_turns,
    unknown_partition,
    unknown_topic,
)
from mainspring.data.streams.model import Message, NewMessage, Span

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS partition (
    id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, number INTEGER NOT NULL,
    first INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
);
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY, arrived INTEGER NOT NULL, at INTEGER, headers BLOB, key BLOB, value BLOB
);
CREATE TABLE IF NOT EXISTS reader (
    topic TEXT NOT NULL, name TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (topic, name, partition)
) WITHOUT ROWID;
"""
_OFFSET_BITS = 44  # 100,000 messages a second for five years, in each of 524,287 partitions
_PARTITIONS = """
SELECT number, partition.id, first, next FROM partition JOIN topic ON topic.id = topic
WHERE name = ? ORDER BY number
"""
_SIZE = "coalesce(length(key), 0) + coalesce(length(value), 0)"  # without the headers, which are stored packed
_POLL_S = 0.005  # a look at the file's counter takes microseconds
_REMOVED_AT_ONCE = 5_000

_packed = msgspec.msgpack.Encoder().encode
_unpacked = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


class SqliteLog:
    """Topics in a file.

    Raises:
        Corrupt: The file is not a database.
        Unavailable: It cannot be opened.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._file = SqliteFile(
            path,
            what="event log",
            damaged=f"stop Mainspring, and restore {path} from a backup; messages that were landed are in the lake.",
            # Messages that `produce` has acknowledged outlive a power cut.
            pragmas=("synchronous=FULL", "mmap_size=268435456", "journal_size_limit=67108864"),
        )
        self._file.create(_SCHEMA)
        self._turn = 0

    def create(self, topic: str, partitions: int = 1) -> None:
        check_topic(topic, partitions)
        with self._file.transaction() as connection:
            connection.execute("INSERT INTO topic (name) VALUES (?) ON CONFLICT DO NOTHING", (topic,))
            (number,) = connection.execute("SELECT id FROM topic WHERE name = ?", (topic,)).fetchone()
            has = connection.execute("SELECT count(*) FROM partition WHERE topic = ?", (number,)).fetchone()[0]
            if has > partitions:
                raise fewer_partitions(topic, partitions, has)
            more = [(number, each) for each in range(has, partitions)]
            connection.executemany("INSERT INTO partition (topic, number) VALUES (?, ?)", more)

    def topics(self) -> list[str]:
        with self._file.errors():
            return sorted(name for (name,) in self._file.connection().execute("SELECT name FROM topic"))

    def partitions(self, topic: str) -> list[int]:
        with self._file.errors():
            return list(_partitions(self._file.connection(), topic))

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        with self._file.errors():
            there = _partitions(self._file.connection(), topic)
        return {number: _named(topic, there, number)[1] for number in partitions}

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        end = time.monotonic() + wait_s
        with self._file.errors():
            connection = self._file.connection()
            while True:
                (counter,) = connection.execute("PRAGMA data_version").fetchone()
                found = self._found(topic, after, limit, max_bytes)
                if found or not _changed(connection, counter, end):
                    return found

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        check_sizes(topic, messages, LARGEST_BYTES)
        headers = [_packed(message.headers) if message.headers else None for message in messages]
        now = self._clock.now()
        with self._file.transaction() as connection:
            there = _partitions(connection, topic)
            written_before = sum(span.next for _, span in there.values())
            rows, places = [], []
            nexts = {number: span.next for number, (_, span) in there.items()}
            sizes = dict.fromkeys(there, 0)
            for i, message in enumerate(messages):
                number = partition_of(message, len(there), written_before + i)
                base, _ = _named(topic, there, number)
                offset = nexts[number]
                nexts[number] = offset + 1
                sizes[number] += size_of(message)
                rows.append((base | offset, now, message.at, headers[i], message.key, message.value))
                places.append((number, offset))
            connection.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.executemany(
                "UPDATE partition SET next = ?, bytes = bytes + ? WHERE id = ?",
                [
                    (nexts[number], size, there[number][0] >> _OFFSET_BITS)
                    for number, size in sizes.items()
                    if size or nexts[number] != there[number][1].next
                ],
            )
        return places

    def committed(self, topic: str, group: str) -> dict[int, int]:
        query = "SELECT partition, next FROM reader WHERE topic = ? AND name = ? ORDER BY partition"
        with self._file.errors():
            return dict(self._file.connection().execute(query, (topic, group)).fetchall())

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        rows = [(topic, group, partition, offset) for partition, offset in offsets.items()]
        with self._file.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO reader VALUES (?, ?, ?, ?)", rows)

    def retain(self, *, since: int | None = None, most_bytes: int | None = None) -> int:
        """Remove old messages, in pieces between which other processes can write; see `ports.Retaining`."""
        return sum(self._retain(topic, since, most_bytes) for topic in self.topics())

    def erase(self, topic: str, places: Collection[tuple[int, int]]) -> None:
        with self._file.transaction() as connection:
            there = _partitions(connection, topic)
            for number, offset in places:
                base, _ = _named(topic, there, number)
                found = f"SELECT {_SIZE}, headers FROM message WHERE id = ?"
                for size, headers in connection.execute(found, (base | offset,)).fetchall():
                    connection.execute("DELETE FROM message WHERE id = ?", (base | offset,))
                    connection.execute(
                        "UPDATE partition SET bytes = bytes - ? WHERE id = ?",
                        (size + _header_bytes(headers), base >> _OFFSET_BITS),
                    )
        self._file.rewrite()

    def close(self) -> None:
        self._file.close()

    def _found(self, topic: str, after: Mapping[int, int], limit: int, max_bytes: int) -> list[Message]:
        with self._file.transaction("DEFERRED") as connection:  # one state of all partitions
            there = _partitions(connection, topic)
            ways = []
            for number, offset in after.items():
                base, span = _named(topic, there, number)
                check_offset(topic, number, offset, span)
                if offset < span.next:
                    ways.append(_messages(connection, number, base, range(offset, span.next)))
            self._turn += 1
            return take_in_turns(ways, self._turn, limit, max_bytes)

    def _retain(self, topic: str, since: int | None, most_bytes: int | None) -> int:
        removed = 0
        while True:
            with self._file.transaction() as connection:
                there = _partitions(connection, topic)
                until = _kept_from(connection, there, since, most_bytes)
                for base, offset in until.items():
                    _remove(connection, base, offset)
            found = sum(until[base] - span.first for base, span in there.values() if base in until)
            removed += found
            if found < _REMOVED_AT_ONCE:
                return removed


def _partitions(connection: Connection, topic: str) -> dict[int, tuple[int, Span]]:
    """Return partition -> (row number of its offset 0, its span)."""
    rows = connection.execute(_PARTITIONS, (topic,)).fetchall()
    if not rows:
        raise unknown_topic(topic)
    return {number: (id_ << _OFFSET_BITS, Span(first, next_)) for number, id_, first, next_ in rows}


def _named(topic: str, there: Mapping[int, tuple[int, Span]], number: int) -> tuple[int, Span]:
    if number not in there:
        raise unknown_partition(topic, number, len(there))
    return there[number]


def _messages(connection: Connection, number: int, base: int, offsets: range) -> Iterator[Message]:
    query = "SELECT id, coalesce(at, arrived), headers, key, value FROM message WHERE id >= ? AND id < ? ORDER BY id"
    for id_, at, headers, key, value in connection.execute(query, (base + offsets.start, base + offsets.stop)):
        yield Message(number, id_ - base, key, value, at, () if headers is None else _unpacked(headers))


def _changed(connection: Connection, counter: int, end: float) -> bool:
    """Wait until another connection has written to the file, and return whether one did before `end`."""
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _POLL_S))
        if connection.execute("PRAGMA data_version").fetchone() != (counter,):
            return True
    return False


def _kept_from(
    connection: Connection, there: Mapping[int, tuple[int, Span]], since: int | None, most_bytes: int | None
) -> dict[int, int]:
    """Return row number of offset 0 -> the first offset to keep, for partitions that lose messages now.

    The oldest of all partitions goes first, so that no message is removed while an older one stays.
    """
    (size,) = connection.execute(
        "SELECT coalesce(sum(bytes), 0) FROM partition WHERE id IN "
        f"({','.join(str(base >> _OFFSET_BITS) for base, _ in there.values())})"
    ).fetchone()
    excess = 0 if most_bytes is None else size - most_bytes
    until: dict[int, int] = {}
    oldest: Iterator[tuple[Any, ...]] = heapq.merge(
        *(_ages(connection, base, span) for base, span in there.values()), key=lambda row: row[0]
    )
    for count, (arrived, base, offset, bytes_) in enumerate(oldest):
        if count == _REMOVED_AT_ONCE or (excess <= 0 and (since is None or arrived >= since)):
            break
        until[base] = offset + 1
        excess -= bytes_
    return until


def _ages(connection: Connection, base: int, span: Span) -> Iterator[tuple[int, int, int, int]]:
    """Yield (time of arrival, row number of offset 0, offset, bytes) of a partition's messages."""
    query = f"SELECT arrived, id, {_SIZE}, headers FROM message WHERE id >= ? AND id < ? ORDER BY id"
    for arrived, id_, size, headers in connection.execute(query, (base + span.first, base + span.next)):
        yield arrived, base, id_ - base, size + _header_bytes(headers)


def _remove(connection: Connection, base: int, until: int) -> None:
    span = "id >= ? AND id < ?"
    (size,) = connection.execute(
        f"SELECT coalesce(sum({_SIZE}), 0) FROM message WHERE {span}", (base, base + until)
    ).fetchone()
    packed = f"SELECT headers FROM message WHERE {span} AND headers IS NOT NULL"
    size += sum(_header_bytes(headers) for (headers,) in connection.execute(packed, (base, base + until)))
    connection.execute(f"DELETE FROM message WHERE {span}", (base, base + until))
    connection.execute(
        "UPDATE partition SET first = ?, bytes = bytes - ? WHERE id = ?", (until, size, base >> _OFFSET_BITS)
    )


def _header_bytes(headers: bytes | None) -> int:
    """Return the bytes of packed headers as `limits.size_of` counts them."""
    return 0 if headers is None else sum(len(name) + len(value) for name, value in _unpacked(headers))
