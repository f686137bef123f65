"""What monitoring needs of a backend: a place for its findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mainspring.monitoring.model import Window


class MonitorStore(Protocol):
    """Windows by (endpoint, start, end)."""

    def save(self, windows: Sequence[Window]) -> None:
        """Store windows; one for the same endpoint and time replaces the earlier."""
        ...

    def windows(self, endpoint: str, since: int = 0, until: int | None = None) -> list[Window]:
        """Return windows that start in `[since, until)`, oldest first."""
        ...
