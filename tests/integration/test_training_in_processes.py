"""`mainspring train` in two processes: one run, one version, whatever happens to a rank."""

from __future__ import annotations

import re
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kit import rank_depot
from kit.depot import copied, opened
from kit.depth import deep
from kit.later import later
from kit.waiting import wait_until

later("torch")
pytestmark = pytest.mark.slow


def test_a_killed_rank_leaves_one_run_and_one_version(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    depot = rank_depot.with_network(trained[0], tmp_path / "depot")
    flood = "print('line\\n' * 400_000)"
    rank_depot.steer(depot, f"0 2 {flood}", "0 9 os.kill(os.getpid(), signal.SIGKILL)", "1 2 print('here')")
    report = depot.json("train", "late-parcel")
    assert report["version"] == "3"
    assert report["notes"][-1] == "Rank 0 was killed by SIGKILL; 2 processes went on from the last checkpoint."
    refused = depot.run("train", "late-parcel", "--machines", "2", "--json")
    assert (refused.code, "on this machine alone" in refused.document["error"]["what"]) == (2, True)
    project = opened(depot)
    run, before, _ = project.tracking.search("late-parcel")  # none of what was refused
    assert (run.id, run.status) == (report["run_id"], "FINISHED")
    assert before.id == trained[1]["train again"]["run_id"]
    assert (run.tags["version"], run.tags["processes"], run.tags["replaced"]) == ("3", "2", "1")
    assert b"here" in project.tracking.artefact(run.id, "ranks/rank-1.log")
    long = project.tracking.artefact(run.id, "ranks/rank-0.log")
    assert 1 << 20 <= len(long) < 2 << 20
    assert re.search(rb"\n\[\.\.\. \d{3},\d{3} lines, [\d,]+ bytes, are left out \.\.\.\]\n", long)
    steps = [step for _, step, _ in project.tracking.history(run.id, "loss")]
    assert sorted(set(steps)) == list(range(1, max(steps) + 1))
    assert rank_depot.weights(depot, 0) == rank_depot.weights(depot, 1)
    assert not list((depot.state / "training").rglob("*.safetensors"))  # of no use any more
    rank_depot.steer(depot)
    again = depot.json("reproduce", run.id)
    assert again["same"], again
    assert again["notes"] == ["trained by 2 processes, as the run was"]


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.timeout(800)
def test_ray_starts_the_processes_of_the_same_training(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    here, there = (rank_depot.with_network(trained[0], tmp_path / name) for name in ("here", "there"))
    rank_depot.steer(there, "1 9 os.kill(os.getpid(), signal.SIGKILL)")
    here.json("train", "late-parcel")
    ran = there.run("train", "late-parcel", "--runner", "ray", "--json", timeout_s=600)
    assert ran.code == 0, ran.stderr
    assert ran.document["notes"][-1] == "Rank 1 was killed by SIGKILL; 2 processes went on from the last checkpoint."
    assert rank_depot.weights(there, 0) == rank_depot.weights(there, 1) == rank_depot.weights(here, 0)
    project = opened(there)
    run = project.tracking.get(ran.document["run_id"])
    assert (run.status, run.tags["processes"], run.tags["replaced"]) == ("FINISHED", "2", "1")
    told = project.tracking.artefact(run.id, "ranks/rank-0.log").lower()
    assert b"closed by peer" in told or b"reset by peer" in told


@deep
def test_processes_that_share_no_work_say_so(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    report = copied(trained[0], tmp_path / "depot").json("train", "late-parcel", "--processes", "2")
    assert report["notes"][-1].startswith("Each of the 2 processes fitted all rows, as one would")


@deep
def test_an_error_of_one_rank_ends_the_command_and_names_it(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    depot = rank_depot.with_network(trained[0], tmp_path / "depot")
    rank_depot.steer(depot, "1 5 raise RuntimeError('no such thing')")
    ran = depot.run("train", "late-parcel", "--json")
    assert ran.code == 1
    assert "Rank 1 of 2: Training 'late-parcel' on 4 features failed at" in ran.document["error"]["what"]
    project = opened(depot)
    run = project.tracking.search("late-parcel")[0]
    assert run.status == "FAILED"
    assert "no such thing" in run.tags["mainspring.error"]
    assert b"RuntimeError: no such thing" in project.tracking.artefact(run.id, "ranks/rank-1.log")


@deep
def test_a_signal_to_the_command_ends_all_with_a_checkpoint_and_the_next_one_resumes(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    depot = rank_depot.with_network(trained[0], tmp_path / "depot")
    rank_depot.steer(depot, *(f"1 {step} time.sleep(0.3)" for step in range(1, 30)))
    checkpoints = depot.state / "training" / "late-parcel" / "checkpoints"
    with depot.begun("train", "late-parcel", "--json") as begun:
        wait_until(lambda: begun.ended or any(checkpoints.glob("*/*")), "a checkpoint")
        begun.process.send_signal(signal.SIGTERM)
        ended = begun.end()
    assert ended.code == 130
    assert "is written, where the same training resumes." in ended.document["error"]["what"]
    assert opened(depot).tracking.search("late-parcel")[0].status == "KILLED"
    rank_depot.steer(depot)
    until = opened(depot).tracking.search("late-parcel")[0].params.get("until")
    report = depot.json("train", "late-parcel", *(["--until", until] if until else []))
    steps = [step for _, step, _ in opened(depot).tracking.history(report["run_id"], "loss")]
    assert min(steps) > 2
