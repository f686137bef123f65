"""Replay of the past: request each observation's prediction at its instant, by a simulated clock.

Requests are real, over HTTP, by entity key. The clock moves in steps; at each, the observations that fall due before
the next go out as one request: each is made at its moment or up to a step before it, never with what came after.
Features are materialised as the time passes.
"""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.core.errors import Invalid, Unavailable
from mainspring.core.schema import DType
from mainspring.core.settings import Settings
from mainspring.core.time import HOUR, MINUTE, ReplayClock
from mainspring.features.offline import observe
from mainspring.operations.keys import brief_key
from mainspring.operations.materialize import materialise_views
from mainspring.operations.plane_connection import connect
from mainspring.project import Project
from mainspring.serving.protocol.schema import DATATYPES

_REPORT_EVERY = 500  # predictions
_ATTEMPTS, _BACK_OFF_S = 5, 0.05  # after a rejected request; the wait doubles


@dataclass(slots=True)
class ReplayReport:
    """Result of a replay. `latencies_ms` has shape (answered requests,), in the order sent, as the client sees them."""

    requests: int = 0
    predictions: int = 0
    errors: int = 0  # requests that were not answered with predictions
    latencies_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies in milliseconds; NaN if nothing was answered."""
        return float(np.percentile(self.latencies_ms, share * 100)) if self.latencies_ms else float("nan")


def replay(
    project: Project,
    endpoint: str,
    *,
    since: int,
    until: int,
    step_us: int = 15 * MINUTE,
    progress: Callable[[int, int, int], None] | None = None,
) -> ReplayReport:
    """Request a prediction from `endpoint` for every observation with `since <= at < until`, in order of time.

    Args:
        step_us: Step of the clock, microseconds.
        progress: Called with (done, total, the clock's instant).

    Raises:
        Invalid: The profile's clock is not a replayed one.
        Unavailable: The gateway ended.
    """
    clock = project.clock
    if not isinstance(clock, ReplayClock):
        raise Invalid(f"Profile {project.settings.profile!r} uses the system clock.", fix='set clock = "replay".')
    definition = project.definitions.endpoint(endpoint)
    observations = project.definitions.model(definition.model_name).observations
    rows = observe(observations, project.lake.scan, since=since, until=until)
    caller = _Caller(project.settings, endpoint, brief_key(project, f"replay of {endpoint}", HOUR))
    columns = _columns(rows, observations.source.columns)
    report = ReplayReport()
    next_materialise = since
    shown = 0
    for at, first, last in _steps(rows, step_us):
        clock.set(at)
        if at >= next_materialise:
            materialise_views(project)
            next_materialise = at + project.settings.materialise_every_us
        caller.ask(_body(columns, first, last), last - first, report)
        if progress is not None and last - shown >= _REPORT_EVERY:
            shown = last
            progress(last, rows.num_rows, at)
    return report


class _Caller:
    """A client with one persistent connection."""

    def __init__(self, settings: Settings, endpoint: str, token: str) -> None:
        self._address = settings.gateway
        self._connection = connect(settings.gateway, settings.gateway_tls)
        self._path = f"/v2/models/{endpoint}/infer"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, body: bytes, rows: int, report: ReplayReport) -> None:
        """Request `rows` predictions and add the outcome to `report`; the latency is of the attempt that succeeded.

        A request that is rejected for lack of capacity or time has had no effect, so it is sent again, as clients do.

        Raises:
            Unavailable: The server ended.
        """
        report.requests += 1
        for attempt in range(_ATTEMPTS):
            began = time.perf_counter()
            status, content = self._send(body)
            if status == 200:
                report.predictions += rows
                report.latencies_ms.append((time.perf_counter() - began) * 1000)
                return
            if status not in (429, 503):
                break
            time.sleep(_BACK_OFF_S * 2**attempt)
        report.errors += 1
        report.failures[f"{status} {content[:200].decode(errors='replace')}"] += 1

    def _send(self, body: bytes) -> tuple[int, bytes]:
        try:
            self._connection.request("POST", self._path, body, self._headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"The gateway on {self._address.url} stopped responding: {error}.") from error


def _steps(rows: pa.Table, step_us: int) -> Iterator[tuple[int, int, int]]:
    """Yield (instant of the step, first row, row after the last) for the rows due in each step."""
    steps = rows["_at"].cast(pa.int64()).to_numpy() // step_us
    starts = np.flatnonzero(np.diff(steps, prepend=steps[:1] - 1))
    for first, last in zip(starts, [*starts[1:], len(steps)], strict=True):
        yield int(steps[first]) * step_us, int(first), int(last)


def _columns(rows: pa.Table, schema: dict[str, DType]) -> list[tuple[str, str, list[Any]]]:
    """Return name, datatype and values of each entity key and request field."""
    return [
        (name, DATATYPES[dtype], (rows[name].cast(pa.int64()) if dtype == DType.Timestamp else rows[name]).to_pylist())
        for name, dtype in schema.items()
    ]


def _body(columns: list[tuple[str, str, list[Any]]], first: int, last: int) -> bytes:
    return msgspec.json.encode(
        {
            "inputs": [
                {"name": name, "shape": [last - first], "datatype": datatype, "data": values[first:last]}
                for name, datatype, values in columns
            ]
        }
    )
