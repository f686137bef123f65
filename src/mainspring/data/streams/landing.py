"""Landing of a stream: batches of messages become rows of its source's table, each message once.

A batch is recorded, then ingested; the version of the table that holds its last row also holds the offsets after its
last messages, as marks. So the table says where its stream goes on: a process that was killed, or a table that was
restored, needs no other care. A batch that was recorded and is not in the table is completed first, with the same
messages under the same number, so its dead letters and quarantined rows are not written twice.

Several workers share a stream's partitions by leases. They ingest one after another, under one lock, and only after a
look at their leases and at the table's marks: a worker that was suspended and lost its lease writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from mainspring.core.errors import MainspringError
from mainspring.core.locks import Locks
from mainspring.core.time import SECOND, Clock
from mainspring.data.flags import numbers, truths
from mainspring.data.ingest import Ingestor
from mainspring.data.keyings import Keyings
from mainspring.data.model import DEAD_LETTERS_SUFFIX
from mainspring.data.ports import LakeTables
from mainspring.data.streams.declaring import FIRST, Stream, event_mark, offset_mark
from mainspring.data.streams.decoding import LETTERS, Decoded, Decoding, letter_rows
from mainspring.data.streams.model import Message, OffsetGone
from mainspring.data.streams.ports import EventLog
from mainspring.data.streams.reading import read_between
from mainspring.data.streams.store import Batch, StreamStore
from mainspring.data.streams.succession import order
from mainspring.data.write_keys import numbered

GROUP = "mainspring"  # consumer group under which a log shows our lag
LEASE_US = 10 * SECOND
_RENEW_US = 2 * SECOND
_TRIES = 3  # others may restore the table, or ingest, between a read and a write
_NUMBER = "batch"  # mark: number of the last batch
_LETTERS_BITS = 20  # `_seq` of a dead letter: the number of its batch, then its place in it


@dataclass(frozen=True, slots=True)
class Landed:
    """A batch that is in the table.

    Args:
        events: Event times of its rows, UTC epoch microseconds.
        accepted: Times at which the log accepted its messages.
    """

    number: int
    messages: int
    rows: int
    quarantined: int
    letters: int
    events: np.ndarray = field(repr=False)
    accepted: np.ndarray = field(repr=False)


class Lander:
    """Ingests one stream, for one worker. One thread at a time.

    Args:
        owner: Name of the worker; no other process has it.
        wall: The machine's clock, for leases and as the latest credible event time.
        keyings: As of `Ingestor.ingest`.
    """

    def __init__(
        self,
        stream: Stream,
        decoding: Decoding,
        *,
        log: EventLog,
        lake: LakeTables,
        ingestor: Ingestor,
        store: StreamStore,
        locks: Locks,
        wall: Clock,
        keyings: Keyings,
        owner: str,
    ) -> None:
        self.stream = stream
        self.owner = owner
        self.epochs: dict[int, int] = {}  # of the partitions that are ours
        self.positions: dict[int, int] = {}  # offsets that are read next
        self._decoding = decoding
        self._log = log
        self._lake = lake
        self._ingestor = ingestor
        self._store = store
        self._locks = locks
        self._wall = wall
        self._keyings = keyings
        self._renewed = 0
        self._marked: set[int] = set()  # partitions whose positions are marks of the table

    def step(self, wait_s: float = 0.0) -> Landed | None:
        """Read messages and ingest them as one batch; return it, None if there was none.

        Args:
            wait_s: Time to wait for a message, seconds.

        Raises:
            NotFound: The topic does not exist.
            OffsetGone: The log no longer holds the next messages.
            Unavailable: The log, or a store, did not answer.
            StorageFull: No space; the next step repeats the batch.
        """
        for _ in range(_TRIES):
            self._renew()
            if not self.epochs:
                return None
            self._place()
            after = {partition: self.positions[partition] for partition in self.epochs}
            messages = self._log.read(self.stream.topic, after, limit=self.stream.batch_rows, wait_s=wait_s)
            if not messages:
                return None
            messages.sort(key=lambda message: (message.partition, message.offset))
            with self._locks.hold(f"stream.{self.stream.name}", wait_s=600.0):
                if not self._outdated(messages):
                    return self._next(messages)
        return None

    def _next(self, messages: Sequence[Message]) -> Landed:
        """Ingest messages as the next batch."""
        batch = Batch(self.stream.name, self.stream.topic, self._last() + 1, self._spans(messages))
        self._store.record(batch)
        landed = self._land(batch, messages)
        ends = {partition: end for partition, (_, end) in batch.spans.items()}
        self.positions |= ends
        self._marked |= {*ends}
        with suppress(MainspringError):  # it is only for the log's own tools
            self._log.commit(self.stream.topic, GROUP, ends)
        return landed

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Go on at other offsets, of any partitions; messages that are passed over are never read.

        Raises:
            Conflict: Another worker ingests the stream meanwhile.
        """
        with self._locks.hold(f"stream.{self.stream.name}", wait_s=600.0):
            with suppress(OffsetGone):  # then the seek is what its fix asks for
                self._complete()
            self._pass_over(offsets)
        self.positions.clear()

    def release(self) -> None:
        """Give up the partitions, so that others need not wait."""
        self._store.release(self.stream.name, self.owner)
        self.epochs, self._renewed = {}, 0

    def watermark(self) -> int | None:
        """Return the time before which no further event is expected, by the stream's lateness; None if unknown.

        It is that of the partition that is furthest behind; partitions without any message do not count.
        """
        partitions = self._log.partitions(self.stream.topic)
        events = self._lake.marks(self.stream.name, [event_mark(self.stream, each) for each in partitions])
        return min(events.values()) - self.stream.lateness_us if events else None

    def _renew(self) -> None:
        now = self._wall.now()
        if now - self._renewed < _RENEW_US and self._renewed <= now:
            return
        before = self.epochs
        self.epochs = self._store.claim(self.stream.name, self.owner, self._ready(), now, now + LEASE_US)
        self._renewed = now
        moved = self._moved(self.positions)
        for partition in list(self.positions):
            if partition in moved or self.epochs.get(partition) != before.get(partition):
                del self.positions[partition]

    def _place(self) -> None:
        """Set the positions of partitions from the table's marks, or by `Stream.start`."""
        new = [partition for partition in self.epochs if partition not in self.positions]
        if not new:
            return
        topic = self.stream.topic
        with self._locks.hold(f"stream.{self.stream.name}", wait_s=600.0):
            self._complete()
            if self.stream.start != FIRST and not self._marks(self._log.partitions(topic)):
                # All at once: what a later worker is the first to read, or is added later, begins at its first message.
                self._pass_over({each: span.next for each, span in self._log.spans(topic, self._ready()).items()})
        marks = self._marks(new)
        fresh = [partition for partition in new if partition not in marks]
        spans = self._log.spans(topic, fresh) if fresh else {}
        self.positions |= {each: marks[each] if each in marks else spans[each].first for each in new}
        self._marked = self._marked - {*new} | {*marks}

    def _ready(self) -> list[int]:
        """Return the partitions that may be read now."""
        return order(self._log, self.stream.topic, self._marks, from_first=self.stream.start == FIRST).ready

    def _pass_over(self, offsets: Mapping[int, int]) -> None:
        """Commit that partitions go on at other offsets, by a batch without messages. The stream's lock is held."""
        since = self._marks(offsets)
        spans = {each: (since.get(each), offset) for each, offset in offsets.items()}
        batch = Batch(self.stream.name, self.stream.topic, self._last() + 1, spans)
        self._store.record(batch)
        self._land(batch, [])

    def _outdated(self, messages: Sequence[Message]) -> bool:
        """Return whether messages must be read again: a lease was lost, or the table's marks are not our positions."""
        now = self._wall.now()
        used = sorted({message.partition for message in messages})
        if not self._store.holds(self.stream.name, self.owner, {each: self.epochs[each] for each in used}, now):
            self.positions.clear()
            self.epochs, self._renewed = {}, 0
            return True
        self._complete()
        if self._moved(used):
            self.positions.clear()
            return True
        return False

    def _moved(self, partitions: Iterable[int]) -> set[int]:
        """Return partitions whose marks are not our positions: others read on, or the table was restored."""
        ours = {each: self.positions[each] if each in self._marked else None for each in partitions}
        marks = self._marks(ours)
        return {each for each, position in ours.items() if marks.get(each) != position}

    def _complete(self) -> None:
        """Ingest the batch that was recorded last, if it is not in the table; a restored table needs it no more."""
        batch = self._store.batch(self.stream.name)
        if batch is None or batch.topic != self.stream.topic:
            return
        marks = self._marks(batch.spans)
        if marks != {each: since for each, (since, _) in batch.spans.items() if since is not None}:
            return
        self._land(batch, self._read_again(batch))

    def _read_again(self, batch: Batch) -> list[Message]:
        spans = self._log.spans(batch.topic, batch.spans)
        ends = {
            each: (spans[each].first if since is None else since, end) for each, (since, end) in batch.spans.items()
        }
        found = chain.from_iterable(read_between(self._log, batch.topic, ends, self.stream.batch_rows))
        return sorted(found, key=lambda message: (message.partition, message.offset))

    def _land(self, batch: Batch, messages: Sequence[Message]) -> Landed:
        source = self.stream.source
        decoded = self._decoding.decode(messages)
        key = numbered(source.name, batch.number)
        if decoded.letters:
            rows = letter_rows(decoded.letters, batch.number << _LETTERS_BITS, key)
            self._lake.append(source.name + DEAD_LETTERS_SUFFIX, rows.to_batches(), LETTERS, key=key)
        marks = {offset_mark(self.stream, each): end for each, (_, end) in batch.spans.items()}
        marks |= self._newest(decoded) | {_NUMBER: batch.number}
        report = self._ingestor.ingest(
            source,
            decoded.rows,
            keyings=self._keyings,
            batch_id=key,
            marks=marks,
            since={offset_mark(self.stream, each): since for each, (since, _) in batch.spans.items()},
        )
        events = numbers(decoded.rows[source.event_time].drop_null())
        accepted = np.array([message.at for message in messages], np.int64)
        letters = len(decoded.letters)
        return Landed(batch.number, len(messages), report.rows, report.quarantined, letters, events, accepted)

    def _newest(self, decoded: Decoded) -> dict[str, int]:
        """Return the marks of partitions' newest event times; a clock that is ahead does not move a watermark."""
        column = decoded.rows[self.stream.source.event_time]
        partitions = np.array([message.partition for message in decoded.kept], np.int64)
        partitions = partitions[truths(column.is_valid())]
        events = np.clip(numbers(column.drop_null()), 0, self._wall.now())
        newest = {
            event_mark(self.stream, int(each)): int(events[partitions == each].max()) for each in np.unique(partitions)
        }
        before = self._lake.marks(self.stream.name, newest)
        return {name: max(event, before.get(name, 0)) for name, event in newest.items()}

    def _last(self) -> int:
        """Return the number of the stream's last batch; the table's counts where the catalog is another."""
        batch = self._store.batch(self.stream.name)
        return max(0 if batch is None else batch.number, self._lake.marks(self.stream.name, [_NUMBER]).get(_NUMBER, 0))

    def _spans(self, messages: Sequence[Message]) -> dict[int, tuple[int | None, int]]:
        ends = {message.partition: message.offset + 1 for message in messages}  # they are sorted
        marks = self._marks(ends)
        return {partition: (marks.get(partition), end) for partition, end in ends.items()}

    def _marks(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the offsets after the last messages in the table, of those partitions that have any."""
        names = {offset_mark(self.stream, partition): partition for partition in partitions}
        return {names[name]: mark for name, mark in self._lake.marks(self.stream.name, names).items()}
