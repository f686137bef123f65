"""What `doctor` says of damage: each is named with its place, and none hides another."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from mainspring.data.commits import commit
from mainspring.features.model import EntityState
from mainspring.operations.doctor import examine
from mainspring.operations.findings import Finding
from mainspring.project import Project, open_project
from mainspring.project.running import Running
from mainspring.project.settings import load_settings

WAITS = "import sys; sys.stdin.read()"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "small"\nmodules = ["small"]\n')
    (tmp_path / "small.py").write_text("")
    return open_project(load_settings(tmp_path, environment={}))


def wrong(project: Project) -> dict[str, list[Finding]]:
    """Return what is not well, by check."""
    found: dict[str, list[Finding]] = {}
    for finding in examine(project):
        if not finding.ok:
            assert finding.fix
            found.setdefault(finding.check, []).append(finding)
    return found


def land(project: Project, table: str) -> Path:
    """Land a table of one file, and return its folder."""
    rows = pa.table({"value": list(range(1_000))})
    project.lake.append(table, rows.to_batches(), rows.schema, key="first")
    return project.settings.lake.path / table


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def test_damage_is_named_with_its_place(project: Project) -> None:
    tables = {name: land(project, name) for name in ("cut", "emptied", "headless", "zeros", "sound")}
    files = {name: next(folder.glob("*.parquet")) for name, folder in tables.items()}
    lengths = {name: file.stat().st_size for name, file in files.items()}
    os.truncate(files["cut"], lengths["cut"] - 10)
    os.truncate(files["emptied"], 0)
    overwrite(files["zeros"], 0, bytes(lengths["zeros"]))
    shutil.rmtree(tables["headless"] / "_delta_log")

    project.online.write("view", [(b"%06d" % number, EntityState(1, bytes(200), 1)) for number in range(2_000)])
    project.online.close()
    online = project.settings.online.path
    os.truncate(online, online.stat().st_size // 2)

    (project.settings.state / "keys").mkdir()
    pepper = project.settings.state / "keys" / "pepper"
    pepper.touch(mode=0o600)

    found = wrong(project)
    said = {finding.detail for finding in found.pop("lake")}
    assert any(f"{files['cut']} has {lengths['cut'] - 10} of {lengths['cut']} bytes" in each for each in said)
    assert any(f"{files['emptied']} has 0 of {lengths['emptied']} bytes" in each for each in said)
    assert any(f"{files['zeros']} does not end like a Parquet file" in each for each in said)
    assert any("headless" in each and "no transaction log" in each for each in said)
    assert not any("sound" in each for each in said)
    assert str(online) in found.pop("online store")[0].detail
    assert f"{pepper} has 0 bytes" in found.pop("keys")[0].detail
    assert found == {}


def test_a_table_that_the_catalog_knows_and_the_lake_lacks_is_named(project: Project) -> None:
    land(project, "orders")
    made = commit(project.lake, project.snapshots, project.wall)
    shutil.rmtree(project.settings.lake.path)
    (finding,) = wrong(project)["lake"]
    assert finding.detail.startswith(
        f"table 'orders' is missing: dataset commit {made.id} refers to version 0 of the table"
    )


def test_a_worker_that_is_stopped_or_gone_is_named(project: Project) -> None:
    def of_worker(pid: int) -> list[Finding]:
        running = Running(pid, "local", "http://127.0.0.1:1", "http://127.0.0.1:2", {"worker": pid})
        (project.settings.state / "run.json").write_bytes(msgspec.json.encode(running))
        return wrong(project).get("worker", [])

    holds = (
        "import sys; from pathlib import Path; from mainspring.core.locks import FileLocks\n"
        "with FileLocks(Path(sys.argv[1])).hold('up'):\n print('held', flush=True)\n sys.stdin.read()"
    )
    locks = str(project.settings.state / "locks")
    command = [sys.executable, "-c", holds, locks]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as up:
        assert up.stdout is not None
        assert up.stdin is not None
        up.stdout.readline()
        with subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE) as worker:
            worker.send_signal(signal.SIGSTOP)
            os.waitpid(worker.pid, os.WUNTRACED)
            (finding,) = of_worker(worker.pid)
            assert f"process {worker.pid} is stopped" in finding.detail
            assert finding.fix == f"run `kill -CONT {worker.pid}`"
            worker.kill()
            worker.wait()
            (finding,) = of_worker(worker.pid)
            assert "is not running" in finding.detail
            assert worker.stdin is not None
            worker.stdin.close()
        up.stdin.close()
