"""Incidents of streams: what opens one, its cause, and what closes it; looks of a worker as the only evidence."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import mainspring as ms
from kit.console.flights import NOW, Project, declared
from mainspring.core.time import DAY, MINUTE, ManualClock
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.service import streams
from mainspring.monitoring.service.readings import State
from mainspring.monitoring.service.samples import Sample
from mainspring.operations.service.sampling import Sampler
from mainspring.operations.watching import watch

START = NOW // (5 * MINUTE) * 5 * MINUTE
WELL = {streams.LAG_S: 0.2, streams.RATE: 10.0, streams.DEAD: 7.0, streams.FRESH_P99: 0.9}
WRONG: dict[str, tuple[Mapping[str, float], Mapping[str, float], str, bool]] = {
    # statistic: counts and peaks of a look, the sentence, whether it is a page
    "stopped": ({"stopped": 1.0}, {}, "No process has read the stream payments for 5m.", True),
    "failing": ({"problem No broker.": 1.0}, {}, "has failed for 5m: No broker.", True),
    "lag": ({}, WELL | {streams.LAG_S: 301.0}, "wait for 301 s; 300 s are allowed", False),
    "freshness": ({}, WELL | {streams.FRESH_P99: 2.5}, "readable only after 2.5 s; 2 s are promised", False),
    "dead letters": ({}, WELL | {streams.DEAD: 40.0}, "33 messages of the stream payments became dead letters", False),
}


class Depot:
    """A project with a stream of a source, and a stream endpoint over the same topic."""

    def __init__(self) -> None:
        payments = ms.Source("payments", schema={"card": ms.String}, event_time="at")
        stream = ms.Stream(payments, topic="payments", freshness="2s")
        endpoint = ms.StreamEndpoint(
            "fraud", model="fraud@champion", topic="payments", source=payments, key="card", freshness="2s"
        )
        self.clock = ManualClock(START)
        definitions = declared(
            sources={"payments": payments}, streams={"payments": stream}, stream_endpoints={"fraud": endpoint}
        )
        self.project = Project(definitions=definitions, clock=self.clock, wall=self.clock, streams=MemoryLog())

    def pass_by(self, counts: Mapping[str, float], peaks: Mapping[str, float], *, stream: str = "payments") -> None:
        """Let five minutes pass with a look in each, and watch."""
        for _ in range(5):
            self.clock.advance(MINUTE)
            now = self.clock.now()
            look = Sample(
                subject=streams.subject(stream), start=now - MINUTE, end=now, observed_us=MINUTE, counts=dict(counts),
                peaks=dict(peaks),
            )  # fmt: skip
            self.project.service.save("here", [look], State(now))
        watch(self.project, [], windows=False)

    def open(self) -> list[Incident]:
        return self.project.incidents.open()


@pytest.mark.parametrize("statistic", WRONG)
def test_what_is_wrong_with_a_stream_opens_an_incident_of_its_source_and_closes_it(statistic: str) -> None:
    depot, (counts, peaks, sentence, page) = Depot(), WRONG[statistic]
    depot.pass_by({}, WELL)
    assert depot.open() == []
    depot.pass_by(counts, peaks)
    (incident,) = depot.open()
    assert (str(incident.cause), incident.page, [each.statistic for each in incident.symptoms]) == (
        "source payments", page, [statistic],
    )  # fmt: skip
    assert sentence in incident.symptoms[0].detail
    better = WELL | {streams.DEAD: peaks.get(streams.DEAD, 7.0)}
    depot.pass_by({}, better)
    assert len(depot.open()) == 1
    depot.pass_by({}, better)
    assert depot.open() == []


def test_one_look_among_good_ones_is_no_incident() -> None:
    depot = Depot()
    for counts, peaks in (({"stopped": 1.0}, {}), ({}, WELL | {streams.LAG_S: 900.0})):
        depot.clock.advance(MINUTE)
        now = depot.clock.now()
        look = Sample(
            subject=streams.subject("payments"),
            start=now - MINUTE,
            end=now,
            observed_us=MINUTE,
            counts=counts,
            peaks=peaks,
        )
        depot.project.service.save("here", [look], State(now))
    depot.pass_by({}, WELL)
    assert depot.open() == []


def test_a_stream_endpoint_has_an_incident_of_its_own() -> None:
    depot = Depot()
    depot.pass_by({"stopped": 1.0}, {}, stream="fraud")
    (incident,) = depot.open()
    assert (str(incident.cause), incident.endpoints) == ("service fraud", ("fraud",))


def test_outputs_that_are_late_are_an_incident_of_the_endpoint() -> None:
    depot = Depot()
    depot.pass_by({}, WELL | {streams.FRESH_P99: 2.5}, stream="fraud")
    (incident,) = depot.open()
    assert "fraud has its output only after 2.5 s; 2 s are promised" in incident.symptoms[0].detail


def test_the_worker_looks_at_each_stream_once_a_minute() -> None:
    depot = Depot()
    log = depot.project.streams
    Sampler(depot.project).look()
    log.create("payments")
    depot.clock.advance(MINUTE)
    Sampler(depot.project).look()
    samples = depot.project.service.samples(0, START + DAY, {streams.subject("payments"), streams.subject("fraud")})
    assert [next(iter(each.counts)).partition(" ")[0] for each in samples] == [
        "problem",
        "problem",
        "stopped",
        "stopped",
    ]
    assert "topic" in next(iter(samples[0].counts))
    assert samples[-1].peaks[streams.LAG] == 0.0
