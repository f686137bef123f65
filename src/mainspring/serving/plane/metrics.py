"""Metrics of the gateway with their Prometheus text.

Labels are endpoints of the routing table, statuses, stages and causes: all of them ours and few, so a scrape never
grows with traffic. The counters are plain numbers of one event loop; Prometheus's own take three locks an observation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mainspring.core.time import Clock, SystemClock
from mainspring.features.model import Status
from mainspring.serving.caching.responses import Responses
from mainspring.serving.devices.device import Device
from mainspring.serving.model import LATENCY_BOUNDS
from mainspring.serving.plane.catalog_copy import CatalogCopy
from mainspring.serving.plane.runtime import Runtime
from mainspring.serving.residency.memory import UNBOUND
from mainspring.serving.residency.residency import Residency
from mainspring.serving.residency.resident import ResidentExecutor

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SERVED, REVISION, REFUSED = "mainspring_served_version", "mainspring_route_revision", "mainspring_refused_route"
DEVICE, NODES = "mainspring_endpoint_device", "mainspring_endpoint_nodes"
STARTED = "mainspring_gateway_start_time_seconds"
INFERENCES, FAILURES = "mainspring_inference_seconds", "mainspring_inference_failures"
_LONGEST_REASON = 300  # characters
_USUAL = (200, 429, 500, 503)  # statuses that are exported from the start: Prometheus sees no growth of a new series
_PRESENT = Status.PRESENT.value
_VERSIONS = 16  # of an endpoint, whose numbers are kept after they are replaced
STAGES = ("queue", "features", "compute", "encode", "total")
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)


class Histogram:
    """Counts by bucket. An observation is one bisection and three additions."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Return the buckets as Prometheus wants them (upper bound, count up to it), and the sum."""
        buckets, count = [], 0
        for bound, within in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            count += within
            buckets.append((bound, float(count)))
        return buckets, self._sum


class ArmMetrics:
    """The numbers of one arm: of requests that a rollout assigned to it. `failures` are by kind."""

    __slots__ = ("answered", "failures", "seconds")

    def __init__(self) -> None:
        self.answered = 0
        self.failures: dict[str, int] = defaultdict(int)
        self.seconds = Histogram(LATENCY_BOUNDS)  # until the reply, of answered requests and failed ones


class VersionMetrics:
    """The numbers of one version: of inference requests that reached it. `failed` ones are not the caller's fault."""

    __slots__ = ("failed", "seconds")

    def __init__(self) -> None:
        self.failed = 0
        self.seconds = Histogram(LATENCY_BOUNDS)  # from arrival to reply, of answered requests


class EndpointMetrics:
    """The numbers of one endpoint."""

    def __init__(self) -> None:
        self.requests: dict[int, int] = defaultdict(int)  # by status
        self.rejections: dict[str, int] = defaultdict(int)  # by cause
        self.stages = {stage: Histogram(LATENCY_BOUNDS) for stage in STAGES}
        self.batch_rows = Histogram(_ROWS)
        self.rows = 0
        self.arms: dict[str, ArmMetrics] = {}  # by version
        self.versions: dict[str, VersionMetrics] = {}
        self.features = {status.value: 0 for status in Status}  # values of stored features, by how they were found
        self.functions: dict[str, tuple[int, float]] = {}  # feature function -> rows, seconds
        self.screened: dict[str, int] = defaultdict(int)  # unusual rows, and unchecked ones, by outcome

    def arm(self, version: str) -> ArmMetrics:
        """Return the numbers of a version."""
        return self.arms.setdefault(version, ArmMetrics())

    def found(self, statuses: Iterable[Sequence[str]]) -> None:
        """Count values of stored features: a column of each, by row. Nearly all are usually present."""
        features = self.features
        for column in statuses:
            present = column.count(_PRESENT)
            features[_PRESENT] += present
            if present != len(column):
                for status in column:
                    if status != _PRESENT:
                        features[status] += 1

    def spent(self, function: str, rows: int, seconds: float) -> None:
        """Count calls of a feature function, by its own time."""
        before = self.functions.get(function, (0, 0.0))
        self.functions[function] = before[0] + rows, before[1] + seconds

    def version(self, version: str) -> VersionMetrics:
        """Return the numbers of a version that is served."""
        return self.versions.setdefault(version, VersionMetrics())

    def forget(self, served: Collection[str]) -> None:
        """Drop the oldest versions that are not served, beyond `_VERSIONS`: a scrape never grows with promotions."""
        for version in [each for each in self.versions if each not in served][: max(0, len(self.versions) - _VERSIONS)]:
            del self.versions[version]


