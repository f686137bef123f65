"""An endpoint's baseline: what it managed when it was measured, for live traffic to be compared with."""

from __future__ import annotations

import msgspec

IN_TIME = 0.99  # of the requests that were due, at least, for a load to be met


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one load. Rates are requests a second; `in_time` is a share of the requests that were due."""

    offered: float
    answered: float
    in_time: float
    refused: float  # a share likewise
    p50_us: float | None
    p99_us: float | None

    @property
    def met(self) -> bool:
        return self.in_time >= IN_TIME


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of an endpoint, on one machine.

    Attributes:
        asked_by: "keys" or "features": what a request brought.
        rows: How many rows a request had.
        workers: How many gateway processes answered.
        capacity: The highest load that met the deadline, requests a second; `None` where none did.
        alone_p50_us, alone_p99_us: The latency of one caller that asks again when it is answered.
        points: Every load that was tried, lightest first.
        stages_us: Stage -> mean µs a request, at the highest load that met the deadline.
        batch_rows: Mean rows of a batch there.
    """

    endpoint: str
    model: str
    version: str
    digest: str
    measured_at: int  # UTC epoch microseconds
    asked_by: str
    rows: int
    deadline_us: int
    workers: int
    capacity: float | None
    alone_p50_us: float
    alone_p99_us: float
    points: tuple[Point, ...]
    stages_us: dict[str, float] = {}
    batch_rows: float | None = None
    machine: str = ""
