"""Windows in memory, for tests and notebooks."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.monitoring.model import Window


class MemoryMonitors:
    def __init__(self) -> None:
        self._windows: dict[tuple[str, int, int], Window] = {}

    def save(self, windows: Sequence[Window]) -> None:
        self._windows |= {(window.endpoint, window.start, window.end): window for window in windows}

    def windows(self, endpoint: str, since: int = 0, until: int | None = None) -> list[Window]:
        return [
            window
            for (owner, start, _), window in sorted(self._windows.items(), key=lambda item: item[0])
            if owner == endpoint and start >= since and (until is None or start < until)
        ]
