"""Metrics of the control plane: windows, incidents, objectives with their budgets, freshness, capacity.

Labels are endpoints, objectives, versions of the newest windows, metrics and views: all of them declared or few.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mainspring.core.errors import MainspringError
from mainspring.core.gpus import Gpu, gpu_reader
from mainspring.core.process_usage import of_descendants
from mainspring.monitoring.incidents.model import PAGE, TICKET
from mainspring.monitoring.signals import CALLERS
from mainspring.operations.anchoring import lags as anchor_lags
from mainspring.operations.cost.exposing import budgets, today
from mainspring.operations.data.tables import newest
from mainspring.operations.edge.fleet import devices as fleet_devices
from mainspring.operations.moved_logs import lost_logs
from mainspring.operations.quality import estimated_now
from mainspring.operations.service.objectives import objectives
from mainspring.operations.service.sampling import lags
from mainspring.operations.service.skew import skew
from mainspring.operations.stream_endpoints.showing import status
from mainspring.operations.streams.reports import shown
from mainspring.project import Project
from mainspring.project.running import read_running
from mainspring.serving.plane.slots import labelled

_KEPT_S = 10.0  # what was computed for one scrape serves the next ones
_AGED_S = 60.0

_log = logging.getLogger(__name__)


class ControlMetrics(Collector):
    """The metrics of one project.

    Args:
        gpus: Reads this machine's GPUs; by default NVIDIA's, if there are any.

    Raises (in `text` and `collect`):
        MainspringError: The catalog does not answer.
    """

    def __init__(self, project: Project, gpus: Callable[[], list[Gpu]] | None = None) -> None:
        self._project = project
        self._gpus = gpus or gpu_reader()
        self._lock = threading.Lock()
        self._kept: tuple[float, list[Metric]] = (-math.inf, [])
        self._aged: tuple[float, dict[str, int]] = (-math.inf, {})
        self._costs: tuple[float, list[Metric]] = (-math.inf, [])
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return the exposition format."""
        return labelled(generate_latest(self._registry), self._project.settings.labels)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registration asks no store."""
        return ()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() - self._kept[0] >= _KEPT_S:
                self._kept = time.monotonic(), [*self._collected()]
            yield from self._kept[1]

    def _collected(self) -> Iterator[Metric]:
        yield from _of_objectives(self._project)
        yield from _of_windows(self._project)
        yield from _of_estimates(self._project)
        yield from _of_incidents(self._project)
        yield from _of_features(self._project)
        yield from _of_streams(self._project)
        yield from _of_skew(self._project)
        yield from _of_capacity(self._project)
        yield from _of_stream_endpoints(self._project)
        yield from _of_fleet(self._project)
        yield from _of_anchors(self._project)
        yield from _of_logs(self._project)
        yield from _of_processes(self._project)
        yield from self._of_costs()
        if self._gpus is not None:
            yield from _of_gpus(self._gpus())
        yield from self._of_sources()

    def _of_costs(self) -> Iterator[Metric]:
        """Yield the costs of today and the budgets, which add up many rows: less often than the rest."""
        if time.monotonic() - self._costs[0] >= _AGED_S:
            self._costs = time.monotonic(), [*today(self._project), *budgets(self._project)]
        yield from self._costs[1]

    def _of_sources(self) -> Iterator[Metric]:
        """Yield the age of the sources' data, which asks the lake for files: less often than the rest."""
        if time.monotonic() - self._aged[0] >= _AGED_S:
            self._aged = time.monotonic(), _newest(self._project)
        age = _gauge("source_age_seconds", "Time since the newest event of a source.", "source")
        now = self._project.clock.now()
        for name, event in self._aged[1].items():
            age.add_metric([name], (now - event) / 1e6)
        yield age


