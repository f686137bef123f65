"""Port of what workers share about streams: the newest batch of each, and who reads which partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of a stream, recorded before it is ingested, so that another process completes exactly the same one.

    It is done where the marks of the source's table are at its ends; the lake alone decides that.

    Args:
        number: 1 for a stream's first batch, then counting up.
        spans: Partition -> offset of its first message (None: the partition had no mark before), and the offset after
            its last one.
    """

    stream: str
    topic: str
    number: int
    spans: Mapping[int, tuple[int | None, int]]


@dataclass(frozen=True, slots=True)
class Member:
    """A worker that reads a stream.

    Args:
        until: Time up to which it counts as alive unless it reports again, UTC epoch microseconds.
        document: Its last report, as JSON.
    """

    stream: str
    owner: str
    until: int
    document: bytes


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to read a partition until a time; `epoch` counts its owners."""

    partition: int
    owner: str
    epoch: int
    until: int


class StreamStore(Protocol):
    """Batches, members and leases of streams. Times are those of the machines' clocks, UTC epoch microseconds."""

    def batch(self, stream: str) -> Batch | None:
        """Return the batch that was recorded last."""
        ...

    def record(self, batch: Batch) -> None:
        """Record a batch instead of the one before; durable on return."""
        ...

    def claim(self, stream: str, owner: str, partitions: Collection[int], now: int, until: int) -> dict[int, int]:
        """Extend an owner's leases to `until`, take its fair share of those partitions, and give up what is more.

        Live owners share the partitions evenly. A partition is taken only if its lease has expired or was given up, or
        if its owner is known to have ended.

        Returns:
            Partition -> epoch of the leases that the owner has now.
        """
        ...

    def holds(self, stream: str, owner: str, epochs: Mapping[int, int], now: int) -> bool:
        """Return whether an owner still has leases, with these epochs."""
        ...

    def release(self, stream: str, owner: str) -> None:
        """Give up all of an owner's leases, and its membership."""
        ...

    def report(self, stream: str, owner: str, document: bytes) -> None:
        """Store a member's report; without a membership it is dropped."""
        ...

    def members(self, stream: str) -> list[Member]:
        """Return the members, also those that died, sorted by owner."""
        ...

    def leases(self, stream: str) -> list[Lease]:
        """Return the leases, also those that ended, sorted by partition."""
        ...
