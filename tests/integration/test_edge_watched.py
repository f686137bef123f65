"""A fleet is watched: incidents of stopped rollouts and unseen devices, findings of `doctor`, metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kit.console.flights import Project
from kit.edge_packages import NAME, package
from kit.mosquitto import broker
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.time import DAY, HOUR, ManualClock
from mainspring.deploy.edge.repository import Repository
from mainspring.deploy.fleet.control import moved
from mainspring.deploy.fleet.model import Report
from mainspring.monitoring.incidents.model import Incident
from mainspring.operations.doctor import examine
from mainspring.operations.edge import fleet
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.operations.watching import watch


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    settings = replace(Project().settings, fleet=Url("mqtt://127.0.0.1:1"), state=tmp_path, root=tmp_path)
    wall = ManualClock(Project().wall.now())
    packages = Repository(tmp_path / "edge", tmp_path / "keys", MemoryLocks(), wall.now)
    made = Project(settings, packages=packages, wall=wall, clock=wall)
    for version in (1, 2):
        packages.publish(package(tmp_path / "packages", version))
    yield made
    made.close()


def seen(project: Project, id: str, ago_us: int = 0, **changed: object) -> None:
    known, at = project.fleet.device(id), project.wall.now() - ago_us
    assert known is not None
    report = Report(
        project="flights", device=id, package=NAME, version=1, state="running", revision=1, sequence=at, boot="b",
        at=at, mono_us=0,
    )  # fmt: skip
    told = known.reported(msgspec.structs.replace(report, **changed), at, kept=False)
    project.fleet.keep([told])


def open_(project: Project) -> list[Incident]:
    watch(project)
    return [each for each in project.incidents.open() if each.cause.kind == "package"]


def later(project: Project, by_us: int) -> None:
    assert isinstance(project.wall, ManualClock)
    project.wall.advance(by_us)


def test_unseen_devices_are_an_incident_until_they_are_back(project: Project) -> None:
    for number in range(2):
        fleet.register(project, f"depot-{number}", NAME, f"{number:064x}")
        seen(project, f"depot-{number}")
    assert open_(project) == []
    later(project, DAY + 2 * HOUR)
    seen(project, "depot-0")
    (found,) = open_(project)
    assert (found.cause.name, found.page) == (NAME, False)
    assert found.symptoms[0].detail == "Not seen for over 1d: depot-1."
    later(project, HOUR)
    seen(project, "depot-1")
    assert len(open_(project)) == 1, "two clean hours are missing"
    later(project, 3 * HOUR)
    assert open_(project) == []


def test_a_rollout_that_a_gate_stops_is_an_incident_and_one_that_a_person_stops_is_none(project: Project) -> None:
    fleet.register(project, "depot-0", NAME, "0" * 64)
    seen(project, "depot-0")
    fleet.start(project, NAME, 1, [1.0])
    fleet.stop(project, NAME, "the depots complain")
    assert open_(project) == []
    made = fleet.start(project, NAME, 2, [1.0])
    later(project, 1)
    seen(project, "depot-0", failed={"2": "Row 0 differs"})
    project.fleet.replace(moved(made, fleet.decision(project, made), project.wall.now()))
    (found,) = open_(project)
    assert found.page
    assert "1 of 1 devices went back from version 2" in found.symptoms[0].detail
    assert open_(project)[0].revision == found.revision, "a pass again changes nothing"


def test_doctor_names_what_expires_and_a_broker_that_does_not_answer(project: Project, tmp_path: Path) -> None:
    def told() -> list[tuple[bool, str, str]]:
        return [(each.ok, each.detail, each.fix) for each in examine(project, "fleet")]

    (away,) = told()[-1:]
    assert (away[0], "cannot be used" in away[1]) == (False, True)
    with broker(tmp_path / "broker", "flights", []) as made:
        settings = replace(project.settings, fleet=Url(made.url))
        project = project.having(settings, packages=project.packages, wall=project.wall, clock=project.wall)
        assert [each[0] for each in told()] == [True, True]
        project.broker.poll()
        before = project.broker.session
        assert told()[-1][0]
        project.broker.poll(0.2)
        assert project.broker.session == before, "the check has not thrown the worker out"
        later(project, 2 * DAY - 10 * HOUR)
        found = [each for each in told() if not each[0]]
        assert ["timestamp" in each[1] and "mainspring edge sign" in each[2] for each in found] == [True]
        (tmp_path / "keys" / "edge-root").rename(tmp_path / "elsewhere")
        later(project, 340 * DAY)
        project.packages.refresh(force=True)
        found = [each for each in told() if not each[0]]
        assert ["root" in each[1] and "fleet_root_key" in each[2] for each in found] == [True]
        project.broker.close()


def test_metrics_count_devices(project: Project) -> None:
    for number in range(3):
        fleet.register(project, f"depot-{number}", NAME, f"{number:064x}")
    seen(project, "depot-0", queue={"rows": 7, "dropped": 5})
    seen(project, "depot-1", ago_us=HOUR, failed={"2": "Row 0 differs"})
    fleet.start(project, NAME, 1, [1.0])
    text = ControlMetrics(project).text().decode()
    found = dict(re.findall(r"^mainspring_fleet_(\w+\{.*?\}) (\S+)$", text, re.M))
    of = f'package="{NAME}"'
    assert found[f'devices{{condition="healthy",{of},ring="1",version="1"}}'] == "1.0"
    assert found[f'devices{{condition="off",{of},ring="1",version="1"}}'] == "1.0"
    assert found[f'devices{{condition="never seen",{of},ring="1",version=""}}'] == "1.0"
    assert float(found[f"unseen_seconds{{{of}}}"]) == HOUR / 1e6
    assert (found[f"waiting_records{{{of}}}"], found[f"dropped_records_total{{{of}}}"]) == ("7.0", "5.0")
    assert found[f'failed_updates{{{of},version="2"}}'] == "1.0"
    assert {name for name in found if name.startswith("metadata")} == {
        f'metadata_expires_seconds{{role="{role}"}}' for role in ("root", "targets", "snapshot", "timestamp")
    }
