"""In-memory monitor store, for tests and notebooks."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.monitoring.model import Checkpoint, Window


class MemoryMonitors:
    def __init__(self) -> None:
        self._windows: dict[tuple[str, int, int], Window] = {}
        self._checkpoints: dict[tuple[str, int], Checkpoint] = {}

    def save(self, windows: Sequence[Window], checkpoint: Checkpoint | None = None) -> None:
        self._windows |= {(window.endpoint, window.start, window.end): window for window in windows}
        if checkpoint is not None:
            self._checkpoints[checkpoint.endpoint, checkpoint.window_us] = checkpoint

    def checkpoint(self, endpoint: str, window_us: int) -> Checkpoint | None:
        return self._checkpoints.get((endpoint, window_us))

    def windows(self, endpoint: str, since: int = 0, until: int | None = None) -> list[Window]:
        return [
            window
            for (owner, start, _), window in sorted(self._windows.items(), key=lambda item: item[0])
            if owner == endpoint and start >= since and (until is None or start < until)
        ]
