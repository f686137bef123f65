"""The page of the streams, the page of a stream, and their API."""

from __future__ import annotations

import msgspec
import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project, populated
from kit.console.streaming import BEHIND, FAILS, RUNS, STOPPED, streaming
from mainspring.console.app import create_app
from mainspring.console.streams.pages import stream_mark
from mainspring.core.time import MINUTE, SECOND
from mainspring.data.streams.recent import Delays
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.operations.streams.members import Member


@pytest.fixture(scope="module")
def project() -> Project:
    return streaming()


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def test_streams_that_need_a_person_come_first(client: Client) -> None:
    found = client.page("/streams").text
    names = (FAILS, STOPPED, BEHIND, RUNS)
    places = [found.index(f'<a href="/streams/{name}"') for name in names]
    assert places == sorted(places)
    for told in ("The log has no topic", "Stopped", "4,321", "6 min 52 s", "310 ms", "depot-1.4711.q3x"):
        assert told in found.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "JSON is malformed" in found
    assert "No streams yet" in Client(create_app(other := populated()), other.key()).page("/streams").text


def test_a_stream_shows_its_course_its_partitions_and_its_dead_letters(client: Client) -> None:
    found = client.page(f"/streams/{BEHIND}").text
    for told in ("Behind", 'id="chart-freshness"', 'id="chart-waiting"', "promised", "Open incident", "wait for 412 s"):
        assert told in found
    assert "JSON is malformed" in found
    assert f"mainspring streams show {BEHIND}" in found
    stopped = client.page(f"/streams/{STOPPED}").text
    assert f"mainspring streams run {STOPPED}" in stopped
    assert "302 messages" in stopped  # what waits for it
    assert client.get("/streams/nothing").status_code == 404


def test_the_api_has_the_same(client: Client) -> None:
    streams = {each["stream"]: each for each in client.get("/api/streams").json()["streams"]}
    states = {name: each["state"] for name, each in streams.items()}
    assert states == {RUNS: "running", BEHIND: "behind", FAILS: "failing", STOPPED: "stopped"}
    assert (streams[BEHIND]["lag_s"], streams[BEHIND]["freshness_s"], streams[STOPPED]["kind"]) == (
        412.0,
        1.0,
        "endpoint",
    )
    assert client.get(f"/api/streams/{RUNS}").json()["stream"] == streams[RUNS]
    (letter,) = client.get(f"/api/streams/{RUNS}/dead-letters").json()["dead_letters"]
    assert (letter["at"], letter["bytes"]) == (NOW, 7)


def test_a_stream_endpoint_shows_its_delays_by_partition_and_exports_them() -> None:
    project = streaming()
    reader = "depot-1.4711.q3x"
    known = Delays(freshness_p50=0.25, freshness_p99=1.5, delay_p50=0.125, delay_p99=0.75)
    project.stream_store.claim(STOPPED, reader, [0, 1], NOW, NOW + MINUTE)
    member = Member(worker=reader, partitions={1: known}, through=NOW - 3 * SECOND)
    project.stream_store.report(STOPPED, reader, msgspec.json.encode(member))
    client = Client(create_app(project), project.key())
    partitions = client.get(f"/api/streams/{STOPPED}").json()["stream"]["partitions"]
    assert [(each["worker"], each["lag_s"], each["freshness_p99"]) for each in partitions] == [
        (reader, 3.0 if each["lag"] else 0.0, late) for each, late in zip(partitions, (None, 1.5), strict=True)
    ]
    assert "p99 1 s" in client.page(f"/streams/{STOPPED}").text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    exported = ControlMetrics(project).text().decode()
    for name, quantile, value in (
        ("freshness", "0.5", 0.25), ("freshness", "0.99", 1.5), ("delay", "0.5", 0.125), ("delay", "0.99", 0.75),
    ):  # fmt: skip
        labels = f'endpoint="{STOPPED}",partition="1",quantile="{quantile}"'
        assert f"mainspring_stream_endpoint_{name}_seconds{{{labels}}} {value}\n" in exported
    assert f'mainspring_stream_endpoint_lag_seconds{{endpoint="{STOPPED}",partition="1"}} 3.0\n' in exported


def test_a_page_is_told_of_what_readers_report() -> None:
    project = streaming()
    before = stream_mark(project)
    member = Member(worker="depot-1.4711.q3x", messages=303)
    project.stream_store.report(RUNS, "depot-1.4711.q3x", msgspec.json.encode(member))
    assert stream_mark(project) != before
    assert stream_mark(populated()) == ""
