"""Streams in every state: one that runs, one that is behind, one that failed, and an endpoint that nobody runs."""

import json
import threading
from collections.abc import Iterable

import msgspec

import mainspring as ms
from kit.console.flights import NOW, Project, declared
from mainspring.core.time import DAY, MINUTE, SECOND, format_instant
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.data.streams.landing import LEASE_US
from mainspring.data.streams.model import NewMessage
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.service import streams
from mainspring.monitoring.service.readings import State
from mainspring.monitoring.service.samples import Sample
from mainspring.monitoring.signals import STREAM, Signal
from mainspring.operations.streams.members import Member
from mainspring.operations.streams.running import land_to_the_end
from mainspring.operations.watching import settle

RUNS, BEHIND, FAILS, STOPPED = "payments", "clicks", "refunds", "fraud-alerts"


def streaming() -> Project:
    """Return the project: streams of payments, clicks and refunds, and a stream endpoint over payments."""
    sources = {
        name: ms.Source(name, schema={"card": ms.String, "amount": ms.Float64}, event_time="at")
        for name in (RUNS, BEHIND, FAILS)
    }
    bounds = {BEHIND: {"freshness": "1s"}}
    of = {name: ms.Stream(each, topic=f"shop.{name}", **bounds.get(name, {})) for name, each in sources.items()}
    endpoint = ms.StreamEndpoint(
        STOPPED, model="fraud@champion", topic="shop.payments", source=sources[RUNS], key="card"
    )
    log = MemoryLog()
    project = Project(
        definitions=declared(sources=sources, streams=of, stream_endpoints={STOPPED: endpoint}), streams=log
    )
    for name in (RUNS, BEHIND):
        log.create(f"shop.{name}", 2)
        log.produce(f"shop.{name}", [*_messages(300), NewMessage(b'{"card": "<b>"}'), NewMessage(b"no json", at=NOW)])
    land_to_the_end(project, [RUNS, BEHIND], threading.Event())
    log.produce(f"shop.{BEHIND}", [*_messages(4_321)])
    _read_by(project, RUNS, "depot-1.4711.q3x", Member(
        worker="depot-1.4711.q3x", messages=302, rows=300, rate=41.5, freshness_p50=0.31, freshness_p99=0.82,
        through=NOW,
    ))  # fmt: skip
    _read_by(project, BEHIND, "depot-2.99.abc", Member(
        worker="depot-2.99.abc", messages=302, rows=300, rate=812.0, freshness_p50=71.0, freshness_p99=412.0,
        through=NOW - 412 * SECOND,
    ))  # fmt: skip
    looks = [_look(name, minute) for name in (RUNS, BEHIND) for minute in range(0, 1440, 5)]
    project.service.save("here", looks, State(NOW))
    start, end = NOW - 10 * MINUTE, NOW - 5 * MINUTE
    signal = Signal(
        channel=STREAM, endpoint="", statistic="lag", column=BEHIND, start=start, end=end, severity=1.4, value=412.0,
        expected=300.0, detail="Messages of the stream clicks wait for 412 s; 300 s are allowed.",
    )  # fmt: skip
    settle(project, [Judged("", STREAM, ((start, end),), (signal,))], NOW)
    return project


def _messages(count: int) -> Iterable[NewMessage]:
    for number in range(count):
        at = NOW - (count - number) * SECOND // 4
        row = {"card": f"c{number % 7}", "amount": number / 4, "at": format_instant(at)}
        yield NewMessage(json.dumps(row).encode(), key=str(number % 7).encode(), at=at)


def _read_by(project: Project, stream: str, owner: str, member: Member) -> None:
    # As a worker that reads now; the time of the project stands still.
    project.stream_store.claim(stream, owner, [0, 1], NOW, NOW + LEASE_US)
    project.stream_store.report(stream, owner, msgspec.json.encode(member))


def _look(stream: str, minute: int) -> Sample:
    end = NOW - DAY + minute * MINUTE
    late = max(0, minute - 1200) if stream == BEHIND else minute % 3
    peaks = {
        streams.LAG: late * 18.0, streams.LAG_S: late * 1.7, streams.RATE: 40.0 + minute % 7,
        streams.DEAD: minute // 400, streams.FRESH_P50: 0.3 + late / 3, streams.FRESH_P99: 0.8 + late * 1.7,
    }  # fmt: skip
    return Sample(
        subject=streams.subject(stream), start=end - MINUTE, end=end, observed_us=MINUTE, counts={}, peaks=peaks
    )
