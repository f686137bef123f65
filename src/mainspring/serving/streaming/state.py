"""Port of the state of a stream endpoint: by partition its offset, states by key, outputs that wait, and what a replay
needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mainspring.core.errors import Conflict
from mainspring.serving.streaming.progress import BatchRecord, Progress

OUTPUT, DEAD_LETTER = 0, 1
LARGEST_BYTES = 4 << 30  # of a partition's records; beyond it the oldest are forgotten


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry of the outbox. `sinks` has bit n set if the sink of number n gets it."""

    seq: int
    kind: int
    sinks: int
    body: bytes


@dataclass(slots=True)
class Commit:
    """One batch, to be written at once.

    Attributes:
        states: Key -> time of its newest event and bytes of its state.
        expired: States of keys whose newest event is older than this are deleted, UTC epoch microseconds.
        kept_since: Batches that the log accepted before this are no longer needed for a replay.
        erasures: As `PartitionState.erasures` was when the states were read that these come from; None if it does not
            matter.
    """

    progress: Progress
    record: BatchRecord
    states: Mapping[bytes, tuple[int, bytes]]
    outbox: Sequence[Waiting] = ()
    expired: int | None = None
    kept_since: int = 0
    erasures: int | None = None


class Erased(Conflict):
    """States were erased after the ones were read from which a batch was computed; nothing was written."""

    def __init__(self, place: str) -> None:
        super().__init__(f"States of {place} were erased meanwhile.")


class Erasure(Protocol):
    """Choice of what an erasure removes from a partition."""

    def has(self, key: bytes, /) -> bool:
        """Return whether the state of a key goes."""
        ...

    def batch(self, record: BatchRecord, /) -> BatchRecord | None:
        """Return what is left of a batch; None if nothing of it goes."""
        ...

    def entry(self, entry: Waiting, /) -> Waiting | None:
        """Return what is left of an entry of the outbox; None if nothing of it goes."""
        ...


class PartitionState(Protocol):
    """State of one partition. One thread uses an object; several objects may be of one partition, of which one commits.

    Sinks write in objects of their own how far they are; that may be lost with the power, as they find out from their
    destination. Where several machines share the states, each writing method raises `Conflict` once another process
    has opened the partition with a later epoch.
    """

    def close(self) -> None: ...

    def progress(self) -> Progress | None:
        """Return the progress, None for a partition that was never read."""
        ...

    def begin(self, progress: Progress) -> None:
        """Store where a partition begins."""
        ...

    def states(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the stored states of keys."""
        ...

    def all_states(self) -> dict[bytes, bytes]:
        """Return all states, for a replay."""
        ...

    def commit(self, made: Commit) -> None:
        """Write a batch, durably, and delete what nothing needs any more.

        Raises:
            Erased: `made.erasures` is no longer the number of erasures.
        """
        ...

    def erasures(self) -> int:
        """Return the number of erasures that removed something."""
        ...

    def erase(self, erasure: Erasure, *, dry_run: bool = False) -> int:
        """Remove something from states, batches and the outbox, and return of how many of them; no epoch is needed.

        On return neither the store's files nor free pages of them have it.
        """
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Read one state inside the block, whatever is committed meanwhile."""
        ...

    def batches(self, after: int = 0, *, limit: int = -1) -> Iterator[tuple[int, BatchRecord]]:
        """Yield the batches after a number, in order; -1 is no limit."""
        ...

    def newest_batches(self) -> Iterator[tuple[int, BatchRecord]]:
        """Yield the batches, the newest first."""
        ...

    def enlist(self, outputs: Sequence[str], batches: Sequence[str] = ()) -> dict[str, int]:
        """Declare the sinks, and return the number of each: new ones begin with what comes next, others are forgotten.

        Args:
            outputs: Ids of sinks of the outbox.
            batches: Ids of sinks of batches; their numbers are negative.
        """
        ...

    def sinks(self) -> dict[str, int]:
        """Return the number of each sink."""
        ...

    def number(self, sink: str) -> int:
        """Return the number of a sink.

        Raises:
            NotFound: There is no such sink.
        """
        ...

    def done(self, sink: str) -> int:
        """Return the last entry that a sink delivered."""
        ...

    def note(self, sink: str) -> bytes:
        """Return what a sink noted."""
        ...

    def deliver(self, sink: str, done: int | None = None, note: bytes | None = None, *, durable: bool = False) -> None:
        """Store how far a sink is, and its note.

        Args:
            durable: Return once it is on the disk.
        """
        ...

    def waiting(self, after: int, limit: int = 1000, until: int = (1 << 62)) -> list[Waiting]:
        """Return entries of the outbox behind one, in order."""
        ...

    def delivered(self) -> int:
        """Return the last entry of the outbox that every sink has delivered."""
        ...

    def undelivered(self) -> int:
        """Return how many entries of the outbox the slowest sink has not delivered."""
        ...

    def opened(self) -> tuple[bool, int]:
        """Note that a process begins; return whether the one before it died, and how many died on the next message."""
        ...

    def attempt(self, number: int) -> None:
        """Note that the next message is processed alone for the `number`th time, so that a death is due to it."""
        ...

    def survived(self) -> None:
        """Note that no process is at work, or that it got further."""
        ...


class StateStore(Protocol):
    """States of one endpoint's partitions."""

    def partitions(self) -> list[int]:
        """Return the partitions that have a state, sorted."""
        ...

    def starts(self, find: Callable[[], Mapping[int, int]]) -> dict[int, int]:
        """Return partition -> the offset where it begins, as `find` told in the first call of all processes."""
        ...

    def open(self, partition: int, epoch: int | None = None, *, durable: bool = True) -> PartitionState:
        """Return the state of a partition.

        Args:
            epoch: Of the lease under which it is written; None to read it.
            durable: Whether a commit is on the disk when it returns.

        Raises:
            Corrupt: It is damaged, or of another version.
            Conflict: The partition was opened with a later epoch.
        """
        ...

    @property
    def place(self) -> str:
        """Where the states are, for messages."""
        ...


def fresh_numbers(
    known: Mapping[str, int], outputs: Sequence[str], batches: Sequence[str]
) -> Iterator[tuple[str, int]]:
    """Yield the sinks that are new, with the smallest free number of each kind: 0 and up, or -1 and down."""
    numbers = {id_: number for id_, number in known.items() if id_ in (*outputs, *batches)}
    for id_ in (*outputs, *batches):
        if id_ not in numbers:
            taken, step = set(numbers.values()), 1 if id_ in outputs else -1
            numbers[id_] = next(n for n in range(0 if step > 0 else -1, step * 64, step) if n not in taken)
            yield id_, numbers[id_]


def lost(endpoint: str, partition: int) -> Conflict:
    """Return the error of a process whose partition another one has."""
    return Conflict(f"Partition {partition} of stream endpoint {endpoint!r} belongs to another process now.")


def died(found: bytes | None, place: bytes) -> tuple[bool, int]:
    """Return what `opened` does, from what `attempt` noted and the next offset."""
    count, _, where = (found or b"0 ").partition(b" ")
    return found is not None, int(count) if where == place else 0
