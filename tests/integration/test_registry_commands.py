"""The registry's commands on a trained project, each a process, and two trainings of one model at once."""

from __future__ import annotations

import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest

from kit import prefork
from kit.depot import MODEL, Depot, copied, opened
from kit.people import known
from mainspring.core.environment import FOR_SERVING
from mainspring.core.errors import StorageFull
from mainspring.core.own_process import python_path
from mainspring.core.time import DAY
from mainspring.operations.keys import create_key
from mainspring.operations.models.transferring import export_version
from mainspring.registry.processes import local_user

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # each command is a process


def test_commands_are_forked_also_where_the_tests_have_tracked_and_trained(depot: Depot) -> None:
    opened(depot).tracking.search(limit=1)
    import_module("mainspring.operations.train")
    real = os.environ.get("MAINSPRING_TESTS_START") == "real"
    for own in ({}, FOR_SERVING, {"PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}):  # of what they start, too
        assert prefork.suits(depot.environment | own) or real, own


def test_two_trainings_of_one_model_at_once_make_two_versions(depot: Depot) -> None:
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda _: depot.json("train", MODEL), range(2)))
    assert {each["version"] for each in told} == {"3", "4"}
    project = opened(depot)
    versions = {version.version: version for version in project.versions.all(MODEL)}
    assert sorted(versions) == ["1", "2", "3", "4"]
    for each in told:
        version = versions[each["version"]]
        assert (version.digest, version.run_id) == (each["digest"], each["run_id"])
        assert project.bundles.load(version.digest).manifest.run_id == version.run_id
        run = project.tracking.get(version.run_id)
        assert (run.status, run.tags["version"]) == ("FINISHED", version.version)
    assert len({each["run_id"] for each in told}) == 2
    assert [version.version for version in versions.values() if version.aliases] == ["1"]


def test_a_promotion_that_no_gate_judged_says_so(depot: Depot) -> None:
    """A model that was renamed in the code has no gates under its old name, which nobody should overlook."""
    model = depot.root / "parcels" / "model.py"
    text = model.read_text()
    model.write_text(text.replace('gates=[ms.beats("auc", by=0.01)],', ""))
    told = depot.run("promote", MODEL, "2")
    assert (told.code, "No gate was judged: late-parcel declares no gate" in told.stdout) == (0, True), told
    model.write_text(text.replace('"late-parcel"', '"tardy-parcel"'))
    service = depot.root / "parcels" / "service.py"
    service.write_text("")
    told = depot.run("promote", MODEL, "1")
    assert (told.code, "No gate was judged: late-parcel is not declared here" in told.stdout) == (0, True), told


