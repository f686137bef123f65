"""A stream endpoint in a project: real stores, a real model, a receiver of webhooks, a process that is killed."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from kit import prefork
from kit.depth import deep
from kit.inbox import HttpInbox, http_inbox
from kit.serving import expected
from kit.stream_project import NAME, TOPIC, documents, flights, go_live, land_departures, project_in
from kit.waiting import wait_until
from mainspring.core.errors import Invalid, NotFound
from mainspring.data.streams.model import NewMessage
from mainspring.operations.stream_endpoints.replaying import replay
from mainspring.operations.stream_endpoints.running import run, running
from mainspring.operations.stream_endpoints.sending import send
from mainspring.operations.stream_endpoints.showing import status
from mainspring.operations.streams import reports
from mainspring.processes.kinds import log_path
from mainspring.processes.streams import StreamProcesses
from mainspring.project import Project
from mainspring.serving.model import Arm
from mainspring.serving.plane.live import Router

SECRET = "between-us"
DYING = """
ms.Stream(departures, topic="departures")


def die(flight: ms.StreamEvent) -> dict:
    import os, signal

    os.kill(os.getpid(), signal.SIGKILL)


ms.StreamEndpoint(
    "dying", model="late@champion", topic="schedule", source=schedule, key="carrier", ahead="1d", rule=die, tries=99
)
"""


@pytest.fixture
def inbox() -> Iterator[HttpInbox]:
    with http_inbox() as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, inbox: HttpInbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("MAINSPRING_NOTIFY_DESK_URL", inbox.url)
    monkeypatch.setenv("MAINSPRING_NOTIFY_DESK_SECRET", SECRET)
    made = project_in(tmp_path)
    yield made
    made.close()


@pytest.fixture
def encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSPRING_ONLINE_ENCRYPTED", "true")


def process(project: Project) -> int:
    return run(project, NAME, threading.Event(), idle_s=0.3)


@pytest.mark.usefixtures("encrypted")
def test_messages_become_predictions_alerts_and_a_log_and_a_replay_gives_the_same(
    project: Project, inbox: HttpInbox
) -> None:
    now = project.wall.now()
    sent = flights(0, 12, now)
    project.streams.produce(TOPIC, [*sent, sent[3]])  # the producer was not sure about one
    assert process(project) == 13

    rows = project.lake.scan("late_scores")
    table = [row for file in rows.files or () for row in _parquet(file)]
    assert sorted(row["carrier"] for row in table) == ["DL"] * 6 + ["UA"] * 6
    logged = {row["event_id"]: project.predictions.find(row["event_id"]) for row in table}
    for row in table:
        prediction = logged[row["event_id"]]
        assert prediction.endpoint == NAME
        assert prediction.features["Carrier.flights_1h"] > 0
        assert prediction.outputs["probability"] == row["score"]
        columns = {name: [value] for name, value in prediction.features.items()}
        assert row["score"] == pytest.approx(expected(columns)[0], rel=1e-5)
    alerts = documents(project, "late-alerts")
    assert len(alerts) == 8  # of each carrier from the third flight on
    assert {each["outputs"]["flights"] for each in alerts} == {3, 4, 5, 6}
    assert [request.document for request in inbox.requests if request.document["key"] == {"carrier": "UA"}] == [
        each for each in alerts if each["key"] == {"carrier": "UA"}
    ]
    for request in inbox.requests:
        assert request.headers["idempotency-key"] == request.document["event_id"]
        stamp = request.headers["x-mainspring-timestamp"].encode()
        wanted = hmac.new(SECRET.encode(), stamp + b"." + request.body, hashlib.sha256).hexdigest()
        assert request.headers["x-mainspring-signature"] == f"sha256={wanted}"
    found = status(project, NAME)
    assert (found.total("processed"), found.total("duplicates"), found.lag) == (12, 1, 0)
    assert {entries for each in found.partitions for entries in each.waiting.values()} == {0}
    (listed,) = reports.listed(project)
    assert (listed.stream, listed.kind, listed.topic, listed.lag, listed.dead_letters) == (
        NAME,
        "endpoint",
        TOPIC,
        0,
        0,
    )
    assert [each.end for each in listed.partitions] == [each.next for each in found.partitions]

    # The store and the live version go on; what was recorded does not.
    land_departures(project, datetime.now(UTC))
    go_live(project, "2", 1.0)
    again: list[bytes] = []
    results = replay(project, NAME, emit=lambda output: again.append(output.document()))
    assert [(each.messages, each.different) for each in results if each.messages] == [
        (each.messages, []) for each in results if each.messages
    ]
    assert sum(each.messages for each in results) == 13
    assert len(again) == 12
    stored = b"".join(each.read_bytes() for each in (project.settings.state / "streams" / NAME).iterdir())
    assert (b"MSE\x02" in stored, b"probability" in stored) == (True, False)
    project.streams.produce(TOPIC, flights(12, 2, now + 120_000_000))
    process(project)
    assert {each["version"] for each in documents(project, "late-alerts")} == {"1", "2"}


def test_a_receiver_that_is_down_holds_back_itself_alone_and_gets_all_in_order(
    project: Project, inbox: HttpInbox
) -> None:
    inbox.status = 503
    project.streams.produce(TOPIC, flights(0, 12, project.wall.now()))
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(project, NAME, stop))
    thread.start()
    wait_until(lambda: len(documents(project, "late-alerts")) == 8, "alerts in the topic")
    wait_until(lambda: len(inbox.requests) >= 2, "tries of the webhook")
    inbox.status = 200
    failed = len(inbox.requests)
    wait_until(lambda: len({r.document["event_id"] for r in inbox.requests[failed:]}) == 8, "the webhook")
    stop.set()
    thread.join()
    for carrier in ("UA", "DL"):
        order = [r.document["outputs"]["flights"] for r in inbox.requests if r.document["key"]["carrier"] == carrier]
        assert order == sorted(order)
        assert sorted(set(order)) == [3, 4, 5, 6]


def test_a_refused_output_is_a_dead_letter_with_the_reason(project: Project, inbox: HttpInbox) -> None:
    inbox.status = 400
    project.streams.produce(TOPIC, flights(0, 6, project.wall.now()))
    process(project)
    rows = [row for file in project.lake.scan(f"{NAME}__dead_letters").files or () for row in _parquet(file)]
    assert len(rows) == 2
    assert {row["reason"] for row in rows} == {
        "webhook:desk: The receiver 'desk' answered 400. Fix: correct its url in the settings."
    }
    assert [each["reason"] for each in reports.dead_letters(project, NAME, 1)] == [rows[0]["reason"]]


def test_its_process_is_kept_and_a_kill_loses_nothing(project: Project) -> None:
    # Its child loads the definitions, so the model has to be there.
    project.versions.register("late", "d" * 64, "run", {}, project.wall.now())
    processes = StreamProcesses(project)
    processes.keep()
    (child,) = processes._children.values()
    project.streams.produce(TOPIC, flights(0, 6, project.wall.now()))
    wait_until(lambda: status(project, NAME).total("processed") == 6, "the process", within_s=60)
    os.kill(child.process.pid, signal.SIGKILL)
    project.streams.produce(TOPIC, flights(6, 6, project.wall.now()))
    time.sleep(0.2)

    def again() -> bool:
        processes.keep()
        return status(project, NAME).total("processed") == 12

    wait_until(again, "another process", within_s=60)
    # Two of each carrier: the second flights are between the first.
    wait_until(lambda: len(documents(project, "late-alerts")) == 6, "its alerts", within_s=60)
    processes.end()


def test_a_rollout_splits_the_keys_as_a_gateway_does_and_its_evidence_is_in_the_log(project: Project) -> None:
    arms = [replace(go_live(project, version, bias), weight=0.5) for version, bias in (("1", 0.0), ("2", 1.0))]
    (route,) = project.routes.current().values()
    routers = {str(salt): Router(NAME, arms, str(salt)) for salt in range(99)}
    picks = {
        salt: {carrier: each.pick(repr([carrier]).encode()).version for carrier in ("UA", "DL")}
        for salt, each in routers.items()
    }
    salt, versions = next((salt, of) for salt, of in picks.items() if of == {"UA": "2", "DL": "1"})
    project.routes.publish([replace(route, arms=tuple(arms), rollout="r1", salt=salt, by="carrier")])
    project.streams.produce(TOPIC, flights(0, 12, project.wall.now()))
    assert process(project) == 12
    alerts = documents(project, "late-alerts")
    assert len(alerts) == 8
    assert all(each["version"] == versions[each["key"]["carrier"]] for each in alerts)
    project.predictions.compact()
    found = project.predictions.observations("r1")
    assert found is not None
    seen = [row for batch in found.batches for row in batch.to_pylist()]
    assert Counter((row["version"], row["weight"], row["status"]) for row in seen) == {
        ("1", 0.5, 200): 6, ("2", 0.5, 200): 6,
    }  # fmt: skip
    assert len({row["unit"] for row in seen}) == 2
    again: list[bytes] = []
    project.routes.publish([replace(route, arms=(arms[1],))])  # the candidate was promoted
    assert [each.different for each in replay(project, NAME, emit=lambda each: again.append(each.document()))] == [
        [] for _ in range(len(status(project, NAME).partitions))
    ]
    assert Counter(json.loads(each)["version"] for each in again) == {"1": 6, "2": 6}
    # A candidate that cannot be loaded takes no event.
    project.routes.publish([replace(route, arms=(arms[0], Arm("3", "f" * 64, 0.5)), rollout="r2")])
    project.streams.produce(TOPIC, flights(12, 2, project.wall.now()))
    assert process(project) == 2
    assert {each.version for each in status(project, NAME).partitions} == {"1"}


@deep
def test_one_command_runs_all_streams_and_one_that_dies_stops_no_other(
    tmp_path: Path, inbox: HttpInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINSPRING_NOTIFY_DESK_URL", inbox.url)
    monkeypatch.setenv("MAINSPRING_NOTIFY_DESK_SECRET", SECRET)
    project = project_in(tmp_path, DYING)
    project.versions.register("late", "d" * 64, "run", {}, project.wall.now())
    (route,) = project.routes.current().values()
    project.routes.publish([route, replace(route, endpoint="dying")])
    project.streams.create("departures")
    project.streams.produce(TOPIC, flights(0, 12, project.wall.now()))
    command = [prefork.programs() / "mainspring", "streams", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        log = log_path(project.settings.state, "stream-dying")
        wait_until(lambda: status(project, NAME).total("processed") == 12, "one endpoint", within_s=60)
        wait_until(lambda: log.exists() and log.read_text().count("started") > 1, "the other, again", within_s=60)
        project.streams.produce("departures", [NewMessage(b'{"carrier": "AA", "departed_at": "2026-01-01T00:00:00Z"}')])
        wait_until(lambda: reports.shown(project, "departures").lag == 0, "the stream of a source", within_s=60)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "the process of the stream endpoint dying ended with -9" in said
    states = project.stream_states(NAME)
    assert {states.open(each).opened() for each in states.partitions()} == {(False, 0)}  # it was not killed
    project.routes.publish([route])
    command.append("--to-end")
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, "dying: No version is live" in ended.stderr) == (4, True)
    project.close()


def test_rows_of_a_file_are_sent_with_the_key_of_the_endpoint(project: Project) -> None:
    lines = [each.value or b"" for each in flights(0, 4, project.wall.now())]
    assert send(project, NAME, [*lines, b"", b"\n"]) == 4
    assert process(project) == 4
    assert [each.processed for each in status(project, NAME).partitions if each.processed] in ([4], [2, 2])
    with pytest.raises(Invalid, match="Line 2 is no JSON object"):
        send(project, NAME, [lines[0], b"[1]"])
    sent = [each.detail for each in project.audit.read(100) if each.action == "stream.send"]
    assert sent == ["failed: Invalid", f"4 messages to {TOPIC}"]


def test_what_cannot_run_says_why(project: Project) -> None:
    with pytest.raises(NotFound, match="no stream endpoint 'late'"):
        status(project, "late")
    project.streams.produce(TOPIC, flights(0, 2, project.wall.now()))
    process(project)
    with pytest.raises(Invalid, match=r"'5' is no place.*PARTITION:OFFSET"):
        replay(project, NAME, "5")
    project.routes.publish([])
    with (
        running(project, project.definitions.stream_endpoint(NAME)) as runner,
        pytest.raises(NotFound, match="mainspring promote late"),
    ):
        runner.step()


def _parquet(path: str) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows
