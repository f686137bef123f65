"""Metrics that are pushed over OTLP/HTTP are, sample by sample, those of a scrape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import mainspring as ms
from kit.collector import attributes, collector
from kit.console.flights import NOW, Project, definitions, populated
from kit.slots import answering
from kit.waiting import free_port
from mainspring.core.errors import Unavailable
from mainspring.core.time import MINUTE, ManualClock
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.operations.service.otlp import MetricsPush
from mainspring.operations.service.sampling import Sampler
from mainspring.processes.worker import duties
from mainspring.serving.plane.metrics import Metrics

Key = tuple[str, frozenset[tuple[str, str]]]
CHANGING = "process_"  # between a scrape and a push


@pytest.fixture
def project(tmp_path: Path) -> Project:
    promised = ms.Monitor("late-arrival", objectives=[ms.objectives.availability(0.99)])
    made = populated()
    return made.having(
        settings=replace(made.settings, state=tmp_path),
        definitions=replace(definitions(), monitors={"late-arrival": promised}),
    )


def gateway() -> Metrics:
    metrics = Metrics(ready=lambda: True, served=dict, waiting=dict, refused=dict, clock=ManualClock(NOW - MINUTE))
    endpoint = metrics.of("late-arrival")
    endpoint.requests.update({200: 40, 503: 2})
    for number in range(40):
        endpoint.version("2").seconds.observe(0.001 * number)
    endpoint.version("2").seconds.observe(60.0)
    return metrics


def scraped(text: bytes) -> dict[Key, float]:
    return {
        (sample.name, frozenset((name, value) for name, value in sample.labels.items() if value)): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not family.name.startswith(CHANGING)
    }


def test_what_is_pushed_is_what_a_scrape_shows(project: Project, tmp_path: Path) -> None:
    metrics = gateway()
    with collector() as received, answering(tmp_path, metrics.text):
        Sampler(project).look()
        push = MetricsPush(project, received.url)
        push.push()
        push.close()
        wanted = {
            "gateway-0": scraped(metrics.text()),
            "control": scraped(ControlMetrics(project).text()),
        }
    assert received.paths == {"/v1/metrics"}
    assert {about["service.name"] for about, _ in received.metrics} == {"flights"}
    found: dict[str, dict[Key, float]] = {"gateway-0": {}, "control": {}}
    for about, metric in received.metrics:
        if metric.name.startswith(CHANGING):
            continue
        into = found[about["service.instance.id"]]
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        assert metric.description
        if kind != "gauge":
            assert data.aggregation_temporality == 2  # cumulative
        for point in data.data_points:
            labels = frozenset(attributes(point).items())
            assert point.time_unix_nano == NOW * 1000
            if kind == "histogram":
                assert point.start_time_unix_nano == (NOW - MINUTE) * 1000
                count = 0
                bounds = [*map(str, point.explicit_bounds), "+Inf"]
                for bound, inside in zip(bounds, point.bucket_counts, strict=True):
                    count += inside
                    into[f"{metric.name}_bucket", labels | {("le", bound)}] = count
                into[f"{metric.name}_count", labels], into[f"{metric.name}_sum", labels] = point.count, point.sum
                assert not point.HasField("min")
            else:
                name = metric.name
                if kind == "sum":
                    assert data.is_monotonic
                    assert point.start_time_unix_nano == (NOW - MINUTE) * 1000
                    name += "_total"
                into[name, labels] = point.as_double
    assert found == wanted
    units = {metric.name: metric.unit for _, metric in received.metrics}
    assert units["mainspring_inference_seconds"] == "s"
    assert units["process_resident_memory_bytes"] == "By"
    assert units["mainspring_error_budget_left_ratio"] == "1"


def test_a_collector_that_does_not_take_them_is_an_error_and_the_next_push_has_everything(
    project: Project, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="did not take the metrics"):
        MetricsPush(project, f"http://127.0.0.1:{free_port()}").push()
    with collector() as received, answering(tmp_path, gateway().text):
        push = MetricsPush(project, received.url)
        received.status = 400
        with pytest.raises(Unavailable):
            push.push()
        received.status = 200
        received.metrics.clear()
        push.push()
    assert "mainspring_requests" in {metric.name for _, metric in received.metrics}


def test_the_worker_pushes_only_where_a_collector_is_named(project: Project) -> None:
    def names(settings_of: Project) -> list[str]:
        return [duty.name for duty in duties(settings_of)]

    assert "pushing metrics" not in names(project)
    named = project.having(settings=replace(project.settings, metrics="http://127.0.0.1:4318"))
    assert "pushing metrics" in names(named)