class Metrics(Collector):
    """The numbers of one gateway process.

    Args:
        ready: Whether it takes traffic.
        served: Endpoint -> the versions behind it.
        arms: Endpoint with a rollout -> version -> weight.
        revisions: Endpoint -> the revision of the routing table that its route is of.
        waiting: Endpoint -> rows that wait.
        shed: Endpoint -> share of its requests that is refused on purpose.
        refused: Endpoint whose newest route cannot be served -> the reason.
        responses: Endpoint with a cache -> its earlier answers.
        residents: (endpoint, version) -> its model, where models may be out of memory.
        residency: Their memory.
        runtimes: (endpoint, version) -> its bundle.
        devices: Name -> device of this process that is in use, and its models.
        unlogged: (endpoint, cause) -> rows that were predicted and are not in the log, see `PredictionLog`.
        unlogged_failures: (endpoint, version) -> failures that wait for room in the log.
        damaged: Number of segments of the log that are set aside.
        catalog: The copy of the catalog that is served from, if there is one.
        clock: The machine's, for the start of this process.
    """

    def __init__(
        self,
        *,
        ready: Callable[[], bool],
        served: Callable[[], Mapping[str, tuple[str, ...]]],
        waiting: Callable[[], Mapping[str, int]],
        refused: Callable[[], Mapping[str, str]],
        arms: Callable[[], Mapping[str, Mapping[str, float]]] = dict,
        revisions: Callable[[], Mapping[str, int]] = dict,
        shed: Callable[[], Mapping[str, float]] = dict,
        responses: Callable[[], Mapping[str, Responses]] = dict,
        residents: Callable[[], Mapping[tuple[str, str], ResidentExecutor]] = dict,
        residency: Residency | None = None,
        runtimes: Callable[[], Mapping[tuple[str, str], Runtime]] = dict,
        devices: Callable[[], Mapping[str, tuple[Device, Residency]]] = dict,
        unlogged: Callable[[], Mapping[tuple[str, str], int]] = dict,
        unlogged_failures: Callable[[], Mapping[tuple[str, str], int]] = dict,
        damaged: Callable[[], int] = int,
        catalog: CatalogCopy | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._started = (clock or SystemClock()).now()
        self._ready = ready
        self._served = served
        self._waiting = waiting
        self._refused = refused
        self._arms = arms
        self._revisions = revisions
        self._shed = shed
        self._responses = responses
        self._residents = residents
        self._residency = residency
        self._runtimes = runtimes
        self._devices = devices
        self._unlogged = unlogged
        self._unlogged_failures = unlogged_failures
        self._damaged = damaged
        self._catalog = catalog
        self._endpoints: dict[str, EndpointMetrics] = {}
        self.outside: dict[int, int] = defaultdict(int)  # replies that belong to no endpoint, by status
        self.spans: Callable[[], Mapping[str, int]] = dict  # what became of spans, where requests are traced
        self.connections: Callable[[], Mapping[str, int]] = dict  # what an acceptor says of its connections
        self.further: Callable[[], Iterable[Metric]] = tuple  # families of what else the process serves
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)  # process_cpu_seconds_total, process_resident_memory_bytes, ...

    def of(self, endpoint: str) -> EndpointMetrics:
        """Return the numbers of an endpoint of the routing table."""
        found = self._endpoints.get(endpoint)
        if found is None:
            found = self._endpoints[endpoint] = EndpointMetrics()
        return found

    def total(self) -> int:
        """Return how many requests were answered."""
        return sum(self.outside.values()) + sum(sum(each.requests.values()) for each in self._endpoints.values())

    def text(self) -> bytes:
        """Return the exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("mainspring_gateway_ready", "1 if the gateway accepts traffic.", float(self._ready()))
        yield GaugeMetricFamily(STARTED, "Start of this process, seconds since the epoch.", self._started / 1e6)
        refused = self._refused()
        yield GaugeMetricFamily(
            "mainspring_refused_versions",
            "Versions of the routing table that cannot be served; the previous versions stay live.",
            float(len(refused)),
        )
        reasons = GaugeMetricFamily(
            REFUSED, "1 for each endpoint whose newest route cannot be served.", labels=["endpoint", "reason"]
        )
        for name, reason in refused.items():
            reasons.add_metric([name, reason[:_LONGEST_REASON]], 1.0)
        yield reasons
        yield GaugeMetricFamily(
            "mainspring_damaged_segments",
            "Segments of the prediction log that were set aside as damaged.",
            float(self._damaged()),
        )
        if self._catalog is not None:
            yield GaugeMetricFamily(
                "mainspring_catalog_stale_seconds",
                "Time for which the catalog has not confirmed the served routes and keys; 0 while it responds.",
                self._catalog.age_s if self._catalog.stale_since is not None else 0.0,
            )
            yield GaugeMetricFamily(
                "mainspring_catalog_went_back",
                "1 while the routing table has a lower revision than before, as after a restore.",
                float(self._catalog.went_back),
            )
        version = GaugeMetricFamily(SERVED, "1 for each version behind an endpoint.", labels=["endpoint", "version"])
        for endpoint, versions in self._served().items():
            for each in versions:
                version.add_metric([endpoint, each], 1.0)
        yield version
        revision = GaugeMetricFamily(REVISION, "Revision of the routing table that a route is of.", labels=["endpoint"])
        for endpoint, number in self._revisions().items():
            revision.add_metric([endpoint], float(number))
        yield revision
        shed = GaugeMetricFamily(
            "mainspring_shed_ratio", "Share of requests that is refused on purpose; usually 0.", labels=["endpoint"]
        )
        for endpoint, share in self._shed().items():
            shed.add_metric([endpoint], share)
        yield shed
        yield from self._of_arms()
        waiting = GaugeMetricFamily("mainspring_waiting_rows", "Rows in the queue.", labels=["endpoint"])
        for endpoint, rows in self._waiting().items():
            waiting.add_metric([endpoint], float(rows))
        yield waiting
        yield from self._of_caches()
        yield from self._of_memory()
        yield from self._of_devices()
        yield from self._of_connections()
        yield from self._counters()
        yield from self._histograms()
        yield from self.further()

    def _of_arms(self) -> Iterator[Metric]:
        """Yield the numbers of the arms of rollouts that are on; forget those of versions that nobody serves."""
        served = self._served()
        for name, endpoint in self._endpoints.items():
            for version in endpoint.arms.keys() - set(served.get(name, ())):
                del endpoint.arms[version]
        labels = ["endpoint", "version"]
        weights = GaugeMetricFamily("mainspring_arm_weight", "Weight of an arm of a rollout.", labels=labels)
        answered = CounterMetricFamily(
            "mainspring_arm_answered", "Requests of a rollout that were answered.", labels=labels
        )
        failures = CounterMetricFamily(
            "mainspring_arm_failures", "Requests of a rollout that failed.", labels=[*labels, "kind"]
        )
        seconds = HistogramMetricFamily("mainspring_arm_seconds", "Duration of requests of a rollout.", labels=labels)
        unlogged = GaugeMetricFamily(
            "mainspring_unlogged_failures", "Failures of a rollout that wait for room in the log.", labels=labels
        )
        for name, arms in self._arms().items():
            for version, weight in arms.items():
                arm = self.of(name).arm(version)
                weights.add_metric([name, version], weight)
                answered.add_metric([name, version], float(arm.answered))
                seconds.add_metric([name, version], *arm.seconds.cumulative())
                for kind, count in arm.failures.items():
                    failures.add_metric([name, version, kind], float(count))
        for key, count in self._unlogged_failures().items():
            unlogged.add_metric(list(key), float(count))
        yield from (weights, answered, failures, seconds, unlogged)

    def _of_caches(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "mainspring_cache_requests",
            "Answered requests of endpoints with a cache, by what the cache did.",
            labels=["endpoint", "outcome"],
        )
        nbytes = GaugeMetricFamily("mainspring_cache_bytes", "Size of kept answers.", labels=["endpoint"])
        answers = GaugeMetricFamily("mainspring_cache_answers", "Number of kept answers.", labels=["endpoint"])
        evictions = CounterMetricFamily(
            "mainspring_cache_evictions", "Answers that left for want of room.", labels=["endpoint"]
        )
        for name, responses in self._responses().items():
            nbytes.add_metric([name], float(responses.nbytes))
            answers.add_metric([name], float(len(responses)))
            evictions.add_metric([name], float(responses.evicted))
            for outcome, count in responses.outcomes.items():
                requests.add_metric([name, outcome], float(count))
        yield from (requests, nbytes, answers, evictions)

    def _of_memory(self) -> Iterator[Metric]:
        if self._residency is not None and self._residency.budget != UNBOUND:
            for name, told, value in (
                ("used", "Memory of the models of this process, as measured.", self._residency.used),
                ("limit", "Bound on the memory of the models of this process.", self._residency.budget),
            ):
                yield GaugeMetricFamily(f"mainspring_models_memory_{name}_bytes", told, float(value))
        labels = ["endpoint", "version"]
        here = GaugeMetricFamily("mainspring_model_in_memory", "1 for a model that is in memory.", labels=labels)
        nbytes = GaugeMetricFamily("mainspring_model_memory_bytes", "Memory that a model takes.", labels=labels)
        loads = CounterMetricFamily("mainspring_model_loads", "Loads of a model.", labels=labels)
        seconds = GaugeMetricFamily("mainspring_model_load_seconds", "Duration of a model's last load.", labels=labels)
        executors = GaugeMetricFamily("mainspring_model_executors", "Executors that a model has.", labels=labels)
        for key, model in self._residents().items():
            executors.add_metric(key, float(model.size))
            here.add_metric(key, float(model.here))
            nbytes.add_metric(key, float(model.nbytes))
            loads.add_metric(key, float(model.loads))
            seconds.add_metric(key, model.load_s)
        yield from (here, executors, nbytes, loads, seconds)

    def _of_devices(self) -> Iterator[Metric]:
        labels = ["endpoint", "version"]
        runs = GaugeMetricFamily(
            DEVICE,
            "1 for each version behind an endpoint: the device that was asked for, the one that it runs on, and why "
            "that is the processor.",
            labels=[*labels, "asked", "device", "reason"],
        )
        nodes = GaugeMetricFamily(
            NODES, "Operators of a model on a device by who computes them.", labels=[*labels, "provider"]
        )
        for key, runtime in self._runtimes().items():
            runs.add_metric([*key, runtime.device, runtime.runs_on, runtime.fallback[:_LONGEST_REASON]], 1.0)
            for provider, count in (runtime.nodes or {}).items():
                nodes.add_metric([*key, provider], float(count))
        used = GaugeMetricFamily(
            "mainspring_device_memory_used_bytes", "Memory of models on a device, as measured.", labels=["device"]
        )
        limit = GaugeMetricFamily(
            "mainspring_device_memory_limit_bytes", "Bound on the memory of models on a device.", labels=["device"]
        )
        for name, (_, residency) in self._devices().items():
            used.add_metric([name], float(residency.used))
            limit.add_metric([name], float(residency.budget))
        yield from (runs, nodes, used, limit)

    def _of_connections(self) -> Iterator[Metric]:
        found = self.connections()
        if not found:
            return
        for name, told in (
            ("connections", "Open connections."),
            ("held_connections", "Connections that are not read for a while, after their callers were rejected."),
            ("receiving_bytes", "Announced bytes of bodies in transit."),
        ):
            yield GaugeMetricFamily(f"mainspring_{name}", told, float(found[name]))
        evicted = float(found["evicted_connections"])
        yield CounterMetricFamily("mainspring_evicted_connections", "Idle connections closed for new ones.", evicted)
        if "certificate_expires" not in found:
            return
        yield GaugeMetricFamily(
            "mainspring_certificate_expires_seconds",
            "End of the certificate in use.",
            found["certificate_expires"] / 1e6,
        )
        reloads = CounterMetricFamily(
            "mainspring_certificate_reloads", "Changes of the certificate's files.", labels=["outcome"]
        )
        for outcome in ("loaded", "refused"):
            reloads.add_metric([outcome], float(found[f"certificate_{outcome}"]))
        yield reloads

    def _counters(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("mainspring_requests", "Requests by status.", labels=["endpoint", "status"])
        rejections = CounterMetricFamily(
            "mainspring_rejections", "Requests rejected to protect others.", labels=["endpoint", "cause"]
        )
        rows = CounterMetricFamily("mainspring_predictions", "Rows predicted.", labels=["endpoint"])
        features = CounterMetricFamily(
            "mainspring_stored_features",
            "Values of stored features by status.",
            labels=["endpoint", "status"],
        )
        unlogged = CounterMetricFamily(
            "mainspring_unlogged_predictions", "Rows that were predicted but not logged.", labels=["endpoint", "cause"]
        )
        unusual = CounterMetricFamily(
            "mainspring_unusual_rows",
            "Rows unlike the training rows by what became of them, and rows that could not be checked.",
            labels=["endpoint", "outcome"],
        )
        for (name, cause), count in sorted(self._unlogged().items()):
            unlogged.add_metric([name, cause], float(count))
        for status, count in self.outside.items():
            requests.add_metric(["", str(status)], float(count))
        for name, endpoint in self._endpoints.items():
            for status in sorted({*_USUAL, *endpoint.requests}):
                requests.add_metric([name, str(status)], float(endpoint.requests.get(status, 0)))
            for cause, count in endpoint.rejections.items():
                rejections.add_metric([name, cause], float(count))
            rows.add_metric([name], float(endpoint.rows))
            for outcome, count in endpoint.screened.items():
                unusual.add_metric([name, outcome], float(count))
            for each, count in endpoint.features.items():
                features.add_metric([name, each.lower()], float(count))
        yield from (requests, rejections, rows, features, unlogged, unusual)
        if outcomes := self.spans():
            spans = CounterMetricFamily("mainspring_spans", "Spans by outcome.", labels=["outcome"])
            for outcome, count in outcomes.items():
                spans.add_metric([outcome], float(count))
            yield spans

    def _histograms(self) -> Iterator[Metric]:
        stages = HistogramMetricFamily(
            "mainspring_stage_seconds", "Duration of request stages.", labels=["endpoint", "stage"]
        )
        batches = HistogramMetricFamily("mainspring_batch_rows", "Batch size, in rows.", labels=["endpoint"])
        for name, endpoint in self._endpoints.items():
            for stage, histogram in endpoint.stages.items():
                stages.add_metric([name, stage], *histogram.cumulative())
            batches.add_metric([name], *endpoint.batch_rows.cumulative())
        yield from (stages, batches)
        yield from self._of_functions()
        yield from self._of_versions()

    def _of_functions(self) -> Iterator[Metric]:
        labels = ["endpoint", "function"]
        rows = CounterMetricFamily("mainspring_feature_function_rows", "Rows of feature functions.", labels=labels)
        seconds = CounterMetricFamily(
            "mainspring_feature_function_seconds", "Time of feature functions on requests.", labels=labels
        )
        for name, endpoint in self._endpoints.items():
            for function, (count, spent) in endpoint.functions.items():
                rows.add_metric([name, function], float(count))
                seconds.add_metric([name, function], spent)
        yield from (rows, seconds)

    def _of_versions(self) -> Iterator[Metric]:
        labels, served = ["endpoint", "version"], self._served()
        seconds = HistogramMetricFamily(
            INFERENCES, "Time from arrival to reply of inference requests that were answered.", labels=labels
        )
        failures = CounterMetricFamily(
            FAILURES,
            "Inference requests that a version failed to answer, not by their caller's fault.",
            labels=labels,
        )
        for name, endpoint in self._endpoints.items():
            endpoint.forget(served.get(name, ()))
            for version, numbers in endpoint.versions.items():
                seconds.add_metric([name, version], *numbers.seconds.cumulative())
                failures.add_metric([name, version], float(numbers.failed))
        yield from (seconds, failures)
