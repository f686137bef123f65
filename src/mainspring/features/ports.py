"""Port of online stores.

A view is named here by its slot (`features.layout.slot`): its name and a digest of what is stored for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from mainspring.features.model import EntityState, Mark


class OnlineStore(Protocol):
    """One state per (view, entity key). Keys are the canonical bytes of `features.keys.encode_key`.

    Any thread may call it. What fails for a passing reason is tried again for a moment before it is `Unavailable`.

    Attributes:
        remote: Whether a call waits for another machine, so that an event loop had better not make it.
        longest_key: The most bytes of a key that are kept as they are, `None` where all are: see `entities`.
    """

    remote: bool
    longest_key: int | None

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        """Keep each entity's state with the largest (position, landed): a smaller one loses, an equal one replaces.

        All rows are there afterwards, or none (one transaction).

        Raises:
            Unavailable: The store did not answer.
            StorageFull: No space; nothing was written.
        """
        ...

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        """Return shape (len(wanted),), in the order asked, in one round trip; `None` where never written.

        Raises:
            Unavailable: The store did not answer.
        """
        ...

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """Return the payloads of what `read` returns: all that a prediction needs.

        Raises:
            Unavailable: The store did not answer.
        """
        ...

    def mark(self, view: str) -> Mark | None:
        """Return how far the view has been materialised, `None` where never."""
        ...

    def position(self, view: str) -> int | None:
        """Return the mark's instant, `None` where never."""
        ...

    def advance(self, view: str, mark: Mark) -> None:
        """Record that the view is materialised through `mark`; it never goes back."""
        ...

    def clear(self, view: str) -> None:
        """Forget the view's states and mark."""
        ...

    def swap(self, view: str, by: str) -> None:
        """Put the states and the mark of `by`, another name, in the place of the view's; `by` then has none.

        At once, however many states there are: a read sees all of the old or all of the new. What was replaced need
        not be gone from the disk when this returns. Where `by` has nothing, the view has nothing afterwards.
        """
        ...

    def views(self) -> list[str]:
        """Return the names that have states or a mark, sorted."""
        ...

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        """Yield every key and state of a view, in pieces and in no order, for who copies them to another store.

        What is written meanwhile may be among them or not. A key over `longest_key` is no more what it was, only longer
        than that.

        Raises:
            Unavailable: The store did not answer.
        """
        ...

    def ping(self) -> None:
        """Ask, cheaply, whether a read would be answered.

        Raises:
            Unavailable: It would not.
        """
        ...

    def close(self) -> None:
        """Close what is open, such as every thread's connection; the next call opens it again."""
        ...
