"""Port of online stores.

Here a view is identified by its slot (`features.layout.slot`): its name and a digest of the stored definitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from mainspring.features.model import EntityState, Mark


class OnlineStore(Protocol):
    """One state per (view, entity key). Keys are the canonical bytes of `features.keys.encode_key`.

    Thread-safe. Transient failures are retried briefly before `Unavailable` is raised.

    Attributes:
        remote: Whether a call waits for another machine, so that an event loop should not make it.
        longest_key: Maximum bytes of a key that is stored unchanged, `None` if unlimited; see `entities`.
    """

    remote: bool
    longest_key: int | None

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        """Keep for each entity the state with the largest (position, landed): a smaller one loses, an equal one
        replaces.

        All rows are written, or none (one transaction).

        Raises:
            Unavailable: The store did not answer.
            StorageFull: No space; nothing was written.
        """
        ...

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        """Return shape (len(wanted),), in the requested order, in one round trip; `None` where never written.

        Raises:
            Unavailable: The store did not answer.
        """
        ...

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """Return only the payloads of `read`, which is all that a prediction needs.

        Raises:
            Unavailable: The store did not answer.
        """
        ...

    def mark(self, view: str) -> Mark | None:
        """Return the mark of the view's materialisation, `None` if it was never materialised."""
        ...

    def position(self, view: str) -> int | None:
        """Return the mark's instant, `None` if there is no mark."""
        ...

    def advance(self, view: str, mark: Mark) -> None:
        """Record that the view is materialised through `mark`; an earlier mark is ignored."""
        ...

    def clear(self, view: str) -> None:
        """Delete the view's states and mark."""
        ...

    def delete(self, names: Sequence[tuple[str, bytes]]) -> int:
        """Delete the states of (view, entity key), and return how many there were.

        All that the store itself can overwrite is overwritten on return, also if there were none: an embedded store's
        files have no bytes of these states. What a server keeps beside its tables, such as logs and snapshots, is its
        own.

        Raises:
            Unavailable: The store did not answer, or its file is in use; a repetition goes on.
        """
        ...

    def swap(self, view: str, by: str) -> None:
        """Replace the view's states and mark by those of `by`, another name, which then has none.

        The swap is atomic and immediate, however many states there are: a read sees all of the old or all of the new.
            Replaced states may still be on disk when this returns. If `by` has nothing, the view has nothing
            afterwards.
        """
        ...

    def views(self) -> list[str]:
        """Return the names that have states or a mark, sorted."""
        ...

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        """Yield every key and state of a view, in pieces and in no order, for a copy to another store.

        States written meanwhile may be included or not. A key longer than `longest_key` is not the original key, but
        still longer than that.

        Raises:
            Unavailable: The store did not answer.
        """
        ...

    def ping(self) -> None:
        """Check cheaply whether a read would succeed.

        Raises:
            Unavailable: It would not.
        """
        ...

    def close(self) -> None:
        """Close all open resources, such as every thread's connection; the next call opens them again."""
        ...
