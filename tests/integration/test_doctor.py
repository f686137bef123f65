"""What `doctor` says of processes that a stopped project's state folder still names, and of routes to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kit.depot import Depot, opened
from mainspring.operations.doctor import examine
from mainspring.operations.endpoint_checks import waiting_for_features
from mainspring.operations.findings import Finding
from mainspring.operations.status import status
from mainspring.project import Project, open_project
from mainspring.project.ledger_folder import ledger_folder
from mainspring.project.running import Running
from mainspring.project.settings import load_settings
from mainspring.serving.model import Arm, Route

WAITS = "import sys; sys.stdin.read()"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "small"\nmodules = ["small"]\n')
    (tmp_path / "small.py").write_text("")
    return open_project(load_settings(tmp_path, environment={}))


def of_processes(project: Project, pid: int) -> Finding:
    running = Running(pid, "local", "http://127.0.0.1:1", "http://127.0.0.1:2", {"gateway": pid})
    (project.settings.state / "run.json").write_bytes(msgspec.json.encode(running))
    return next(finding for finding in examine(project) if finding.check == "processes")


def test_a_child_that_outlived_its_supervisor_is_named(project: Project) -> None:
    command = [sys.executable, "-c", WAITS, "--project", str(project.settings.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        found = of_processes(project, child.pid)
        assert child.stdin is not None
        child.stdin.close()
    assert (found.ok, found.fix) == (False, f"run `kill {child.pid}`")


def test_nobody_is_told_to_kill_the_processes_of_another_folder(project: Project, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITS, "--project", str(tmp_path / "original")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        found = of_processes(project, child.pid)
        assert child.stdin is not None
        child.stdin.close()
    assert found.ok


def test_damaged_segments_of_the_log_are_counted_with_their_folder(project: Project) -> None:
    ledger = project.settings.ledger.path
    ledger.mkdir()
    (ledger / "01x.segment").write_bytes(b"")
    found = next(finding for finding in examine(project) if finding.check == "predictions")
    assert not found.ok
    assert found.detail.startswith(f"1 damaged segments of the log are set aside in {ledger / 'damaged'}")
    assert status(project).damaged_segments == 1


def test_damaged_segments_of_a_profile_with_its_own_lake_are_named_in_its_own_folder(project: Project) -> None:
    _ = project.predictions  # the shared folder is of the first lake
    other = open_project(load_settings(project.settings.root, environment={"MAINSPRING_LAKE": "other/lake"}))
    ledger = ledger_folder(other.settings)
    (ledger / "01x.segment").write_bytes(b"")
    found = next(finding for finding in examine(other) if finding.check == "predictions")
    assert found.detail.startswith(f"1 damaged segments of the log are set aside in {ledger / 'damaged'}")


def test_an_unexpected_error_is_one_checks_failure(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Project) -> None:
        raise FileExistsError("no folder")

    monkeypatch.setattr(type(project), "versions", property(fails))
    found = {finding.check: finding for finding in examine(project)}
    assert not found["models"].ok
    assert found["models"].detail.startswith("the check failed: FileExistsError: ")
    assert found["definitions"].ok


def test_an_endpoint_that_serves_what_is_not_registered_is_named(project: Project) -> None:
    arm = Arm("3", "a" * 64)
    project.routes.publish([Route(endpoint="late", model="late", arms=(arm,), deadline_us=50_000, max_queue_rows=8)])
    found = next(finding for finding in examine(project) if finding.check == "models")
    assert not found.ok
    assert found.detail == "endpoint late serves version 3 of late, which is not registered"
    assert "tracking.db from a backup" in found.fix


def of_endpoints(project: Project) -> list[Finding]:
    return [finding for finding in examine(project) if finding.check == "endpoints"]


def test_an_endpoint_that_serves_nothing_is_named_with_what_to_do(depot: Depot) -> None:
    service = depot.root / "parcels" / "service.py"
    service.write_text(service.read_text() + '\nms.Endpoint("pinned", model="late-parcel@2")\n')
    project = opened(depot)
    try:
        [found] = of_endpoints(project)
        assert not found.ok
        assert found.detail == (
            "Endpoint 'pinned' serves no version: version 2 of 'late-parcel' has not passed its gates."
        )
        assert found.fix == "run `mainspring promote late-parcel 2`, which checks them."
        problems = {each.endpoint: each.problem for each in status(project).endpoints}
        assert problems == {"late-parcel": "", "pinned": f"{found.detail} Fix: {found.fix}"}
    finally:
        project.close()


def test_features_that_were_never_materialised_are_named(depot: Depot) -> None:
    project = opened(depot)
    try:
        [found] = of_endpoints(project)
        assert found.ok
        assert [*waiting_for_features(project)] == []
        for view in project.online.views():
            project.online.clear(view)
        [told] = waiting_for_features(project)
        assert (told.detail, told.fix) == (
            "endpoint late-parcel answers without HubLoad until the worker has computed their values",
            "run `mainspring materialize HubLoad`",
        )
        [found] = of_endpoints(project)
        assert (found.ok, found.fix) == (False, "run `mainspring materialize HubLoad`")
        assert "endpoint late-parcel reads HubLoad, which were never materialised" in found.detail
        features, model = depot.root / "parcels" / "features.py", depot.root / "parcels" / "model.py"
        for path in (features, model):
            path.write_text(path.read_text().replace("HubLoad", "Load"))
    finally:
        project.close()
    renamed = opened(depot)
    try:
        [found] = of_endpoints(renamed)
        assert "declare HubLoad and the source" in found.fix
    finally:
        renamed.close()
