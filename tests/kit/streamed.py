"""A stream of visits: messages by a seed (late, repeated, disordered, some broken), and a log that holds them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mainspring as ms
from kit.visits import KEYINGS, NOW, SHOPS
from kit.visits import shop as SHOP
from mainspring.core.errors import NotFound
from mainspring.core.locks import Locks
from mainspring.core.time import DAY, HOUR, MINUTE, Clock, format_instant
from mainspring.data.checks import in_range
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.data.ports import LakeTables
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.decoding import Decoding
from mainspring.data.streams.landing import Lander
from mainspring.data.streams.model import Message, NewMessage, OffsetGone, Span
from mainspring.data.streams.ports import EventLog
from mainspring.data.streams.store import StreamStore


def source(name: str, **more: Any) -> Source:
    return Source(
        name,
        schema={"shop": ms.String, "spent": ms.Float64, "visit": ms.Int64},
        event_time="came_at",
        recorded_time="known_at",
        checks=[in_range("spent", -40, 60)],
        **more,
    )


VISITS = source("streamed_visits")
CORRECTED = source("corrected_visits", id="visit")


@ms.feature_view(entity=SHOP, source=VISITS)
class STREAMED:
    visits_1h = ms.count(window="1h")
    spent_24h = ms.sum("spent", window="24h")
    most_30d = ms.max("spent", window="30d")
    last = ms.last("spent", ttl="2d")


STREAM = Stream(VISITS, topic="visits", batch_rows=40)
CORRECTED_STREAM = Stream(CORRECTED, topic="visits", batch_rows=40)


def values(seed: int, count: int) -> list[bytes]:
    """Return messages of the days before `NOW`: a tenth is sent twice, some are late, corrected or broken."""
    chance = random.Random(seed)
    made: list[bytes] = []
    for number in range(count):
        if made and chance.random() < 0.1:
            made.append(chance.choice(made))
            continue
        came = NOW - chance.choice([chance.randrange(HOUR), chance.randrange(40 * HOUR), chance.randrange(60 * DAY)])
        row = {
            "visit": chance.randrange(number + 1) if chance.random() < 0.1 else number,
            "shop": chance.choice(SHOPS),
            "spent": chance.randrange(-200, 260) / 4,
            "came_at": format_instant(came),
            "known_at": format_instant(came + chance.choice([0, 0, MINUTE, chance.randrange(2 * HOUR)])),
        }
        made.append(
            chance.choice([b"{", b"[]", b'{"came_at": 1.5}']) if chance.random() < 0.05 else json.dumps(row).encode()
        )
    return made


class ListLog:
    """An `EventLog` of one topic over lists of values, one per partition; offsets count by 3."""

    def __init__(self, topic: str, partitions: Sequence[Sequence[bytes | None]]) -> None:
        self.topic = topic
        self.values: list[list[bytes | None]] = [list(each) for each in partitions]
        self.first = [0 for _ in partitions]  # index of the first message that is still there
        self.reads = 0

    def create(self, topic: str, partitions: int = 1) -> None:
        assert topic == self.topic
        while len(self.values) < partitions:
            self.values.append([])
            self.first.append(0)

    def topics(self) -> list[str]:
        return [self.topic]

    def partitions(self, topic: str) -> list[int]:
        if topic != self.topic:
            raise NotFound(f"There is no topic {topic!r}.", fix=f"the log has {self.topic!r}.")
        return list(range(len(self.values)))

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        self.partitions(topic)
        return {each: Span(3 * self.first[each], 3 * len(self.values[each])) for each in partitions}

    def read(
        self,
        topic: str,
        after: Mapping[int, int],
        *,
        limit: int,
        wait_s: float = 0.0,
        max_bytes: int = 64 << 20,
    ) -> list[Message]:
        self.reads += 1
        self.partitions(topic)
        found: list[Message] = []
        for partition, offset in after.items():
            if offset < 3 * self.first[partition] or offset > 3 * len(self.values[partition]):
                raise OffsetGone(topic, partition, offset, 3 * self.first[partition])
            index = -(-offset // 3)
            room = -(-limit // len(after))
            for number, value in enumerate(self.values[partition][index : index + room], index):
                found.append(Message(partition, 3 * number, None, value, NOW - 5))
        return found[:limit] if len(after) == 1 else found

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        self.partitions(topic)
        made = []
        for message in messages:
            partition = message.partition or 0
            self.values[partition].append(message.value)
            made.append((partition, 3 * len(self.values[partition]) - 3))
        return made

    def committed(self, topic: str, group: str) -> dict[int, int]:
        return {}

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None: ...

    def close(self) -> None: ...


def lander(
    lake: LakeTables, locks: Locks, store: StreamStore, log: EventLog, clock: Clock, *, owner: str = "one",
    stream: Stream = STREAM, wall: Clock | None = None,
) -> Lander:  # fmt: skip
    return Lander(
        stream,
        Decoding(stream, Path()),
        log=log,
        lake=lake,
        ingestor=Ingestor(lake, locks, clock),
        store=store,
        locks=locks,
        wall=wall or clock,
        keyings=KEYINGS,
        owner=owner,
    )
