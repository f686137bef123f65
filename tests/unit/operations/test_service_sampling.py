"""The worker's looks at gateway processes become a history by which objectives are judged, without Prometheus."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import mainspring as ms
from kit import documents
from kit.console.flights import NOW, Project, definitions
from kit.slots import answering
from kit.waiting import wait_until
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, ManualClock
from mainspring.monitoring.service.samples import Sample
from mainspring.operations.service.objectives import judged, objectives
from mainspring.operations.service.sampling import KEPT_US, MINUTES_US, Sampler
from mainspring.operations.watching import CHANNELS, watch
from mainspring.project.running import Running, write_running
from mainspring.serving.plane.metrics import Metrics
from unit.core.test_process_usage import grandchild, usage

OBJECTIVES = [
    ms.objectives.availability(0.99),
    ms.objectives.latency(0.9, within="50ms"),
    ms.objectives.freshness("OriginTraffic", within="5m"),
]


def process(started: int) -> Metrics:
    return Metrics(ready=lambda: True, served=dict, waiting=dict, refused=dict, clock=ManualClock(started))


def asked(metrics: Metrics, *, good: int, bad: int = 0, slow: int = 0) -> None:
    endpoint = metrics.of("late-arrival")
    endpoint.requests[200] += good + slow
    endpoint.requests[503] += bad
    for duration in [0.01] * good + [0.2] * slow:
        endpoint.version("2").seconds.observe(duration)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    watched = {"late-arrival": ms.Monitor("late-arrival", objectives=OBJECTIVES)}
    project = Project(definitions=replace(definitions(), monitors=watched))
    return project.having(settings=replace(project.settings, state=tmp_path), wall=ManualClock(NOW))


def test_what_a_process_started_is_sampled_with_it(project: Project, tmp_path: Path) -> None:
    assert isinstance(project.wall, ManualClock)
    write_running(tmp_path, Running(os.getpid(), "local", "", "", {"worker": os.getpid()}))
    sampler = Sampler(project)
    sampler.look()
    with grandchild():
        before = usage().cpu_s
        wait_until(lambda: usage().cpu_s > before + 0.05, "the grandchild to work")
        project.wall.advance(MINUTE)
        sampler.look()
    [sample] = [each for each in project.service.samples(NOW, NOW + HOUR, {"process worker"}) if each.peaks]
    assert sample.counts["children_cpu_s"] > 0.05
    assert sample.peaks["children_resident_bytes"] > 1_000_000


def test_several_processes_and_their_restarts_become_a_budget(project: Project, tmp_path: Path) -> None:
    wall = project.wall
    assert isinstance(wall, ManualClock)
    first, second = process(NOW - 10 * SECOND), process(NOW - 9 * SECOND)
    with ExitStack() as slots:
        slots.enter_context(answering(tmp_path, first.text))
        with answering(tmp_path, second.text, 1):
            asked(first, good=500)
            asked(second, good=300, bad=10)
            Sampler(project).look()
            wall.advance(MINUTE)
            asked(second, good=50, slow=50)
            Sampler(project).look()  # another worker continues where this one was
        with answering(tmp_path, (again := process(NOW + MINUTE + SECOND)).text, 1):
            asked(again, good=80, bad=10)
            wall.advance(MINUTE)
            Sampler(project).look()
    found = objectives(project, "late-arrival")
    documents.check(["objectives"], msgspec.to_builtins(found))
    available, fast, fresh = found
    assert (available.objective, available.good, available.bad) == ("availability", 980, 20)
    assert available.budget_left == pytest.approx(1 - 20 / (0.01 * 1000))
    assert (fast.good, fast.bad) == (930, 50)
    assert fresh.objective == "freshness OriginTraffic 5m"
    assert (fresh.good + fresh.bad, fresh.ratio) == (3.0, 0.0)  # never materialised
    assert available.alert == "ticket"


def test_a_broken_promise_opens_an_incident_and_closes_it(project: Project, tmp_path: Path) -> None:
    wall = project.wall
    assert isinstance(wall, ManualClock)
    metrics = process(NOW - MINUTE)
    watched = {"late-arrival": ms.Monitor("late-arrival", objectives=OBJECTIVES[:2])}
    project = project.having(definitions=replace(definitions(), monitors=watched))

    def minutes(count: int, **asking: int) -> None:
        for _ in range(count):
            wall.advance(MINUTE)
            asked(metrics, **asking)
            Sampler(project).look()

    def opened() -> list[str]:
        watch(project, windows=False, channels={"service": CHANNELS["service"]})
        return [str(incident.cause) for incident in project.incidents.open() if incident.cause.kind == "service"]

    with answering(tmp_path, metrics.text):
        minutes(10, good=100)
        assert opened() == []
        minutes(10, good=50, bad=50)
        [before] = judged(project, "late-arrival")
        assert judged(project, "late-arrival") == [before]
        assert [signal.statistic for signal in before.signals] == ["availability"] * 2
        assert all(signal.page and (signal.start, signal.end) in before.windows for signal in before.signals)
        assert "of requests were bad" in before.signals[0].detail
        for _ in range(2):
            assert opened() == ["service late-arrival"]
            assert project.incidents.open()[0].page
        metrics.of("late-arrival").requests[200] += 1_000_000
        minutes(16, good=1)
        assert opened() == []


def test_nothing_is_lost_while_nobody_looks_or_the_clock_goes_back(project: Project, tmp_path: Path) -> None:
    wall = project.wall
    assert isinstance(wall, ManualClock)
    metrics, sampler = process(NOW - SECOND), Sampler(project)
    with answering(tmp_path, metrics.text):
        for step in (0, 5 * HOUR, -2 * HOUR, 40 * DAY, -40 * DAY, MINUTE):
            wall.advance(step)
            asked(metrics, good=10)
            sampler.look()
    samples = [each for each in project.service.samples(0, NOW + 100 * DAY) if each.subject == "late-arrival"]
    assert sum(sample.counts["requests 200"] for sample in samples) == 60


def of(project: Project) -> list[Sample]:
    return [each for each in project.service.samples(NOW, NOW + HOUR) if each.subject == "late-arrival"]


def test_minutes_become_hours_and_then_are_deleted(project: Project, tmp_path: Path) -> None:
    wall = project.wall
    assert isinstance(wall, ManualClock)
    metrics, sampler = process(NOW - SECOND), Sampler(project)
    with answering(tmp_path, metrics.text):
        for _ in range(10):
            wall.advance(MINUTE)
            asked(metrics, good=1)
            sampler.look()
        wall.advance(MINUTES_US + 2 * HOUR)
        sampler.look()
        assert len(of(project)) == 11  # right after a jump nothing is compacted
        wall.advance(MINUTE)
        sampler.look()
    assert [sample.counts.get("requests 200") for sample in of(project)] == [10.0, None]
    wall.advance(KEPT_US)
    sampler.look()
    wall.advance(MINUTE)
    sampler.look()
    assert project.service.samples(0, NOW + HOUR) == []
