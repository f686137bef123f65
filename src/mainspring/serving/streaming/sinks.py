"""Delivery of outputs to topics, tables and webhooks: each once where the destination can tell, in order by key.

A sink reads the outbox of every partition in its order, and stores how far it is. After a crash it may have delivered
more than it stored: a topic's end is read, a table knows the keys of its writes, a webhook gets an idempotency key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import msgspec

from mainspring.core.errors import Denied, Invalid, TooLarge, Unavailable
from mainspring.data.ports import LakeTables
from mainspring.data.streams.model import NewMessage, OffsetGone
from mainspring.data.streams.ports import EventLog
from mainspring.data.streams.reading import AGAIN_S
from mainspring.serving.streaming.event import DeadLetter, Output
from mainspring.serving.streaming.state import DEAD_LETTER, PartitionState, Waiting

EVENT_ID = "event-id"
_AT_ONCE = 1_000
_POSTS_AT_ONCE = 8
_ROWS_AT_ONCE = 50_000
_decode = msgspec.msgpack.Decoder(Output).decode
_decode_dead = msgspec.msgpack.Decoder(DeadLetter).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_note = msgspec.msgpack.Decoder(dict[int, str]).decode
_decode_chunk = msgspec.msgpack.Decoder(tuple[int, int]).decode

Post = Callable[[bytes, str], None]  # body, event id; raises `Unavailable`, `Denied` or `Invalid`
Refuse = Callable[[str, Output, str], None]  # sink, output, reason; makes it a dead letter, once


class SinkWriter(Protocol):
    """A destination of outputs."""

    id: str

    def deliver(self, file: PartitionState, partition: int, /) -> int:
        """Deliver what waits in a partition's outbox, store how far that is, and return the number of
        entries.

        Raises:
            Unavailable: The destination does not answer; call again.
        """
        ...


def _mine(id_: str, file: PartitionState, entries: Sequence[Waiting]) -> list[Waiting]:
    """Return the entries that a sink gets."""
    number = file.number(id_)
    return [each for each in entries if each.sinks >> number & 1]


class TopicSink:
    """Produces outputs to a topic. Before the first delivery from a partition the topic's end is read."""

    def __init__(self, id_: str, topic: str, log: EventLog, refuse: Refuse) -> None:
        self.id = id_
        self._topic = topic
        self._log = log
        self._refuse = refuse
        # By the object of the input's state, as a partition may come back after another process had it:
        # partition of the output -> next offset, and what is written of that which waits.
        self._open: WeakKeyDictionary[PartitionState, dict[int, int]] = WeakKeyDictionary()
        self._written: WeakKeyDictionary[PartitionState, set[str]] = WeakKeyDictionary()

    def deliver(self, file: PartitionState, _partition: int) -> int:
        if file not in self._open:
            self._recover(file)
        entries = file.waiting(file.done(self.id), _AT_ONCE)
        if not entries:
            return 0
        outputs = [_decode(each.body) for each in _mine(self.id, file, entries)]
        written = self._written[file]
        new = [each for each in outputs if each.event_id not in written]
        places = self._open[file]
        if new:
            for where, offset in self._produce(new, file):
                places[where] = max(places.get(where, 0), offset + 1)
        written.difference_update([each.event_id for each in outputs])
        file.deliver(self.id, entries[-1].seq, self._note(places))
        return len(entries)

    def _produce(self, outputs: Sequence[Output], file: PartitionState) -> list[tuple[int, int]]:
        messages = [
            NewMessage(each.document(), key=each.key, headers=((EVENT_ID, each.event_id.encode()),)) for each in outputs
        ]
        try:
            return self._log.produce(self._topic, messages)
        except TooLarge as error:
            if len(outputs) > 1:
                half = len(outputs) // 2
                return [*self._produce(outputs[:half], file), *self._produce(outputs[half:], file)]
            self._refuse(self.id, outputs[0], str(error))
            return []
        except BaseException:
            del self._open[file]  # some may have been written
            raise

    def _recover(self, file: PartitionState) -> None:
        """Find what was produced since the last stored place."""
        spans = self._log.spans(self._topic, self._log.partitions(self._topic))
        note = file.note(self.id)
        if not note:
            places = {where: span.next for where, span in spans.items()}
            file.deliver(self.id, note=self._note(places), durable=True)
            self._open[file], self._written[file] = places, set()
            return
        places = {where: int(offset) for where, offset in _decode_note(note).items()}
        for where, span in spans.items():
            places[where] = max(places.get(where, 0), span.first)
        waiting = {
            _decode(each.body).event_id for each in _mine(self.id, file, file.waiting(file.done(self.id), 1 << 30))
        }
        self._written[file] = self._written_since(places, spans, waiting) if waiting else set()
        self._open[file] = places

    def _written_since(self, places: Mapping[int, int], spans: Mapping[int, Any], waiting: set[str]) -> set[str]:
        after = {where: offset for where, offset in places.items() if where in spans and offset < spans[where].next}
        found: set[str] = set()
        while after:
            try:
                messages = self._log.read(self._topic, after, limit=_AT_ONCE, wait_s=AGAIN_S)
            except OffsetGone as error:
                after[error.partition] = error.first
                continue
            for message in messages:
                after[message.partition] = message.offset + 1
                found.update(value.decode() for name, value in message.headers if name == EVENT_ID)
            after = {where: offset for where, offset in after.items() if messages and offset < spans[where].next}
        return found & waiting

    @staticmethod
    def _note(places: Mapping[int, int]) -> bytes:
        return _encode({where: str(offset) for where, offset in places.items()})


