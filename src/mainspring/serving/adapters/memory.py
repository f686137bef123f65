"""A routing table that lives in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from mainspring.serving.model import Route
from mainspring.serving.table import normalised, stamped


class MemoryRoutes:
    """`Routes`, shared by the threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revision = 0
        self._table: dict[str, Route] = {}

    def publish(self, routes: Sequence[Route]) -> int:
        table = normalised(routes)
        with self._lock:
            if table != self._table or self._revision == 0:
                self._table = table
                self._revision += 1
            return self._revision

    def revision(self) -> int:
        return self._revision

    def current(self) -> Mapping[str, Route]:
        with self._lock:
            return stamped(self._table, self._revision)
