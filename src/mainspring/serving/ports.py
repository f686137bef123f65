"""What serving needs of a backend: which versions stand behind which endpoint, and what endpoints can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mainspring.serving.baseline import Baseline
from mainspring.serving.model import Route


class Routes(Protocol):
    """The routing table. Writers replace it whole; gateways ask often whether it changed."""

    def publish(self, routes: Sequence[Route]) -> int:
        """Replace the whole table in one step and return its revision; an equal table keeps its revision."""
        ...

    def revision(self) -> int:
        """Return the table's revision, 0 while nothing was published. Cheap."""
        ...

    def current(self) -> Mapping[str, Route]:
        """Return endpoint -> route."""
        ...


class Baselines(Protocol):
    """What endpoints managed when they were measured. Nothing is ever changed."""

    def add(self, baseline: Baseline) -> None:
        """Keep a measurement."""
        ...

    def newest(self, endpoint: str, count: int = 1) -> Sequence[Baseline]:
        """Return an endpoint's last measurements, up to `count`, by `measured_at`, the newest first."""
        ...
