"""`mainspring reproduce`: nothing differs where nothing changed, and what changed is said."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from kit.depot import MODEL, Depot, copied, opened
from kit.depth import deep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a training is several processes


def git(root: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root), *arguments]
    subprocess.run(command, check=True, capture_output=True)


def change(depot: Depot, old: str, new: str) -> None:
    path = depot.root / "parcels" / "model.py"
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))


def reproduced(depot: Depot, run: str, code: int = 0) -> Any:
    ran = depot.run("reproduce", run, "--json", timeout_s=170)
    assert ran.code == code, ran
    return ran.document


@pytest.fixture(scope="module")
def newest(trained: tuple[Path, dict[str, Any]]) -> str:
    return str(trained[1]["train again"]["run_id"])


@deep
def test_of_a_project_outside_git_nothing_differs_until_its_function_changes(depot: Depot, newest: str) -> None:
    before = depot.json("runs", MODEL)
    depot.json("ingest", "posted", "posted.csv")  # data that came since does not get in
    same = reproduced(depot, newest)
    assert same["same"]
    assert same["code_same"]
    assert same["outcome"] == {
        "params": [],
        "metrics": [],
        "predictions": {
            "rows": same["outcome"]["predictions"]["rows"],
            "differing": 0,
            "largest": 0.0,
            "held_out_same": True,
            "model_same": True,
        },
    }
    assert same["outcome"]["predictions"]["rows"] > 100
    assert (same["seed"], same["environment"], same["notes"]) == ([], [], [])

    change(depot, "max_iter=10", "max_iter=3")
    differs = reproduced(depot, newest, code=3)
    assert not differs["same"]
    assert not differs["code_same"]
    assert "the files have changed since" in differs["code_why"]
    assert "holdout.auc" in {each["name"] for each in differs["outcome"]["metrics"]}
    predictions = differs["outcome"]["predictions"]
    assert predictions["differing"] > 100
    assert predictions["largest"] > 0
    assert predictions["held_out_same"]
    assert not predictions["model_same"]

    assert depot.json("runs", MODEL) == before  # and nothing was recorded or registered


def test_the_recorded_commit_and_the_difference_to_it_are_run_whatever_the_files_are_now(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "repository").mkdir()
    depot = copied(trained[0], tmp_path / "repository" / "depot")
    git(tmp_path / "repository", "init", "-q")
    git(tmp_path / "repository", "add", "depot/parcels", "depot/mainspring.toml")
    git(tmp_path / "repository", "commit", "-qm", "first")
    change(depot, "max_iter=10", "max_iter=4")
    (depot.root / "parcels" / "settings.py").write_text("LEAVES = 5\n")
    change(depot, "max_leaf_nodes=8", "max_leaf_nodes=settings.LEAVES")
    change(depot, "import mainspring as ms\n", "import mainspring as ms\nfrom parcels import settings\n")
    changed = depot.json("train", MODEL)
    git(tmp_path / "repository", "add", "depot/parcels")
    git(tmp_path / "repository", "commit", "-qm", "second")
    change(depot, "max_iter=4", "max_iter=2")

    found = reproduced(depot, changed["run_id"])
    assert (found["same"], found["code_same"]) == (True, True)
    assert found["code"].startswith("git commit ")
    assert found["code"].endswith("with code.diff")

    status = subprocess.run(
        ["git", "-C", str(depot.root), "status", "--porcelain", "parcels"], capture_output=True, text=True, check=True
    )
    assert status.stdout == " M parcels/model.py\n".replace("parcels", "depot/parcels")
    assert (tmp_path / "repository" / ".git" / "worktrees").exists() is False

    # a run whose diff is lost says so
    run = opened(depot).tracking.get(changed["run_id"])
    assert run.tags["code_version"].endswith("+changed")
    for path in depot.state.rglob("code.diff"):
        path.unlink()
    found = reproduced(depot, changed["run_id"], code=3)
    assert (found["code_same"], found["code_why"]) == (False, "no code.diff was stored")
    assert "holdout.auc" in {each["name"] for each in found["outcome"]["metrics"]}


def test_what_cannot_be_made_again_is_said(depot: Depot, newest: str) -> None:
    ran = depot.run("reproduce", "0" * 32, "--json")
    assert (ran.code, "0" * 32 in ran.stdout) == (4, True)

    change(depot, "return trees.fit", "raise ValueError('no luck')\n    return trees.fit")
    ran = depot.run("reproduce", newest, "--json", timeout_s=170)
    assert ran.code == 1
    assert "could not be reproduced" in ran.stdout
    assert "no luck" in ran.stdout

    project = opened(depot)
    failed = project.tracking.start(MODEL, {}, 1_000_000)
    project.tracking.finish(failed, "FAILED", 2_000_000)
    ran = depot.run("reproduce", failed, "--json")
    assert (ran.code, "is FAILED" in ran.stdout) == (2, True)


def test_what_the_machine_has_by_now_is_said(depot: Depot, newest: str) -> None:
    import msgspec

    project = opened(depot)
    recorded = msgspec.json.decode(project.tracking.artefact(newest, "environment.json"))
    recorded["packages"]["numpy"] = "1.0"
    recorded["packages"]["gone-since"] = "2.0"
    recorded["mainspring_files"] = "0" * 64  # of another build with the same version
    project.tracking.log_artefact(newest, "environment.json", msgspec.json.encode(recorded))
    project.tracking.log(newest, tags={"seed": "99"})
    found = reproduced(depot, newest)
    assert found["same"]
    environment = {each["name"]: (each["recorded"], each["again"]) for each in found["environment"]}
    assert environment["numpy"][0] == "1.0"
    assert environment["gone-since"] == ("2.0", None)
    assert environment["mainspring_files"][0] == "0" * 64
    assert len(environment) == 3
    assert found["seed"] == [{"name": "seed", "recorded": "99", "again": "0"}]
