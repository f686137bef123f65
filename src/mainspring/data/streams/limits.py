"""Rules of all logs: names of topics, sizes of messages, offsets, the partition of a key, turns between partitions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from zlib import crc32

from mainspring.core.errors import Invalid, NotFound, TooLarge
from mainspring.data.streams.model import Message, NewMessage, OffsetAhead, OffsetGone, Span

LARGEST_BYTES = 16 << 20  # of a message in a log of our own
MOST_PARTITIONS = 4_096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # allowed by every log


def check_topic(topic: str, partitions: int) -> None:
    """Raise `Invalid` unless every kind of log could have a topic of that name, and of so many partitions."""
    if not _NAME.fullmatch(topic):
        raise Invalid(
            f"{topic[:140]!r} is not the name of a topic.",
            fix="use up to 128 letters, digits, dots, hyphens and underscores, the first of them no dot or hyphen.",
        )
    if not 1 <= partitions <= MOST_PARTITIONS:
        raise Invalid(
            f"Topic {topic!r} cannot have {partitions} partitions.", fix=f"choose a number from 1 to {MOST_PARTITIONS}."
        )


def unknown_topic(topic: str) -> NotFound:
    """Return the error of a topic that is not there."""
    return NotFound(
        f"The log has no topic {topic[:140]!r}.",
        fix=f"run `mainspring topics list`, or create it: `mainspring topics create {topic[:140]}`.",
    )


def unknown_partition(topic: str, partition: int, count: int) -> NotFound:
    """Return the error of a partition that is not there."""
    return NotFound(
        f"Topic {topic!r} has no partition {partition}; it has {count}.",
        fix=f"run `mainspring topics create {topic} --partitions {partition + 1}` to give it more.",
    )


def fewer_partitions(topic: str, wanted: int, has: int) -> Invalid:
    """Return the error of a topic that was to lose partitions."""
    return Invalid(
        f"Topic {topic!r} has {has} partitions and cannot have {wanted}: messages would be lost.",
        fix="create a topic of another name.",
    )


def size_of(message: NewMessage) -> int:
    """Return the bytes of a message's key, value and headers."""
    size = len(message.value or b"") + len(message.key or b"")
    for name, value in message.headers:
        size += len(name) + len(value)
    return size


def check_sizes(topic: str, messages: Sequence[NewMessage], largest: int) -> None:
    """Raise `TooLarge` if a message has more bytes than `largest`."""
    for message in messages:
        if (size := size_of(message)) > largest:
            raise TooLarge(
                f"A message for topic {topic!r} has {size} bytes; its log allows {largest}.",
                fix="store the large part as an object, and send its address.",
            )


def partition_of(message: NewMessage, count: int, otherwise: int) -> int:
    """Return the partition to which a log of our own writes a message.

    Args:
        otherwise: A number that differs from message to message, for those without a key.
    """
    if message.partition is not None:
        return message.partition
    return (otherwise if message.key is None else crc32(message.key)) % count


def check_offset(topic: str, partition: int, wanted: int, span: Span) -> None:
    """Raise `OffsetGone` or `OffsetAhead` unless a partition may be read from an offset."""
    if wanted < span.first:
        raise OffsetGone(topic, partition, wanted, span.first)
    if wanted > span.next:
        raise OffsetAhead(topic, partition, wanted, span)


def take_in_turns(ways: Sequence[Iterator[Message]], turn: int, limit: int, max_bytes: int) -> list[Message]:
    """Return messages of partitions, one of each in a round, so that none is starved.

    Args:
        turn: Number of the call, which decides whose message comes first.
        max_bytes: Bytes of values after which no further message is taken.
    """
    start = turn % len(ways) if ways else 0
    waiting = [*ways[start:], *ways[:start]]
    found: list[Message] = []
    size = 0
    while waiting:
        for way in tuple(waiting):
            message = next(way, None)
            if message is None:
                waiting.remove(way)
                continue
            found.append(message)
            size += len(message.value or b"")
            if len(found) >= limit or size >= max_bytes:
                return found
    return found
