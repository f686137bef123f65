"""`mainspring train` on two machines: one run and one version, as on one machine, whatever happens to one of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit import rank_depot
from kit.depot import Begun, Depot, opened
from kit.depth import deep
from kit.later import later
from kit.waiting import free_port, wait_until
from mainspring.training.loop.beats import read_beat

later("torch")
pytestmark = pytest.mark.slow
WORDS = ("train", "late-parcel", "--machines", "2", "--processes", "1", "--json")


@pytest.fixture
def machines(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> list[Depot]:
    first = rank_depot.with_network(trained[0], tmp_path / "depot")
    return [rank_depot.Machine(first.root, stores=first.state), rank_depot.other_machine(first, tmp_path / "other")]


@contextmanager
def both(machines: list[Depot], *more: str) -> Iterator[tuple[Begun, Begun]]:
    meet = ("--machine", "0", "--meet", f"127.0.0.1:{free_port()}")
    with machines[0].begun(*WORDS, *meet, *more) as one, machines[1].begun(*WORDS, "--machine", "1", *more) as other:
        yield one, other


def test_a_killed_rank_and_a_killed_machine_leave_the_version_of_one_machine(machines: list[Depot]) -> None:
    one, other = machines
    alone = one.json("train", "late-parcel")
    expected = rank_depot.weights(one)
    slow = [f"1 {step} always time.sleep(0.3)" for step in range(7, 40)]
    rank_depot.steer(other, "1 5 os.kill(os.getpid(), signal.SIGKILL)", *slow)
    with both(machines) as (first, second):
        beat = other.state / "training" / "late-parcel" / "beat-1"
        wait_until(lambda: first.ended or read_beat(beat).step >= 8, "a step after that of the first kill")
        rank_depot.steer(other, "1 1 always print('rank 1 goes on', flush=True)")
        second.process.kill()
        second.process.wait(60)
        with other.begun(*WORDS, "--machine", "1") as third:
            ran = first.end()
            assert ran.code == 0, ran
            report = json.loads(ran.stdout)
            again = third.end()
    assert again.code == 0, again
    assert json.loads(again.stdout) == report
    assert rank_depot.weights(one) == rank_depot.weights(other, 1) == expected
    assert report["metrics"] == alone["metrics"]
    killed, gone = report["notes"][-2:]
    assert killed.startswith("Rank 1 on machine 1, ")
    assert "was killed by SIGKILL" in killed
    assert gone.startswith("Rank 1 was lost with its machine 1, ")
    project = opened(one)
    run = project.tracking.search("late-parcel")[0]
    assert (run.id, run.status, run.tags["version"]) == (report["run_id"], "FINISHED", report["version"])
    assert b"rank 1 goes on" in project.tracking.artefact(run.id, "ranks/rank-1.log")
    assert not list(one.state.rglob("*.safetensors"))
    assert not list((one.state / "shared").rglob("*"))


@deep
def test_machine_0_may_die_and_come_back(machines: list[Depot]) -> None:
    one, other = machines
    one.json("train", "late-parcel")
    expected = rank_depot.weights(one)
    rank_depot.steer(other, *(f"1 {step} always time.sleep(0.3)" for step in range(7, 40)))
    with both(machines) as (first, second):
        beat = other.state / "training" / "late-parcel" / "beat-1"
        wait_until(lambda: first.ended or read_beat(beat).step >= 8, "a step after a checkpoint")
        rank_depot.steer(other)
        first.process.kill()
        first.process.wait(60)
        with one.begun(*WORDS, "--machine", "0", "--meet", f"localhost:{free_port()}") as again:
            ran = again.end()
            assert ran.code == 0, ran
            assert json.loads(second.end().stdout) == json.loads(ran.stdout)
    assert rank_depot.weights(one) == rank_depot.weights(other, 1) == expected
    resumed, killed, *_ = opened(one).tracking.search("late-parcel")
    assert (resumed.status, killed.status) == ("FINISHED", "KILLED")
    assert min(step for _, step, _ in opened(one).tracking.history(resumed.id, "loss")) > 1


def test_machines_that_would_train_other_things_are_refused_by_name(machines: list[Depot]) -> None:
    model = machines[1].root / "parcels" / "model.py"
    model.write_text(model.read_text().replace("lr=0.01", "lr=0.02"))
    with both(machines) as found:
        for each in found:
            ran = each.end(60)
            error = json.loads(ran.stdout)["error"]
            assert ran.code == 6
            assert "these differ: the file parcels/model.py" in error["what"]
    assert opened(machines[0]).tracking.search("late-parcel")[0].status == "FAILED"


def test_a_machine_that_does_not_come_is_named_and_a_signal_to_one_ends_all(machines: list[Depot]) -> None:
    meet = f"127.0.0.1:{free_port()}"
    ran = machines[0].run(*WORDS, "--machine", "0", "--meet", meet, "--wait", "1s")
    assert f"Machine 1 of 2 did not come to {meet} within 1 s." in json.loads(ran.stdout)["error"]["what"]
    for machine in machines:
        rank_depot.steer(machine, *(f"{rank} {step} time.sleep(0.2)" for rank in (0, 1) for step in range(1, 30)))
    shared = machines[0].state / "shared"
    with both(machines) as (first, second):
        wait_until(lambda: first.ended or list(shared.rglob("*.safetensors")), "a checkpoint")
        second.process.send_signal(signal.SIGTERM)
        assert (first.end(60).code, second.end(60).code) == (130, 130)
    assert list(shared.rglob("*.safetensors"))
