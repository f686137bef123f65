"""Metrics of the control plane: what monitoring knows of the endpoints, for Prometheus."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import mainspring as ms
from kit.console.client import Client
from kit.console.flights import NOW, Project, definitions, populated
from kit.slots import answering
from mainspring.console.app import create_app
from mainspring.core.time import MINUTE, SECOND, ManualClock
from mainspring.operations.service.sampling import Sampler
from mainspring.project.running import Running, write_running
from mainspring.security.model import KeyScope
from mainspring.serving.conformance.baselines import measured
from mainspring.serving.plane.metrics import Metrics

OBJECTIVES = [
    ms.objectives.availability(0.99),
    ms.objectives.latency(0.9, within="50ms"),
    ms.objectives.freshness("OriginTraffic", within="5m"),
]
WATCHED = {"late-arrival": ms.Monitor("late-arrival", objectives=OBJECTIVES)}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = populated()
    return project.having(
        settings=replace(project.settings, state=tmp_path), definitions=replace(definitions(), monitors=WATCHED)
    )


def scraped(project: Project) -> dict[tuple[str, ...], float]:
    """Return (name, label values...) -> value, as a scrape has them."""
    reply = Client(create_app(project), project.key(KeyScope.SCRAPE)).get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix("mainspring_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def test_objectives_windows_freshness_and_capacity_are_metrics(project: Project, tmp_path: Path) -> None:
    metrics = Metrics(
        ready=lambda: True, served=dict, waiting=dict, refused=dict, clock=ManualClock(NOW - 600 * SECOND)
    )
    metrics.of("late-arrival").requests.update({200: 900, 500: 100})
    for _ in range(900):
        metrics.of("late-arrival").version("2").seconds.observe(0.02)
    with answering(tmp_path, metrics.text):
        Sampler(project).look()
    project.baselines.add(replaced_endpoint())
    found = scraped(project)
    of = "late-arrival", "availability"
    assert found["objective_target_ratio", *of] == 0.99
    assert found["objective_good_ratio", *of] == pytest.approx(0.9)
    assert found["error_budget_left_ratio", *of] == pytest.approx(1 - 0.1 / 0.01)
    assert found["burn_rate_ratio", *of, "1h"] == pytest.approx(10.0)
    assert (found["objective_alert", *of, "page"], found["objective_alert", *of, "ticket"]) == (1.0, 0.0)
    assert found["error_budget_left_ratio", "late-arrival", "latency 50ms"] == 1.0
    assert found["burn_rate_ratio", "late-arrival", "freshness OriginTraffic 5m", "5m"] == 0.0
    newest = project.monitors.windows("late-arrival")[-1]
    assert found["window_end_timestamp_seconds", "late-arrival"] == newest.end / 1e6
    assert found["window_predictions", "late-arrival"] == newest.predictions
    assert found["window_drifted_columns", "late-arrival"] == len(newest.drifted) > 0
    assert found["label_coverage_ratio", "late-arrival"] > 0
    assert found["view_lag_seconds", "OriginTraffic"] == 4 * MINUTE / SECOND
    assert found["capacity_requests_per_second", "late-arrival"] > 0
    assert found["deadline_seconds", "late-arrival"] == 0.05
    assert found["source_age_seconds", "departures"] == 3 * MINUTE / SECOND
    assert found["open_incidents", "late-arrival", "page"] == 0.0
    assert found["process_resident_memory_bytes",] > 0


def test_the_history_is_in_the_api(project: Project, tmp_path: Path) -> None:
    metrics = Metrics(
        ready=lambda: True, served=dict, waiting=dict, refused=dict, clock=ManualClock(NOW - 600 * SECOND)
    )
    metrics.of("late-arrival").requests.update({200: 900, 500: 100})
    with answering(tmp_path, metrics.text):
        Sampler(project).look()
    viewer = Client(create_app(project), project.key(KeyScope.VIEW))
    base = "/api/endpoints/late-arrival"
    found = viewer.get(f"{base}/objectives").json()["objectives"]
    assert [(each["objective"], each["alert"]) for each in found][:2] == [
        ("availability", "page"),
        ("latency 50ms", ""),
    ]
    [sample] = viewer.get(f"{base}/service?since={NOW - MINUTE}&until={NOW}").json()["samples"]
    assert sample["counts"] == {"requests 200": 900.0, "requests 500": 100.0}
    assert (sample["start"], sample["end"]) == (NOW - 600 * SECOND, NOW)
    assert viewer.get(f"{base}/service?since={NOW}&until={NOW + 1}").json()["samples"] == []
    assert viewer.get("/api/endpoints/nobody/objectives").status_code == 404


def test_processes_that_are_up_have_their_processor_time_and_memory(project: Project, tmp_path: Path) -> None:
    children = {"gateway": os.getpid(), "worker": os.getpid(), "grpc": 2**22 + 1}
    write_running(tmp_path, Running(1, "local", "http://x:1", "http://x:2", children, {"worker": 2}))
    found = scraped(project)
    for name in ("gateway", "worker"):
        assert found["process_cpu_seconds_total", name] > 0
        assert found["process_resident_memory_bytes", name] > 1e5
    assert ("process_cpu_seconds_total", "grpc") not in found  # it has just ended
    assert (found["process_kills_total", "worker"], found["process_kills_total", "grpc"]) == (2.0, 0.0)


def replaced_endpoint():
    made = measured("late-arrival", NOW - 1)
    return type(made)(**{**{name: getattr(made, name) for name in made.__struct_fields__}, "capacity": 800.0})


def test_a_project_without_anything_has_metrics(tmp_path: Path) -> None:
    project = Project()
    found = scraped(project.having(settings=replace(project.settings, state=tmp_path)))
    assert not [name for name, *_ in found if re.match("objective|window|view", name)]