def _gauge(name: str, told: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mainspring_{name}", told, labels=labels)


def _of_stream_endpoints(project: Project) -> Iterator[Metric]:
    labels = ("endpoint", "partition")
    counts = {
        name: CounterMetricFamily(f"mainspring_stream_endpoint_{name}", told, labels=labels)
        for name, told in {
            "processed": "Messages that were processed.",
            "emitted": "Outputs that were sent.",
            "late": "Events that were older than the watermark.",
            "dead": "Messages that became dead letters.",
            "duplicates": "Events that were there before.",
        }.items()
    }
    lag = _gauge("stream_endpoint_lag_messages", "Messages in the log that are not processed.", *labels)
    age = _gauge("stream_endpoint_lag_seconds", "Time for which messages wait that are not processed.", *labels)
    fresh = _gauge("stream_endpoint_freshness_seconds", "Time from an event to its output.", *labels, "quantile")
    delay = _gauge(
        "stream_endpoint_delay_seconds", "Time from a message's acceptance by the log to its output.", *labels,
        "quantile",
    )  # fmt: skip
    watermark = _gauge("stream_endpoint_watermark_seconds", "Instant before which an event is late.", *labels)
    waiting = _gauge("stream_endpoint_waiting", "Entries that a sink has not delivered.", *labels, "sink")
    for name in project.definitions.stream_endpoints:
        for each in status(project, name).partitions:
            of = [name, str(each.partition)]
            for count, family in counts.items():
                family.add_metric(of, getattr(each, count))
            if each.watermark is not None:
                watermark.add_metric(of, each.watermark / 1e6)
            for sink, entries in each.waiting.items():
                waiting.add_metric([*of, sink], entries)
        for found in shown(project, name).partitions:
            of = [name, str(found.partition)]
            for gauge, value, *quantile in (
                (lag, found.lag), (age, found.lag_s), (fresh, found.freshness_p50, "0.5"),
                (fresh, found.freshness_p99, "0.99"), (delay, found.delay_p50, "0.5"), (delay, found.delay_p99, "0.99"),
            ):  # fmt: skip
                if value is not None:
                    gauge.add_metric([*of, *quantile], value)
    yield from (*counts.values(), lag, age, fresh, delay, watermark, waiting)


def _of_fleet(project: Project) -> Iterator[Metric]:
    devices = _gauge("fleet_devices", "Devices.", "package", "version", "ring", "condition")
    unseen = _gauge("fleet_unseen_seconds", "Time since the device that was unseen for longest was seen.", "package")
    waiting = _gauge("fleet_waiting_records", "Records that wait on devices.", "package")
    dropped = CounterMetricFamily("mainspring_fleet_dropped_records", "Records dropped on devices.", labels=["package"])
    failed = _gauge("fleet_failed_updates", "Devices that went back from a version.", "package", "version")
    expires = _gauge("fleet_metadata_expires_seconds", "When metadata of the repository expires, Unix time.", "role")
    found, now = fleet_devices(project), project.wall.now()
    for key, count in Counter((e.package, str(e.version or ""), str(e.ring or ""), e.condition) for e in found).items():
        devices.add_metric(key, count)
    for of, count in Counter((each.package, version) for each in found for version in each.failed).items():
        failed.add_metric(of, count)
    for package in sorted({each.package for each in found}):
        mine = [each for each in found if each.package == package]
        unseen.add_metric([package], max(now - (each.seen_at or now) for each in mine) / 1e6)
        waiting.add_metric([package], sum(each.queued for each in mine))
        dropped.add_metric([package], sum(each.dropped for each in mine))
    if project.packages.folder.exists():
        for role, at in project.packages.expires().items():
            expires.add_metric([role], at / 1e6)
    yield from (devices, unseen, waiting, dropped, failed, expires)


def _of_anchors(project: Project) -> Iterator[Metric]:
    events = _gauge("audit_anchor_lag_events", "Events of the audit log that are not anchored at a place.", "place")
    age = _gauge("audit_anchor_lag_seconds", "Time for which the oldest of these events waits.", "place")
    now = project.wall.now()
    for each in anchor_lags(project):
        events.add_metric([each.place], each.events)
        age.add_metric([each.place], 0.0 if each.since is None else max(0, now - each.since) / 1e6)
    yield from (events, age)


def _of_logs(project: Project) -> Iterator[Metric]:
    found = lost_logs(project)
    logs = _gauge("prediction_logs_lost", "Prediction logs that were not moved to their end, of seven days.")
    logs.add_metric([], len(found))
    rows = _gauge("predictions_lost", "Predictions of these logs that the lake has not, as they told last.")
    rows.add_metric([], sum(each.waiting for each in found))
    yield from (logs, rows)


def _of_objectives(project: Project) -> Iterator[Metric]:
    labels = ("endpoint", "objective")
    target = _gauge("objective_target_ratio", "Share of good events that is promised.", *labels)
    good = _gauge("objective_good_ratio", "Share of good events over the objective's time.", *labels)
    left = _gauge("error_budget_left_ratio", "Share of the error budget that is left.", *labels)
    observed = _gauge("objective_observed_ratio", "Share of the objective's time that was observed.", *labels)
    burn = _gauge(
        "burn_rate_ratio", "Speed at which a window uses up the error budget; 1 is just sustainable.", *labels, "window"
    )
    alert = _gauge("objective_alert", "1 while an objective burns its budget too fast.", *labels, "severity")
    for report in objectives(project):
        of = [report.endpoint, report.objective]
        target.add_metric(of, report.target)
        observed.add_metric(of, report.observed)
        if report.ratio is not None and report.budget_left is not None:
            good.add_metric(of, report.ratio)
            left.add_metric(of, report.budget_left)
        for window, rate in report.burn.items():
            if rate is not None:
                burn.add_metric([*of, window], rate)
        for severity in (PAGE, TICKET):
            alert.add_metric([*of, severity], float(report.alert == severity))
    yield from (target, good, left, observed, burn, alert)


def _of_windows(project: Project) -> Iterator[Metric]:
    end = _gauge("window_end_timestamp_seconds", "End of the newest window.", "endpoint")
    computed = _gauge("window_computed_timestamp_seconds", "Time of the newest window's last update.", "endpoint")
    rows = _gauge("window_predictions", "Predictions in the newest window.", "endpoint")
    drifted = _gauge("window_drifted_columns", "Columns that drifted in the newest judged window.", "endpoint")
    alerting = _gauge("window_alerting_columns", "Columns that drifted in two judged windows in a row.", "endpoint")
    coverage = _gauge("label_coverage_ratio", "Share of predictions with a label, newest labelled window.", "endpoint")
    delay = _gauge("label_delay_seconds", "Median time from prediction to label, newest labelled window.", "endpoint")
    quality = _gauge("window_quality", "Quality by version, newest labelled window.", "endpoint", "version", "metric")
    for name in project.definitions.endpoints:
        windows = project.monitors.windows(name)
        if not windows:
            continue
        newest = windows[-1]
        end.add_metric([name], newest.end / 1e6)
        computed.add_metric([name], newest.computed_at / 1e6)
        rows.add_metric([name], float(newest.predictions))
        judged = next((window for window in reversed(windows) if window.judged), None)
        if judged is not None:
            drifted.add_metric([name], float(len(judged.drifted)))
            alerting.add_metric([name], float(len(judged.alerts)))
        labelled = next((window for window in reversed(windows) if window.labels), None)
        if labelled is not None:
            coverage.add_metric([name], labelled.coverage)
            if labelled.lag_p50_s is not None:
                delay.add_metric([name], labelled.lag_p50_s)
            for version, found in labelled.by_predictor.items():
                for metric, value in found.quality.items():
                    quality.add_metric([name, version, metric], value)
    yield from (end, computed, rows, drifted, alerting, coverage, delay, quality)


def _of_estimates(project: Project) -> Iterator[Metric]:
    labels = ("endpoint", "version", "metric")
    value = _gauge("window_estimated_quality", "Quality estimated before labels, newest window.", *labels)
    low = _gauge("window_estimated_quality_low", "Lower end of the estimate's 90% interval.", *labels)
    high = _gauge("window_estimated_quality_high", "Upper end of the estimate's 90% interval.", *labels)
    valid = _gauge("window_estimate_valid", "0 while an incident of the inputs misleads the estimates.", "endpoint")
    for name in project.definitions.endpoints:
        windows = project.monitors.windows(name)
        estimates, invalid = estimated_now(project, name, windows[-1]) if windows else ({}, "")
        if estimates:
            valid.add_metric([name], float(not invalid))
        for version, of_version in estimates.items():
            for metric, made in of_version.items():
                for gauge, number in ((value, made.value), (low, made.low), (high, made.high)):
                    if number is not None:
                        gauge.add_metric([name, version, metric], number)
    yield from (value, low, high, valid)


def _of_incidents(project: Project) -> Iterator[Metric]:
    opened = _gauge("open_incidents", "Open incidents; an empty endpoint is the installation.", "endpoint", "severity")
    counts = {(name, severity): 0 for name in project.definitions.endpoints for severity in (PAGE, TICKET)}
    unlike = _gauge("unlike_callers", "Callers with an open incident as their rows are unlike all others'.", "endpoint")
    callers = dict.fromkeys((name for name, each in project.definitions.monitors.items() if each.extraction), 0)
    for incident in project.incidents.open():
        if CALLERS in incident.channels:
            callers |= {name: callers.get(name, 0) + 1 for name in incident.endpoints}
        for name in incident.endpoints or ("",):
            key = name, PAGE if incident.page else TICKET
            counts[key] = counts.get(key, 0) + 1
    for key, count in counts.items():
        opened.add_metric(list(key), float(count))
    for name, number in callers.items():
        unlike.add_metric([name], float(number))
    yield from (opened, unlike)


def _of_features(project: Project) -> Iterator[Metric]:
    lag = _gauge("view_lag_seconds", "Time since the instant up to which a view is materialised.", "view")
    for name, lag_us in lags(project).items():
        lag.add_metric([name], float("inf") if lag_us is None else lag_us / 1e6)
    yield lag


def _of_streams(project: Project) -> Iterator[Metric]:
    lag = _gauge("stream_lag_messages", "Messages of a source's stream that are not ingested.", "source")
    age = _gauge("stream_watermark_age_seconds", "Time since a stream's watermark.", "source")
    fresh = _gauge(
        "stream_freshness_seconds", "Time from an event to its features being readable.", "source", "quantile"
    )
    letters = _gauge("stream_dead_letters", "Messages of a stream that are no rows.", "source")
    for name in project.definitions.streams:
        found = shown(project, name)
        letters.add_metric([name], float(found.dead_letters))
        if found.lag is not None:
            lag.add_metric([name], float(found.lag))
        if found.watermark_age_s is not None:
            age.add_metric([name], found.watermark_age_s)
        for quantile, values in (
            ("0.5", [each.freshness_p50 for each in found.workers]),
            ("0.99", [each.freshness_p99 for each in found.workers]),
        ):
            known = [value for value in values if value is not None]
            if known:
                fresh.add_metric([name, quantile], max(known))
    yield from (lag, age, fresh, letters)


def _of_skew(project: Project) -> Iterator[Metric]:
    compared = _gauge(
        "compared_feature_values",
        "Served values of features by comparison with the offline read, of the last day's samples.",
        "endpoint",
        "feature",
        "outcome",
    )
    for name in project.definitions.endpoints:
        for feature, counts in skew(project, name).items():
            for outcome, count in counts.items():
                compared.add_metric([name, feature, outcome], float(count))
    yield compared


def _of_capacity(project: Project) -> Iterator[Metric]:
    capacity = _gauge("capacity_requests_per_second", "Highest load that met the deadline, as measured.", "endpoint")
    deadline = _gauge("deadline_seconds", "Longest time that a request may take.", "endpoint")
    routes = project.routes.current()
    for name in project.definitions.endpoints:
        kept = project.baselines.newest(name)
        measured = kept[0].capacity if kept else None
        if measured is not None:
            capacity.add_metric([name], measured)
        if name in routes:
            deadline.add_metric([name], routes[name].deadline_us / 1e6)
    yield from (capacity, deadline)


def _newest(project: Project) -> dict[str, int]:
    """Return source -> its newest event; sources without data, and those that cannot be read, are left out."""
    found = {}
    for source in project.definitions.sources.values():
        try:
            event = newest(project.lake.scan(source.name), source.event_time)
        except MainspringError as error:
            _log.debug("%s: %s", source.name, error)
            continue
        if event is not None:
            found[source.name] = event
    return found


def _of_processes(project: Project) -> Iterator[Metric]:
    """Yield processor time and memory of the processes that are up on this machine, on Linux."""
    running = read_running(project.settings.state)
    if running is None:
        return
    labels = ["process"]
    cpu = CounterMetricFamily("mainspring_process_cpu_seconds", "Processor time of a process.", labels=labels)
    memory = _gauge("process_resident_memory_bytes", "Resident memory of a process.", *labels)
    kills = CounterMetricFamily(
        "mainspring_process_kills", "Kills of a process because it did not respond.", labels=labels
    )
    below = "of the processes that a process started: models run apart, jobs"
    children_cpu = CounterMetricFamily("mainspring_children_cpu_seconds", f"Processor time {below}.", labels=labels)
    children_memory = _gauge("children_resident_memory_bytes", f"Resident memory {below}.", *labels)
    children = _gauge("children", "Number of the processes that a process started.", *labels)
    for name, pid in running.children.items():
        if (usage := of_descendants(pid)) is not None:
            children_cpu.add_metric([name], usage.cpu_s)
            children_memory.add_metric([name], float(usage.resident_bytes))
            children.add_metric([name], float(usage.processes))
        values = {
            family.name: family.samples[0].value for family in ProcessCollector(pid=_is(pid), registry=None).collect()
        }
        if "process_cpu_seconds" in values:
            cpu.add_metric([name], values["process_cpu_seconds"])
            memory.add_metric([name], values["process_resident_memory_bytes"])
        kills.add_metric([name], float(running.silenced.get(name, 0)))
    yield from (cpu, memory, kills, children_cpu, children_memory, children)


def _of_gpus(found: Iterable[Gpu]) -> Iterator[Metric]:
    labels = ["gpu"]
    busy = _gauge("gpu_busy_ratio", "Share of time in which a GPU worked.", *labels)
    used = _gauge("gpu_memory_used_bytes", "Memory of a GPU that is in use.", *labels)
    total = _gauge("gpu_memory_total_bytes", "Memory of a GPU.", *labels)
    heat = _gauge("gpu_temperature_celsius", "Temperature of a GPU.", *labels)
    power = _gauge("gpu_power_watts", "Power that a GPU draws.", *labels)
    for gpu in found:
        for family, value in (
            (busy, gpu.busy),
            (used, gpu.memory_used),
            (total, gpu.memory_total),
            (heat, gpu.celsius),
            (power, gpu.watts),
        ):
            if value is not None:
                family.add_metric([str(gpu.number)], float(value))
    yield from (busy, used, total, heat, power)


def _is(pid: int) -> Callable[[], int]:
    return lambda: pid
