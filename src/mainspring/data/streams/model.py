"""Values of logs of messages: topics, their partitions, and the messages in them.

A topic is a set of partitions. A partition is an ordered sequence of messages, each with an offset: a larger one for
each later message, not always by one. Times are UTC epoch microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import MainspringError


@dataclass(frozen=True, slots=True)
class Message:
    """A message as its log stores it.

    Args:
        offset: Position in its partition; not negative, and larger than 64 bits in some logs.
        at: Time at which its log accepted it, or which its producer set.
        value: None where the producer said that the key is gone (a tombstone).
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    at: int
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be written.

    Args:
        partition: Where to write it; by default as the key says (equal keys, equal partitions), or anywhere without a
            key.
        at: Its time; by default the log's.
    """

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets that a partition holds: from `first`, which is not there in an empty one, up to before `next`.

    Args:
        counts: Whether a message's offset is about one larger than that of the message before it.
    """

    first: int
    next: int
    counts: bool = True

    def lag(self, position: int) -> int:
        """Return the number of messages from an offset on, at most; 1 for any number where offsets do not count."""
        left = max(0, self.next - position)
        return left if self.counts else min(left, 1)


class Undecodable(ValueError):
    """A message that is not a row of its stream's source; its text is the reason, which quotes no value."""


class OffsetGone(MainspringError):
    """The log no longer holds the offset from which a partition was to be read: messages are lost to the reader."""

    def __init__(self, topic: str, partition: int, wanted: int, first: int) -> None:
        super().__init__(
            f"Partition {partition} of topic {topic!r} begins at offset {first}; offset {wanted} was to be read next, "
            "and is no longer in the log.",
            fix="keep messages for longer in the log; to go on, and lose those in between, seek to the first one.",
        )
        self.topic, self.partition, self.wanted, self.first = topic, partition, wanted, first


class OffsetAhead(OffsetGone):
    """A partition ends before the offset from which it was to be read: its log was made anew, or lost its end."""

    def __init__(self, topic: str, partition: int, wanted: int, span: Span) -> None:
        MainspringError.__init__(
            self,
            f"Partition {partition} of topic {topic!r} ends at offset {span.next}; offset {wanted} was to be read "
            "next: the log was created anew, or lost its last messages.",
            fix="if what is there now should be read, seek to the first offset.",
        )
        self.topic, self.partition, self.wanted, self.first = topic, partition, wanted, span.first
