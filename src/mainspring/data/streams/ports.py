"""Port of logs of messages: Kafka, NATS JetStream, Kinesis, or a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from mainspring.data.streams.model import Message, NewMessage, Span


class EventLog(Protocol):
    """Topics of partitions. Reading changes nothing: where a reader stands is the reader's to store.

    Thread-safe, except that one thread at a time reads a topic. Transient failures are retried briefly before
    `Unavailable` is raised.
    """

    def create(self, topic: str, partitions: int = 1) -> None:
        """Create a topic, or give it more partitions; a topic that has as many is left as it is.

        Raises:
            Invalid: The name is not allowed, or the topic has more partitions.
        """
        ...

    def topics(self) -> list[str]:
        """Return the names of all topics, sorted."""
        ...

    def partitions(self, topic: str) -> list[int]:
        """Return a topic's partitions, sorted. There may be more at the next call.

        Raises:
            NotFound: There is no such topic.
        """
        ...

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        """Return the offsets that each partition holds now.

        Raises:
            NotFound: There is no such topic, or no such partition.
        """
        ...

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        """Return messages of partitions, those of each in the order of their offsets and without a gap.

        No partition is starved by another. Compacted or aborted offsets are passed over.

        Args:
            after: Partition -> the smallest offset to return.
            limit: Maximum number of messages, at least 1.
            wait_s: Time to wait for the first message, seconds.
            max_bytes: Bytes of values after which no further message is added; one message is always returned.

        Raises:
            NotFound: There is no such topic, or no such partition.
            OffsetGone: The log no longer holds an offset of `after`, and holds later ones, or would hold those.
            OffsetAhead: A partition ends before the offset of `after`, where its log can tell.
            Unavailable: The log did not answer.
        """
        ...

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        """Write messages, those of one partition in their order; they are durable on return.

        A failure may leave some of them written: a caller that repeats the call may write them twice.

        Returns:
            (partition, offset) of each.

        Raises:
            NotFound: There is no such topic, or no such partition.
            TooLarge: A message is larger than the log allows; none was written.
            Unavailable: The log did not answer.
            StorageFull: No space.
        """
        ...

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """Return partition -> the offset that a group reads next, as it was told last."""
        ...

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        """Tell the log which offset a group reads next in partitions, for the tools that show its lag.

        Nothing depends on it: readers store their own offsets with the results of what they read.
        """
        ...

    def close(self) -> None:
        """Close connections; the next call opens them again."""
        ...


@runtime_checkable
class Retaining(Protocol):
    """A log that does not remove its old messages by itself."""

    def retain(self, *, since: int | None = None, most_bytes: int | None = None) -> int:
        """Remove messages from the beginnings of partitions; return how many.

        Args:
            since: Time before which a message must have arrived to be removed, UTC epoch microseconds.
            most_bytes: Bytes of keys, values and headers that each topic may have; the oldest go first.
        """
        ...


@runtime_checkable
class Erasing(Protocol):
    """A log that can delete single messages."""

    def erase(self, topic: str, places: Collection[tuple[int, int]]) -> None:
        """Delete messages by (partition, offset); the others keep their offsets, and one that is gone is no error.

        On return no file of the log has their bytes, as far as the log itself can overwrite them. A message that the
        reader has not passed should stay: some logs then begin after it, which a reader takes for a loss.

        Raises:
            NotFound: There is no such topic, or no such partition.
        """
        ...


@runtime_checkable
class Expiring(Protocol):
    """A log that removes old messages by itself, and says when."""

    def retention(self, topic: str) -> str:
        """Return how long messages of a topic stay, for people; empty if the log does not say.

        Raises:
            NotFound: There is no such topic.
            Unavailable: The log does not answer.
        """
        ...


@runtime_checkable
class Splitting(Protocol):
    """A log whose partitions are split and merged: they end, and others, of larger numbers, follow them."""

    def parents(self, topic: str) -> dict[int, tuple[int, ...]]:
        """Return partition -> the ended partitions that it follows, also where these are gone, of those with any.

        Raises:
            NotFound: There is no such topic.
        """
        ...

    def emptied(self, topic: str, positions: Mapping[int, int]) -> set[int]:
        """Return the ended partitions that hold nothing from an offset on; 0 is their beginning."""
        ...
