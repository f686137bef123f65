"""What monitoring needs of a backend: a place for its findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mainspring.monitoring.model import Checkpoint, Window


class MonitorStore(Protocol):
    """Windows by (endpoint, start, end), and checkpoints by (endpoint, length of the windows)."""

    def save(self, windows: Sequence[Window], checkpoint: Checkpoint | None = None) -> None:
        """Store windows and a checkpoint, all or nothing; one for the same endpoint and time replaces the earlier."""
        ...

    def checkpoint(self, endpoint: str, window_us: int) -> Checkpoint | None:
        """Return the last checkpoint; `None` where there is none, or none that can be read."""
        ...

    def windows(self, endpoint: str, since: int = 0, until: int | None = None) -> list[Window]:
        """Return windows that start in `[since, until)`, oldest first."""
        ...
