"""Live the past again: ask for each observation's prediction when it was to be made, by a clock that this moves.

Requests are real, over HTTP, by entity key. All that are due at one instant go out together; the clock moves on when
they are answered. Features are materialised and endpoints watched as the time passes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.app.keys import brief_key
from mainspring.app.materialising import materialise_views
from mainspring.app.project import Project
from mainspring.app.traffic import Connections
from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.core.time import HOUR, ReplayClock
from mainspring.features import offline
from mainspring.serving.schema import DATATYPES

_CONNECTIONS = 8
_REPORT_EVERY = 500


@dataclass(slots=True)
class ReplayReport:
    """What came of it. `latencies_ms` has shape (answered,), in the order of asking, seen from the client."""

    predictions: int = 0
    errors: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies, milliseconds; NaN where nothing was answered."""
        return float(np.percentile(self.latencies_ms, share * 100)) if self.latencies_ms else float("nan")


def replay(
    project: Project,
    endpoint: str,
    *,
    since: int,
    until: int,
    progress: Callable[[int, int, int], None] | None = None,
) -> ReplayReport:
    """Ask `endpoint` for every observation with `since <= at < until`, in order of time.

    Args:
        progress: Called with (done, of how many, the clock's instant).

    Raises:
        Invalid: The profile's clock is not a replayed one.
        Unavailable: The gateway went away.
    """
    clock = project.clock
    if not isinstance(clock, ReplayClock):
        raise Invalid(
            f"Profile {project.settings.profile!r} lives by the machine's clock.", fix='set clock = "replay".'
        )
    definition = project.definitions.endpoint(endpoint)
    observations = project.definitions.model(definition.model_name).observations
    rows = offline.observe(observations, project.lake.scan, since=since, until=until)
    token = brief_key(project, f"replay of {endpoint}", HOUR)
    connections = Connections(project.settings.gateway, f"/v2/models/{endpoint}/infer", token, _CONNECTIONS)
    return asyncio.run(
        _live(project, endpoint, clock, rows, _bodies(rows, observations.source.columns), connections, progress)
    )


async def _live(
    project: Project,
    endpoint: str,
    clock: ReplayClock,
    rows: pa.Table,
    bodies: list[bytes],
    connections: Connections,
    progress: Callable[[int, int, int], None] | None,
) -> ReplayReport:
    report = ReplayReport()
    every = project.settings.materialise_every_us
    next_materialise = next_watch = None
    shown = 0
    await connections.open()
    try:
        for at, first, last in _instants(rows):
            if next_materialise is None or at >= next_materialise:
                clock.set(at)
                materialise_views(project)
                next_materialise = at + every
            if next_watch is None or at >= next_watch:
                if next_watch is not None:
                    _watch(project, endpoint)
                next_watch = (at // project.settings.monitor_window_us + 1) * project.settings.monitor_window_us
            clock.set(at)
            for status, body, seconds in await connections.post(bodies[first:last]):
                report.predictions += status == 200
                if status == 200:
                    report.latencies_ms.append(seconds * 1000)
                else:
                    report.errors += 1
                    report.failures[f"{status} {body[:200].decode(errors='replace')}"] += 1
            if progress is not None and last - shown >= _REPORT_EVERY:
                shown = last
                progress(last, len(bodies), at)
    finally:
        connections.close()
    return report


def _watch(project: Project, endpoint: str) -> None:
    project.predictions.compact()
    project.monitor.run(endpoint)


def _instants(rows: pa.Table) -> Iterator[tuple[int, int, int]]:
    """Yield (instant, first row, behind the last row) of the rows that share an instant."""
    at = rows["_at"].cast(pa.int64()).to_numpy()
    starts = np.flatnonzero(np.diff(at, prepend=at[:1] - 1))
    for first, last in zip(starts, [*starts[1:], len(at)], strict=True):
        yield int(at[first]), int(first), int(last)


def _bodies(rows: pa.Table, columns: dict[str, DType]) -> list[bytes]:
    """Return one request's body a row, by entity key and request field."""
    lists: dict[str, list[Any]] = {}
    for name, dtype in columns.items():
        column = rows[name].cast(pa.int64()) if dtype == DType.Timestamp else rows[name]
        lists[name] = column.to_pylist()
    return [
        msgspec.json.encode(
            {
                "inputs": [
                    {"name": name, "shape": [1], "datatype": DATATYPES[columns[name]], "data": [values[place]]}
                    for name, values in lists.items()
                ]
            }
        )
        for place in range(rows.num_rows)
    ]
