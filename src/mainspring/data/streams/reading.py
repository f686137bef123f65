"""Reading what a log is known to hold, such as the messages of a batch that is made once more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mainspring.data.streams.model import Message
from mainspring.data.streams.ports import EventLog

AGAIN_S = 5.0  # to wait for messages that are there: some logs give none before they have begun to read


def read_between(log: EventLog, topic: str, ends: Mapping[int, tuple[int, int]], limit: int) -> Iterator[list[Message]]:
    """Yield the messages from one offset to before another, of each partition in their order.

    Those that the log has compacted are left out. Raises as `EventLog.read`.
    """
    after = {partition: first for partition, (first, _) in ends.items()}
    while after := {each: offset for each, offset in after.items() if offset < ends[each][1]}:
        messages = log.read(topic, after, limit=limit, wait_s=AGAIN_S)
        if not messages:
            return
        for message in messages:
            after[message.partition] = message.offset + 1
        yield [message for message in messages if message.offset < ends[message.partition][1]]
