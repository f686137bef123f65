"""A routing table and measurements that live in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from mainspring.serving.model import Baseline, Route, normalised, stamped


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


class MemoryBaselines:
    """`Baselines`, shared by the threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[Baseline] = []

    def add(self, baseline: Baseline) -> None:
        with self._lock:
            self._kept.append(baseline)

    def newest(self, endpoint: str, count: int = 1) -> Sequence[Baseline]:
        with self._lock:
            of_it = [each for each in reversed(self._kept) if each.endpoint == endpoint]
        return sorted(of_it, key=lambda each: each.measured_at, reverse=True)[:count]