class TableSink:
    """Appends outputs, or dead letters, to a table of the lake. A chunk's bounds are stored before it is written, so
    that it is the same in every try, under the same key."""

    def __init__(self, id_: str, table: str, lake: LakeTables, owner: str, *, dead: bool = False) -> None:
        self.id = id_
        self._table = table
        self._lake = lake
        self._owner = owner
        self._dead = dead

    def deliver(self, file: PartitionState, partition: int) -> int:
        done, note = file.done(self.id), file.note(self.id)
        chunk = _decode_chunk(note) if note else (0, 0)
        if chunk[1] <= done:
            entries = file.waiting(done, _ROWS_AT_ONCE)
            if not entries:
                return 0
            if not _mine(self.id, file, entries):
                file.deliver(self.id, entries[-1].seq)
                return len(entries)
            chunk = done, entries[-1].seq
            file.deliver(self.id, note=_encode(chunk), durable=True)
        entries = _mine(self.id, file, file.waiting(chunk[0], 1 << 30, chunk[1]))
        key = f"{self._owner}/{partition}/{chunk[0] + 1}-{chunk[1]}"
        rows = self._rows(entries)
        self._lake.append(self._table, rows.to_batches(), rows.schema, key=key)
        file.deliver(self.id, chunk[1])
        return len(entries)

    def _rows(self, entries: Sequence[Waiting]) -> Any:
        from mainspring.serving.streaming.tables import dead_letters, outputs

        if self._dead:
            return dead_letters([_decode_dead(each.body) for each in entries if each.kind == DEAD_LETTER])
        return outputs([_decode(each.body) for each in entries])


class WebhookSink:
    """Posts outputs one after another, those of a partition in order: so none overtakes another of its key.

    An output that the receiver refuses becomes a dead letter; while it does not answer, all wait.
    """

    def __init__(self, id_: str, post: Post, refuse: Refuse) -> None:
        self.id = id_
        self._post = post
        self._refuse = refuse

    def deliver(self, file: PartitionState, _partition: int) -> int:
        entries = file.waiting(file.done(self.id), _POSTS_AT_ONCE)
        for each in _mine(self.id, file, entries):
            self._send(_decode(each.body))
            file.deliver(self.id, each.seq)
        if entries:
            file.deliver(self.id, entries[-1].seq)
        return len(entries)

    def _send(self, output: Output) -> None:
        try:
            self._post(output.document(), output.event_id)
        except Invalid as error:
            self._refuse(self.id, output, str(error))
        except Denied as error:  # once its secret is corrected, nothing was lost meanwhile
            raise Unavailable(error.what, fix=error.fix) from error


def refusing(lake: LakeTables, table: str) -> Refuse:
    """Return what makes a refused output a dead letter."""

    def refuse(sink: str, output: Output, reason: str) -> None:
        from mainspring.serving.streaming.tables import dead_letters

        _, partition, offset = output.event_id.rsplit("-", 2)
        made = DeadLetter(int(partition), offset, output.key, output.document(), output.at, f"{sink}: {reason}")
        rows = dead_letters([made])
        lake.append(table, rows.to_batches(), rows.schema, key=f"refused/{sink}/{output.event_id}")

    return refuse
