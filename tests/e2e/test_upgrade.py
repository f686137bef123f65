"""A project that version 0.1.0 left is opened by this version: everything is there, and it answers as before."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kit.depot import MODEL, Depot
from kit.depth import deep
from mainspring.cli import exits
from mainspring.core.errors import Conflict
from mainspring.project import open_project
from mainspring.project.catalog import HEAD, version
from mainspring.project.settings import load_settings

DUMPS = Path(__file__).parents[1] / "dumps"
ROOT = Path(__file__).parents[2]


class Former:
    """A project of an earlier version, and the requests that it answered.

    Attributes:
        answers: Requests with the answers of that version, of which two were killed with its processes.
    """

    def __init__(self, root: Path, name: str) -> None:
        with tarfile.open(DUMPS / f"{name}.tar.xz") as archive:
            archive.extractall(root, filter="data")
        shutil.rmtree(root / "parcels" / "__pycache__", ignore_errors=True)
        for path in root.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        self.depot = Depot(root)
        said = json.loads((root / "answers.json").read_bytes())
        self.key: str = said["key"]
        self.answers: list[dict[str, Any]] = said["answers"]


@pytest.fixture
def former(tmp_path: Path) -> Former:
    return Former(tmp_path / "depot", "0.1.0")


def test_a_project_of_0_1_0_is_whole_and_answers_as_before(former: Former) -> None:
    depot = former.depot
    doctor = depot.json("materialize") and depot.run("doctor", "--json")
    assert (doctor.code, [each for each in doctor.document["findings"] if not each["ok"]]) == (exits.OK, [])
    with depot.up() as up:
        up.until_serving()
        now = [up.ask("POST", f"/v2/models/{MODEL}/infer", each["body"], key=former.key) for each in former.answers]
    assert [each.body["outputs"] for each in now] == [each["answer"]["outputs"] for each in former.answers]

    before = [each["answer"]["parameters"]["prediction_ids"][0] for each in former.answers]
    found = {each["id"]: each for each in depot.json("predictions", "list")["predictions"]}
    assert {*before} <= {*found}, "also those of the segment whose writer was killed"
    assert len(found) == len(before) + len(now)
    for id_, each in zip(before, former.answers, strict=True):
        assert list(found[id_]["outputs"].values()) == each["answer"]["outputs"][0]["data"]
    assert depot.run("audit", "verify").code == exits.OK
    assert [each["detail"] for each in depot.json("models", "history", MODEL)] == ["champion: nothing -> version 1"]
    assert [each["parcel"] for each in depot.json("data", "quarantine", "posted")] == ["heavy"]
    assert depot.json("train", MODEL)["version"] == "3"


def test_the_catalog_of_0_1_0_is_migrated(former: Former) -> None:
    project = open_project(load_settings(former.depot.root, environment={}))
    assert version(project.engine) == HEAD
    assert [each.name for each in project.key_store.all()] == ["asks"]
    tagged = project.snapshots.get("first")
    assert {table: len(project.lake.scan(table, at).files or ()) for table, at in tagged.versions.items()} == {
        "deliveries": 1, "posted": 1, "posted__quarantine": 1, "scans": 1,
    }  # fmt: skip
    project.close()


def test_a_downgrade_says_what_to_do_and_changes_nothing(former: Former) -> None:
    project = open_project(load_settings(former.depot.root, environment={}))
    with project.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    project.close()
    before = (former.depot.state / "catalog.db").read_bytes()
    ran = former.depot.run("status")
    assert ran.code == exits.exit_code(Conflict(""))
    assert "has the schema 9999" in ran.stderr
    assert "or restore the copy from before the upgrade" in " ".join(ran.stderr.split())
    assert (former.depot.state / "catalog.db").read_bytes() == before


@deep
def test_0_1_0_itself_refuses_what_this_version_migrated(former: Former, tmp_path: Path) -> None:
    sys.path.insert(0, str(DUMPS))
    try:
        import make_0_1_0 as script
    finally:
        sys.path.remove(str(DUMPS))
    archive = subprocess.run(["git", "archive", script.COMMIT, "src"], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip("a clone without its history")
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive.stdout, check=True)
    former.depot.json("status")
    ran = former.depot.run("status", environment={"PYTHONPATH": str(tmp_path / "src")})
    assert (ran.code, "install the version of mainspring that wrote it" in ran.stderr) == (6, True)
