"""Load test of an endpoint: a private gateway under rising load, until its responses miss their deadlines.

The gateway follows the project's routing table and reads its online store, with keys, metrics and the prediction log
enabled. Its log is discarded, so that test traffic is never taken for real traffic. With more than one core, the caller
has one of its own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.core.settings import Address
from mainspring.core.time import HOUR
from mainspring.data import duck
from mainspring.data.model import TableScan
from mainspring.features import definitions
from mainspring.features.model import FeatureGroup, Observations, views_of
from mainspring.operations import keys
from mainspring.operations.bench.gateway import call, gateway_apart, get, processor_s
from mainspring.operations.predict import route_of
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES, GOLDEN
from mainspring.registry.model import Bundle
from mainspring.security.model import KeyScope
from mainspring.serving.load.capacity import capacity, point, search
from mainspring.serving.load.generator import Load, http_request, run
from mainspring.serving.load.numbers import EndpointNumbers, read_numbers
from mainspring.serving.model import Arm, Baseline, Point, Route
from mainspring.serving.plane.golden import Golden

Told = Callable[[str], None]

_LEAST = 10  # minimum requests of a load: with fewer, chance decides the result
_WARM_UP_S = 0.5
_ALONE_S = 1.0
_TAIL_S = 1.0  # after the last request of a replayed load
_DIFFERENT = 256  # different requests, so that no cache answers


@dataclass(frozen=True, slots=True)
class How:
    """Shape of the load.

    Attributes:
        by: "keys" or "features"; `None` means by keys if the model reads stored features.
        rows: Rows per request.
        connections: Maximum number of concurrent requests.
        seconds: Duration of each load.
        close: The search ends when the lightest load that was too much is at most so many times the heaviest met.
    """

    by: str | None = None
    rows: int = 1
    connections: int = 64
    seconds: float = 3.0
    close: float = 1.1


_USUAL = How()


def bench(project: Project, endpoint: str, how: How, told: Told = lambda _: None) -> Baseline:
    """Measure an endpoint, store the result as its newest baseline, and return it.

    Raises:
        NotFound: There is no such endpoint, or it serves nothing yet.
        Invalid: It cannot be requested by keys, or `how` is not a load.
        Unavailable: The gateway does not start.
    """
    if how.rows < 1 or how.connections < 1 or how.seconds <= 0:
        raise Invalid(f"{how.rows} rows, {how.connections} connections and {how.seconds:g} s do not make a load.")
    with loaded_gateway(project, endpoint, how, told) as gateway:
        address, token, requests = gateway.address, gateway.token, gateway.requests
        route, arm = gateway.route, gateway.arm
        measure = _Measure(address, endpoint, token, requests, how, route.deadline_us, told)
        told("unloaded latency")
        alone = run((address.host, address.port), requests, connections=1, seconds=_ALONE_S, warm_up_s=_WARM_UP_S)
        if not alone.answered:
            raise gateway.refused(dict(alone.statuses))
        points = search(measure, close=how.close)
        best = capacity(points)
        counted = measure.seen[best or points[0].offered]
    baseline = Baseline(
        endpoint=endpoint,
        model=route.model,
        version=arm.version,
        digest=arm.digest,
        measured_at=project.wall.now(),
        asked_by=gateway.by,
        rows=how.rows,
        deadline_us=route.deadline_us,
        workers=1,
        capacity=best,
        alone_p50_us=alone.quantile_us(0.5) or 0.0,
        alone_p99_us=alone.quantile_us(0.99) or 0.0,
        points=tuple(points),
        stages_us={stage: timing.mean * 1e6 for stage, timing in counted.stages.items() if timing.mean is not None},
        batch_rows=counted.batch_rows.mean,
        machine=machine_of(own_core=gateway.own_core),
    )
    project.baselines.add(baseline)
    return baseline


@dataclass(frozen=True, slots=True)
class LoadedGateway:
    """A private gateway, with requests for one endpoint of it.

    Attributes:
        requests: Whole requests, of different rows.
        own_core: Whether the caller has a core of its own.
    """

    address: Address
    token: str
    route: Route
    arm: Arm
    by: str
    path: str
    bodies: Sequence[bytes]
    requests: Sequence[bytes]
    own_core: bool
    connections: int
    pid: int

    def replay(self, instants: Sequence[float]) -> tuple[Load, float]:
        """Send a request at each of the instants, seconds; return what came of it, and the processor time of the
        gateway and its executors."""
        before = processor_s(self.pid)[1]
        seconds = instants[-1] + _TAIL_S
        load = self.loaded(seconds, rate=len(instants) / seconds, at=instants)
        return load, processor_s(self.pid)[1] - before

    def loaded(
        self, seconds: float, *, rate: float | None = None, connections: int | None = None,
        at: Sequence[float] | None = None,
    ) -> Load:  # fmt: skip
        """Load it for a while; arguments as of `run`."""
        where = (self.address.host, self.address.port)
        return run(where, self.requests, connections=connections or self.connections, seconds=seconds, rate=rate, at=at)

    def numbers(self) -> EndpointNumbers:
        """Return what it has counted so far."""
        return read_numbers(get(self.address, "/metrics", self.token).decode(), self.route.endpoint)

    def warm_up(self) -> None:
        """Send requests for a while, one after the other."""
        where = (self.address.host, self.address.port)
        load = run(where, self.requests, connections=1, seconds=_ALONE_S, warm_up_s=_WARM_UP_S)
        if not load.answered:
            raise self.refused(dict(load.statuses))

    def refused(self, statuses: dict[int, int]) -> MainspringError:
        """Return the error of an endpoint that answers no request."""
        return _refused(self.address, self.route.endpoint, self.path, self.bodies[0], self.token, statuses)


@contextmanager
def loaded_gateway(
    project: Project, endpoint: str, how: How = _USUAL, told: Told = lambda _: None
) -> Iterator[LoadedGateway]:
    """Context of a private gateway for the load of one endpoint.

    Raises:
        NotFound: There is no such endpoint, or it serves nothing yet.
        Invalid: It cannot be requested by keys.
        Unavailable: The gateway does not start.
    """
    route = route_of(project, endpoint)
    arm = max(route.arms, key=lambda candidate: candidate.weight)
    bundle = project.bundles.load(arm.digest)
    # A model of tensors has no features, so its golden rows are requested.
    _, observations = _features(bundle)
    by = how.by or asked_by(bundle)
    token = keys.create_key(project, "mainspring bench", [KeyScope.PREDICT, KeyScope.SCRAPE], HOUR)
    told("starting a gateway")
    with _revoked(project, token), gateway_apart(project) as (address, own_core, pid):
        metadata = get(address, f"/v2/models/{endpoint}/versions/{arm.version}", token)
        bodies = list(_bodies(project, by, how.rows, bundle, observations, msgspec.json.decode(metadata)))
        path = f"/v2/models/{endpoint}/versions/{arm.version}/infer"
        headers = [("Authorization", f"Bearer {token}")]
        requests = [http_request(f"{address.host}:{address.port}", path, body, headers) for body in bodies]
        yield LoadedGateway(address, token, route, arm, by, path, bodies, requests, own_core, how.connections, pid)


def asked_by(bundle: Bundle) -> str:
    """Return what requests bring if nothing else is said: "keys" if the model reads stored features."""
    return "keys" if views_of(_features(bundle)[0]) else "features"


def _features(bundle: Bundle) -> tuple[Sequence[FeatureGroup], Observations | None]:
    return definitions.load(bundle.files[FEATURES]) if FEATURES in bundle.files else ((), None)


@contextmanager
def _revoked(project: Project, token: str) -> Iterator[None]:
    """Revoke a key at the end of the block."""
    try:
        yield
    finally:
        keys.revoke_key(project, token.split("_")[1])


class _Measure:
    """Measurement of one load after another. `seen`: load -> the gateway's metrics during it."""

    def __init__(
        self,
        address: Address,
        endpoint: str,
        token: str,
        requests: Sequence[bytes],
        how: How,
        deadline_us: int,
        told: Told,
    ) -> None:
        self._address = address
        self._endpoint = endpoint
        self._token = token
        self._requests = requests
        self._how = how
        self._deadline_us = deadline_us
        self._told = told
        self.seen: dict[float, EndpointNumbers] = {}

    def __call__(self, rate: float) -> Point:
        before = self._scraped()
        load = run(
            (self._address.host, self._address.port),
            self._requests,
            connections=self._how.connections,
            seconds=max(self._how.seconds, _LEAST / rate),
            rate=rate,
            warm_up_s=_WARM_UP_S,
        )
        self.seen[rate] = self._scraped().since(before)
        measured = point(load, self._deadline_us)
        p99 = "no answer" if measured.p99_us is None else f"p99 {measured.p99_us / 1000:.2f} ms"
        grew = ", and the queue grew" if measured.grew else ""
        self._told(f"{rate:,.0f} requests/s: {measured.in_time:.1%} in time, {p99}{grew}")
        return measured

    def _scraped(self) -> EndpointNumbers:
        return read_numbers(get(self._address, "/metrics", self._token).decode(), self._endpoint)


