"""Reads of a log for tests of streams."""

from __future__ import annotations

from mainspring.data.streams.model import Message
from mainspring.data.streams.ports import EventLog


def all_messages(log: EventLog, topic: str) -> list[Message]:
    """Return every message of a topic, by partition and offset."""
    found: list[Message] = []
    for partition, span in log.spans(topic, log.partitions(topic)).items():
        offset = span.first
        while offset < span.next:
            found += log.read(topic, {partition: offset}, limit=1_000)
            offset = found[-1].offset + 1
    return found
