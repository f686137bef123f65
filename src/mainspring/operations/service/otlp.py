"""Push of all metrics to a collector of OpenTelemetry, over OTLP/HTTP: what both planes export to Prometheus.

The worker pushes for the gateway processes of its machine, so a request costs the same with and without. Only who
pushes imports this module, since it brings in OpenTelemetry. Names are those of Prometheus without the ending `_total`;
units stand in the field for them too (https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from requests import Session

from mainspring.core.errors import Unavailable
from mainspring.core.version import __version__
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.project import Project
from mainspring.serving.plane.metrics import STARTED
from mainspring.serving.plane.slots import folder, numbers

_TIMEOUT_S = 5.0
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_UNITS = {"seconds": "s", "bytes": "By", "ratio": "1"}


class MetricsPush:
    """Pushes a project's metrics to the collector that its profile names."""

    def __init__(self, project: Project, url: str) -> None:
        session = Session()
        session.trust_env = False  # a proxy of the environment would get them instead
        self._project = project
        self._url = url
        self._exporter = OTLPMetricExporter(endpoint=f"{url}/v1/metrics", timeout=_TIMEOUT_S, session=session)
        self._control = ControlMetrics(project)
        self._began = project.wall.now()

    def push(self) -> None:
        """Push the metrics as they are now.

        Raises:
            Unavailable: The collector did not take them.
        """
        now = self._project.wall.now()
        found = [self._resource("control", self._control.collect(), self._began, now)]
        for slot, text in numbers(folder(self._project.settings.state)).items():
            families = list(text_string_to_metric_families(text.decode(errors="replace")))
            started = [sample.value for family in families if family.name == STARTED for sample in family.samples]
            begun = round(started[0] * 1e6) if started else now
            found.append(self._resource(f"gateway-{slot}", families, begun, now))
        if self._exporter.export(MetricsData(found)) is not MetricExportResult.SUCCESS:
            raise Unavailable(f"The collector at {self._url} did not take the metrics.", fix="check that it is up.")

    def close(self) -> None:
        """Close the connection to the collector."""
        self._exporter.shutdown()

    def _resource(self, instance: str, families: Iterable[Family], start: int, now: int) -> ResourceMetrics:
        about = {
            **self._project.settings.labels,
            "service.name": self._project.settings.project,
            "service.namespace": "mainspring",
            "service.instance.id": instance,
        }
        metrics = [metric for family in families if (metric := converted(family, start, now)) is not None]
        scope = ScopeMetrics(InstrumentationScope("mainspring", __version__), metrics, "")
        return ResourceMetrics(Resource(about), [scope], "")


def converted(family: Family, start: int, now: int) -> Metric | None:
    """Return a metric of Prometheus as one of OpenTelemetry, `None` without samples.

    Args:
        start: Since when counters and histograms count, UTC epoch microseconds.
        now: Instant of the values.
    """
    samples = list(family.samples)
    if not samples:
        return None
    begun, at = start * 1000, now * 1000
    data: Any
    if family.type == "counter":
        data = Sum([_number(sample, begun, at) for sample in samples], _CUMULATIVE, is_monotonic=True)
    elif family.type == "histogram":
        data = Histogram([*_histograms(samples, begun, at)], _CUMULATIVE)
    else:
        data = Gauge([_number(sample, 0, at) for sample in samples])
    return Metric(family.name, family.documentation, _UNITS.get(family.name.rpartition("_")[2], ""), data)


def _number(sample: Sample, start: int, at: int) -> NumberDataPoint:
    return NumberDataPoint(_attributes(sample.labels), start, at, sample.value)


def _histograms(samples: Iterable[Sample], start: int, at: int) -> Iterator[HistogramDataPoint]:
    buckets: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in samples:
        labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, {})[float(sample.labels["le"])] = sample.value
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    for labels, upto in buckets.items():
        bounds = sorted(upto)
        counts = [int(upto[bounds[0]]), *(int(upto[bound] - upto[below]) for below, bound in pairwise(bounds))]
        explicit = [bound for bound in bounds if bound != math.inf]
        unknown: Any = None  # the smallest and the largest value are not counted
        yield HistogramDataPoint(
            _attributes(dict(labels)), start, at, sum(counts), sums.get(labels, 0.0), counts, explicit, unknown, unknown
        )


def _attributes(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if value}
