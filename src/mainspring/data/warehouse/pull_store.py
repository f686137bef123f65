"""Port of the batches that were pulled from a warehouse: which rows each of them had."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

ALL = -(1 << 63)  # as `known_from`: the digests of all rows of a batch are kept


@dataclass(frozen=True, slots=True)
class PulledBatch:
    """A batch of rows, recorded before it is ingested. It is in the source's table once the table's marks have it.

    Args:
        number: 1 for a source's first batch, then counting up.
        table: Table of the warehouse.
        arrival: Column that orders its rows.
        instants: Whether arrivals are instants, UTC epoch microseconds; else they are whole numbers.
        columns: Columns of which the rows' digests are made, besides the arrival.
        since: Position before the batch, or the arrival from which its pull was told to read; None without both.
        until: Position after it: the largest arrival that was read.
        rows: Number of its rows; of a batch that was ingested in part, those that were.
        at: Time of the pull, UTC epoch microseconds.
        known_from: Digests of rows that arrived earlier than this are no longer kept.
    """

    source: str
    number: int
    table: str
    arrival: str
    instants: bool
    columns: tuple[str, ...]
    since: int | None
    until: int
    rows: int
    at: int
    known_from: int = ALL


class PullStore(Protocol):
    """Batches of pulls, and digests of their rows, which are bytes as of `data.warehouse.row_digests.ROW`.

    Each write is durable on return.
    """

    def last(self, source: str) -> PulledBatch | None:
        """Return the batch with the largest number."""
        ...

    def batches(self, source: str, after: int = 0) -> list[PulledBatch]:
        """Return the batches with larger numbers than `after`, in order."""
        ...

    def record(self, batch: PulledBatch, digests: bytes) -> None:
        """Record the next batch."""
        ...

    def keep(self, source: str, number: int, digests: bytes, known_from: int, rows: int | None = None) -> None:
        """Replace the digests of a batch by a part of them, and the number of its rows if one is given."""
        ...

    def digests(self, source: str, low: int) -> Iterator[tuple[PulledBatch, bytes]]:
        """Yield the batches that end at `low` or later, in order, each with its digests."""
        ...

    def digests_of(self, source: str, number: int) -> bytes:
        """Return the digests of one batch; none for an unknown one."""
        ...

    def known_from(self, source: str, number: int) -> int:
        """Return the arrival from which the rows of all batches up to this number are known."""
        ...

    def deem_known(self, source: str, at: int) -> None:
        """Lower each batch's `known_from` to `at`, where it is larger: earlier rows are to be read anew."""
        ...

    def shed(self, source: str, before: int, most: int) -> None:
        """Drop digests of the oldest batches that end before `before`, until at most `most` digests are left."""
        ...

    def numbered(self, source: str, numbers: Collection[int]) -> dict[int, PulledBatch]:
        """Return number -> batch, of those that are recorded."""
        ...
