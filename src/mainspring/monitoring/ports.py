"""Port of monitoring: a store of windows and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mainspring.monitoring.model import Checkpoint, Window


class MonitorStore(Protocol):
    """Windows by (endpoint, start, end), and checkpoints by (endpoint, window length)."""

    def save(self, windows: Sequence[Window], checkpoint: Checkpoint | None = None) -> None:
        """Store windows and a checkpoint atomically, replacing those with the same key."""
        ...

    def checkpoint(self, endpoint: str, window_us: int) -> Checkpoint | None:
        """Return the last checkpoint; `None` if there is none, or it cannot be read."""
        ...

    def windows(self, endpoint: str, since: int = 0, until: int | None = None) -> list[Window]:
        """Return the windows that start in `[since, until)`, oldest first."""
        ...
