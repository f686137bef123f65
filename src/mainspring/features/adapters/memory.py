"""An online store in this process's memory: for tests, notebooks and one-process services."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mainspring.features.model import EntityState, Mark


@dataclass(slots=True)
class _View:
    states: dict[bytes, EntityState] = field(default_factory=dict)
    mark: Mark | None = None


class MemoryOnlineStore:
    remote = False
    longest_key: int | None = None

    def __init__(self) -> None:
        self._views: dict[str, _View] = {}
        self._lock = threading.Lock()

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        with self._lock:
            states = self._views.setdefault(view, _View()).states
            for key, state in rows:
                held = states.get(key)
                if held is None or (state.position, state.landed) >= (held.position, held.landed):
                    states[key] = state

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        with self._lock:
            return [None if (held := self._views.get(view)) is None else held.states.get(key) for view, key in wanted]

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        return [None if state is None else state.payload for state in self.read(wanted)]

    def mark(self, view: str) -> Mark | None:
        held = self._views.get(view)
        return None if held is None else held.mark

    def position(self, view: str) -> int | None:
        mark = self.mark(view)
        return None if mark is None else mark.position

    def advance(self, view: str, mark: Mark) -> None:
        with self._lock:
            held = self._views.setdefault(view, _View())
            held.mark = mark if held.mark is None else max(mark, held.mark)

    def clear(self, view: str) -> None:
        with self._lock:
            self._views.pop(view, None)

    def delete(self, names: Sequence[tuple[str, bytes]]) -> int:
        with self._lock:
            held = [(self._views[view].states, key) for view, key in names if view in self._views]
            return sum(states.pop(key, None) is not None for states, key in held)

    def swap(self, view: str, by: str) -> None:
        with self._lock:
            self._views[view] = self._views.pop(by, _View())

    def views(self) -> list[str]:
        with self._lock:
            return sorted(name for name, held in self._views.items() if held.states or held.mark is not None)

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        with self._lock:
            stored = self._views.get(view)
            states = [] if stored is None else list(stored.states.items())
        yield states

    def ping(self) -> None:
        pass

    def states(self) -> dict[tuple[str, bytes], EntityState]:
        """Return all states."""
        with self._lock:
            return {(view, key): state for view, held in self._views.items() for key, state in held.states.items()}

    def close(self) -> None:
        """Do nothing."""