def _bodies(
    project: Project,
    by: str,
    rows: int,
    bundle: Bundle,
    observations: Observations | None,
    metadata: Mapping[str, Any],
) -> Iterator[bytes]:
    """Yield bodies of requests: the newest observations by key, or the bundle's golden rows."""
    if by == "keys":
        fields = {tensor["name"]: tensor["datatype"] for tensor in metadata["parameters"].get("keyed_inputs", ())}
        if not fields or observations is None:
            raise Invalid("This endpoint cannot be requested by keys.", fix="measure it with --by features.")
        table = _recent(project.lake.scan(observations.source.name), observations, _DIFFERENT * rows)
        columns: Mapping[str, Sequence[Any]] = {name: table[name] for name in fields}
        tensors = {name: (datatype, ()) for name, datatype in fields.items()}
    else:
        golden = msgspec.json.decode(bundle.files[GOLDEN], type=Golden)
        columns = golden.inputs
        tensors = {tensor["name"]: (tensor["datatype"], tuple(tensor["shape"][1:])) for tensor in metadata["inputs"]}
    total = len(next(iter(columns.values())))
    for first in range(0, max(1, total - rows + 1), rows):
        yield msgspec.json.encode(
            {
                "inputs": [
                    {
                        "name": name,
                        "datatype": datatype,
                        "shape": [rows, *shape],
                        "data": [columns[name][(first + row) % total] for row in range(rows)],
                    }
                    for name, (datatype, shape) in tensors.items()
                ]
            }
        )


