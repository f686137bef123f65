"""The page of the fleet, the page of a device, and their API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kit.console.client import Client
from kit.console.flights import Project
from kit.edge_packages import NAME, package
from mainspring.console.app import create_app
from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.deploy.edge.repository import Repository
from mainspring.deploy.fleet.model import QueueDepth, Report
from mainspring.operations.edge import fleet
from mainspring.operations.edge.publishing import publish, setup_of
from mainspring.security.signing import SigningKey

PROJECT_KEY = SigningKey(bytes(32))
ADDRESSES = {"repository": "https://r.example.org", "broker": "mqtts://b.example.org", "control": ""}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    now = Project().wall.now()
    made = Project(packages=Repository(tmp_path / "repository", tmp_path / "keys", MemoryLocks(), lambda: now))
    publish(made, package(tmp_path, 1, key=PROJECT_KEY))
    publish(made, package(tmp_path, 2, key=PROJECT_KEY))
    yield made
    made.close()


def report(device: str, **changed: object) -> Report:
    made = Report(
        project="flights", device=device, package=NAME, version=1, state="running", revision=1, sequence=1, boot="b",
        at=0, mono_us=0, rows=120, errors=3, p99_us=4200, queue=QueueDepth(rows=7, size_bytes=70, dropped=5),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changed)


def populate(project: Project) -> None:
    now = project.wall.now()
    for number, id in enumerate(("depot-1", "depot-2", "depot-3", "<depot>")[:3]):
        made = fleet.register(project, id, NAME, f"{number:064x}")
        changed = {"failed": {"2": "Row 0 <b>differs</b>"}} if number == 1 else {}
        at = now if number != 2 else now - 3_600_000_000
        seen = made.reported(report(id, at=at + 7_200_000_000 * (number == 0), **changed), at, kept=False)
        project.fleet.keep([msgspec.structs.replace(seen, wanted=2 if number == 1 else 1)])
    project.fleet.refuse({("stranger", "unknown device"): 4}, now)


def test_the_page_shows_devices_versions_health_and_last_seen(project: Project) -> None:
    client = Client(create_app(project), project.key())
    assert "No devices yet" in client.page("/fleet").text
    populate(project)
    fleet.start(project, NAME, 2)
    text = client.page("/fleet").text
    for shown in (
        "depot-1",
        "Failing",
        "Off",
        "stranger",
        "unknown device",
        "its clock is",
        "ahead",
        "1 of 3",
        "5 dropped",
    ):
        assert shown in text, shown
    assert text.index("depot-2") < text.index("depot-3") < text.index("depot-1"), "those that need a person first"
    only = client.page("/fleet?condition=off").text
    assert "depot-3" in only
    assert "/fleet/depot-1" not in only
    one = client.page("/fleet/depot-2").text
    assert "Row 0 &lt;b&gt;differs&lt;/b&gt;" in one
    assert client.page("/fleet/nobody").status_code == 404


def test_the_api_has_what_the_page_has(project: Project) -> None:
    client = Client(create_app(project), project.key())
    populate(project)
    found = client.get("/api/edge/fleet").json()["fleet"]
    assert (found["devices"], found["conditions"]) == (3, {"healthy": 1, "failing": 1, "off": 1})
    assert found["versions"] == {f"{NAME} 1": 3}
    assert [each["id"] for each in client.get("/api/edge/devices?condition=failing").json()["devices"]] == ["depot-2"]
    assert client.get("/api/edge/devices/depot-1").json()["device"]["clock_ahead_us"] == 7_200_000_000
    refused = client("POST", "/api/edge/records/depot-1", content=b"{}")
    assert refused.status_code in (401, 403)


def test_bad_input_is_refused_with_a_fix(project: Project, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="it is of another project"):
        publish(project, package(tmp_path, 3, key=SigningKey(b"o" * 32)))
    changed = package(tmp_path, 4, key=PROJECT_KEY)
    (changed / "model.onnx").write_bytes(b"other")
    with pytest.raises(Corrupt, match="is not the file that was signed"):
        publish(project, changed)
    with pytest.raises(Invalid, match="is no package"):
        publish(project, tmp_path)
    with pytest.raises(NotFound, match="No device of"):
        fleet.start(project, NAME, 2)
    populate(project)
    with pytest.raises(Conflict, match="Device 'depot-1' is registered"):
        fleet.register(project, "depot-1", NAME, "f" * 64)
    with pytest.raises(Conflict, match="is that of device 'depot-1': was its disk copied"):
        fleet.register(project, "depot-9", NAME, f"{0:064x}")
    for id, key in (("../x", "f" * 64), ("depot-8", "zz")):
        with pytest.raises(Invalid):
            fleet.register(project, id, NAME, key)
    with pytest.raises(NotFound, match="Version 9 of 'late-arrival' is not published"):
        fleet.start(project, NAME, 9)
    with pytest.raises(Invalid, match="The rings are"):
        fleet.start(project, NAME, 2, rings=[0.5])
    fleet.start(project, NAME, 2)
    with pytest.raises(Conflict, match="A rollout of 'late-arrival' is running"):
        fleet.start(project, NAME, 1)
    stopped = fleet.stop(project, NAME, "the depots complain")
    assert (stopped.status, stopped.current) == ("stopped", None)
    with pytest.raises(NotFound, match="No rollout"):
        fleet.stop(project, NAME)
    with pytest.raises(NotFound, match="There is no device 'nobody'"):
        fleet.remove(project, "nobody")
    with pytest.raises(Invalid, match="The address of the repository is 'http://r"):
        setup_of(project, "depot-1", NAME, **{**ADDRESSES, "repository": "http://r.example.org"})
    with pytest.raises(NotFound, match="No version of 'other' is published"):
        setup_of(project, "depot-1", "other", **ADDRESSES)
    assert setup_of(project, "depot-1", NAME, **ADDRESSES).key == PROJECT_KEY.public.hex()