def test_a_version_from_its_training_to_another_installation(depot: Depot, tmp_path: Path) -> None:
    shown = depot.json("models", "show", MODEL)
    assert (shown["version"], shown["aliases"], shown["run_status"]) == ("1", ["champion"], "FINISHED")
    assert all(shown[name] for name in ("dataset_commit", "features_digest", "code_version", "authors", "metrics"))
    people = depot.run("models", "show", f"{MODEL}:2")
    assert people.code == 0
    assert shown["dataset_commit"] in people.stdout or "dataset commit" in people.stdout

    known(opened(depot), local_user(), "local:carla")
    key = tmp_path / "ben.key"
    own = tmp_path / "own.key"
    own.write_text(depot.json("keys", "create", "ben", "--scope", "manage")["key"] + "\n")
    key.write_text(create_key(opened(depot), "ben", ["manage"], DAY, created_by="local:carla") + "\n")
    strict = {"MAINSPRING_APPROVALS": "1"}
    refused = depot.run("promote", MODEL, "2", environment=strict)
    assert refused.code == 3
    assert f"mainspring models approve {MODEL}:2" in refused.stdout
    assert depot.run("models", "approve", f"{MODEL}:2").code != 0  # its author
    bypass = depot.run("models", "approve", f"{MODEL}:2", "--key-file", own)
    assert bypass.code == 9
    assert "cannot approve" in bypass.stderr
    given = depot.json("models", "approve", f"{MODEL}:2", "--key-file", key, "--reason", "I looked")
    assert given["approver"].endswith(":ben")
    taken = depot.run("models", "withdraw", f"{MODEL}:2", "--approver", given["approver"], "--reason", "not sure")
    assert taken.stdout == f"The approval of {MODEL}:2 by {given['approver']} is withdrawn.\n"
    assert depot.run("promote", MODEL, "2", environment=strict).code == 3
    again = depot.run("models", "withdraw", f"{MODEL}:2", "--key-file", key)
    assert again.code == 4
    assert f"There is no approval of {MODEL}:2 by {given['approver']} to withdraw." in again.stderr
    assert f"mainspring models show {MODEL}:2" in again.stderr
    [withdrawn] = depot.json("models", "show", f"{MODEL}:2")["withdrawn"]
    assert (withdrawn["approval"]["approver"], withdrawn["reason"]) == (given["approver"], "not sure")
    depot.json("models", "approve", f"{MODEL}:2", "--key-file", key)
    assert depot.run("promote", MODEL, "2", environment=strict).code == 0
    history = depot.json("models", "history", MODEL)
    assert [each["what"] for each in history] == ["alias", "approval", "withdrawal", "approval", "alias"]

    assert depot.run("models", "delete", f"{MODEL}:2").code == 6
    depot.json("models", "delete", f"{MODEL}:1", "--reason", "old")
    kept = depot.json("models", "gc", "--dry-run")
    assert (kept["versions"], kept["bundles"]) == ([], [])
    stays = depot.json("models", "restore", f"{MODEL}:1")
    assert stays["created_at"] == depot.json("models", "show", f"{MODEL}:1")["created_at"]
    assert depot.run("models", "gc", "--grace", "1s").code == 2

    file = tmp_path / "late.tar"
    assert depot.json("models", "export", f"{MODEL}@champion", file)["version"] == "2"
    there = copied(depot.root, tmp_path / "there")
    for path in ("bundles", "keys/signing.ed25519"):
        place = there.state / path
        place.rename(place.with_name("old"))
    for path in ("catalog.db", "tracking.db"):
        for each in there.state.glob(f"{path}*"):
            each.unlink()
    stranger = there.run("models", "import", file)
    assert stranger.code != 0
    public = depot.json("models", "key")["key"]
    assert public in stranger.stderr
    there.json("models", "trust", "staging", public)
    assert there.json("models", "import", file)["new"]
    assert there.json("models", "show", MODEL)["digest"] == depot.json("models", "show", MODEL)["digest"]
    assert there.run("promote", MODEL).code in (0, 3)


def test_an_export_to_a_full_disk_leaves_no_file(depot: Depot, tmp_path: Path) -> None:
    project = opened(depot)
    project.definitions  # noqa: B018  (what is loaded lazily is loaded before the disk is full)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = sum(len(each) for each in project.bundles.load(project.versions.get(MODEL, "1").digest).files.values())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 9 // 10, before[1]))  # more than the catalog's log has
    try:
        with pytest.raises(StorageFull, match=r"late\.tar"):
            export_version(project, f"{MODEL}:1", tmp_path / "late.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not (tmp_path / "late.tar").exists()
    assert export_version(project, f"{MODEL}:1", tmp_path / "late.tar").bundles == 1


@pytest.mark.parametrize("reference", [f"{MODEL}:x", f"{MODEL}:99", "nobody", "../etc:1", ":1", f"{MODEL}@nobody"])
def test_a_badly_named_version_is_one_line_and_a_fix(depot: Depot, reference: str) -> None:
    ran = depot.run("models", "show", reference)
    assert ran.code in (2, 4)
    assert ran.stderr.startswith("Error: ")
    assert "Traceback" not in ran.stderr
