"""An online store in this process's memory: for tests, notebooks and one-process services."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mainspring.features.model import EntityState, Mark


class MemoryOnlineStore:
    def __init__(self) -> None:
        self._states: dict[tuple[str, bytes], EntityState] = {}
        self._marks: dict[str, Mark] = {}
        self._lock = threading.Lock()

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        with self._lock:
            for key, state in rows:
                held = self._states.get((view, key))
                if held is None or (state.position, state.landed) >= (held.position, held.landed):
                    self._states[view, key] = state

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        with self._lock:
            return [self._states.get(key) for key in wanted]

    def mark(self, view: str) -> Mark | None:
        return self._marks.get(view)

    def position(self, view: str) -> int | None:
        mark = self._marks.get(view)
        return None if mark is None else mark.position

    def advance(self, view: str, mark: Mark) -> None:
        with self._lock:
            self._marks[view] = max(mark, self._marks.get(view, mark))

    def clear(self, view: str) -> None:
        with self._lock:
            self._marks.pop(view, None)
            for key in [key for key in self._states if key[0] == view]:
                del self._states[key]
