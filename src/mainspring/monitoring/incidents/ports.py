"""Port of the store of incidents, their outgoing messages, and the record of the monitor's parts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mainspring.monitoring.incidents.model import Incident, Outgoing, Part


class IncidentStore(Protocol):
    """Incidents by id. Every method is one transaction. Safe across threads, processes and machines."""

    def save(self, incidents: Sequence[Incident], outgoing: Sequence[Outgoing] = ()) -> list[Incident]:
        """Store new and changed incidents with the messages about them, all or none; return them with next revisions.

        Raises:
            Conflict: One has another revision than the stored one, or another incident of its cause is open.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[Incident | None]:
        """Return incidents in the given order, `None` for unknown ids."""
        ...

    def open(self) -> list[Incident]:
        """Return the open incidents, the newest first."""
        ...

    def closed(self, since: int) -> list[Incident]:
        """Return the incidents whose evidence was closed at `since` or later, by the domain's clock."""
        ...

    def find(self, *, endpoint: str = "", before: tuple[int, str] | None = None, limit: int = 100) -> list[Incident]:
        """Return at most `limit` incidents, open and closed, the newest first.

        `before` is the `opened_at` and `id` of the previous page's last incident. An endpoint has those that name it.
        """
        ...

    def claim(self, target: str, now: int, until: int, limit: int) -> list[Outgoing]:
        """Return at most `limit` waiting messages to a target that are due, the oldest first, each to one caller only:
        they are due again at `until`. One that is due hours ahead is due now: the clock went back.
        """
        ...

    def settle(self, outgoing: Sequence[Outgoing]) -> None:
        """Store the outcome of a try."""
        ...

    def outgoing(
        self, *, incidents: Collection[str] = (), states: Collection[str] = (), since: int = 0, limit: int = 1_000
    ) -> list[Outgoing]:
        """Return messages made at `since` or later, the newest first; an empty filter means all."""
        ...

    def record(self, parts: Sequence[Part]) -> None:
        """Store how parts of the monitor ran, replacing earlier ones."""
        ...

    def parts(self) -> list[Part]:
        """Return how each part ran last, by endpoint and part."""
        ...