def _refused(
    address: Address, endpoint: str, path: str, body: bytes, token: str, statuses: Mapping[int, int]
) -> MainspringError:
    try:
        call(address, "POST", path, token, body)
    except Unavailable as error:
        return Invalid(f"{endpoint} rejects the test requests: {error.what}")
    return Unavailable(f"{endpoint} answers nobody: {statuses}.")


def machine_of(*, own_core: bool) -> str:
    """Return this machine as a baseline names it.

    Args:
        own_core: Whether the caller has a core of its own.
    """
    cores = usable_cores()
    shared = "one of them for the client" if own_core else "shared with the client"
    return f"{platform.system()} {platform.machine()}, {cores} cores, {shared}, Python {platform.python_version()}"


def _recent(scan: TableScan, observations: Observations, count: int) -> dict[str, list[Any]]:
    """Return up to `count` of the observations' rows by column, newest first; instants in UTC epoch microseconds.

    Raises:
        NotFound: There are no observations.
    """
    source = observations.source
    at = to_sql(observations.at, source.columns)
    con = duck.connect()
    try:
        with duck.duck_errors(source.name, scan):
            duck.register(con, "source", scan)
            kinds = {name: kind for name, kind, *_ in con.execute("DESCRIBE source").fetchall()}
            wanted = ", ".join(
                f"epoch_us({quote_name(name)})" if "TIMESTAMP" in kinds[name] else quote_name(name)
                for name in source.columns
            )
            rows = con.execute(
                f"SELECT {wanted} FROM source WHERE ({at}) IS NOT NULL ORDER BY ({at}) DESC LIMIT {count:d}"
            ).fetchall()
    finally:
        con.close()
    if not rows:
        raise NotFound(
            f"Source {source.name!r} has no observations to build requests from.",
            fix="ingest data, or use --by features.",
        )
    return dict(zip(source.columns, map(list, zip(*rows, strict=True)), strict=True))
