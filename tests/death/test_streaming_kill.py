"""What death costs a stream endpoint: nothing. Its outputs, states and offsets are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kit import prefork
from kit.depth import deep, examples

VICTIM = Path(__file__).parent / "streaming_victim.py"


def victim(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(VICTIM.parents[1]), *sys.path])}
    return subprocess.Popen(
        [sys.executable, str(VICTIM), *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


def said(*arguments: str) -> list[dict[str, Any]]:
    command = prefork.script(VICTIM, *arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line != "ready"]


def undisturbed(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in ("number", "step")}


@pytest.mark.timeout(900)
def test_a_kill_at_any_step_changes_nothing(tmp_path: Path) -> None:
    """The steps: before a batch, before and behind its commit, before and behind each write of a sink."""
    folder = tmp_path / "given"
    folder.mkdir()
    said("prepare", str(folder), "7")
    chosen = random.Random(time.time_ns()).sample(range(1, 60), 2)
    chosen = examples(gate=[*map(str, chosen), "100000"], deep=[])
    trials = said("points", str(folder), *chosen)
    wanted = undisturbed(trials[-1])  # that nobody killed
    assert trials[-1]["step"] == ""
    assert wanted["dead"]
    assert sum(map(len, wanted["outputs"].values())) == len(wanted["table"]) > 40
    for found in trials:
        assert undisturbed(found) == wanted, f"after a kill at step {found['number']}, {found['step']}"
    if not chosen:
        kinds = {found["step"] for found in trials}
        assert kinds >= {"begun", "processed", "committed", "before produce", "behind produce", "before append",
                         "behind append", "delivered topic:scores", "delivered table:scored"}  # fmt: skip
        print(f"{len(trials) - 1} kills at {sorted(kinds - {''})}")


@pytest.mark.timeout(900)
def test_a_kill_of_one_of_two_processes_changes_nothing(tmp_path: Path) -> None:
    """The other takes over the partitions of the one that died, with their states, at whichever step that was."""
    folder = tmp_path / "given"
    folder.mkdir()
    said("prepare", str(folder), "11")
    (calm,) = said("points", str(folder), "100000")
    chosen = random.Random(time.time_ns()).sample(range(1, 25), examples(gate=1, deep=24))
    trials = said("shared", str(folder), *map(str, chosen), "100000")
    assert trials[-1]["step"] == ""
    for found in trials:
        assert undisturbed(found) == undisturbed(calm), f"after a kill at step {found['number']}, {found['step']}"
    print(f"kills at {sorted(found['step'] for found in trials)}")


def test_a_message_on_which_the_process_dies_is_a_dead_letter(tmp_path: Path) -> None:
    (found,) = said("deadly", str(tmp_path))
    assert found["deaths"] == 4  # once in its batch, then alone as often as it may be tried
    assert found["outputs"] == [*(f"checks-0-{n}" for n in range(20) if n != 7), "checks-1-0"]
    (dead,) = found["dead"]
    assert (dead["offset"], dead["reason"]) == ("7", "The process died 3 times while it processed this message.")


def test_what_a_candidate_fails_on_is_logged_once(tmp_path: Path) -> None:
    trials = said("candidate", str(tmp_path))
    assert {each["step"] for each in trials} >= {"before fail", "behind fail", "delivered predictions", ""}
    for found in trials:
        assert found["failures"] == [[f"checks-0-{n}@2", f"checks-0-{n}"] for n in (2, 5)], found["step"]
        assert found["predictions"] == [f"checks-0-{n}" for n in (0, 1, 3, 4)], found["step"]
    print(f"{len(trials) - 1} kills")


def test_partitions_of_a_process_that_died_here_do_not_wait_for_their_leases(tmp_path: Path) -> None:
    said("prepare", str(tmp_path), "13")
    assert said("takeover", str(tmp_path)) == [{"renewals": 1, "had": 2, "finished": True}]


@deep
@pytest.mark.timeout(900)
def test_kills_at_random_change_nothing(tmp_path: Path) -> None:
    chance = random.Random(time.time_ns())
    kills = 0
    for round_ in range(examples(gate=1, deep=12)):
        calm, wild = tmp_path / f"calm{round_}", tmp_path / f"wild{round_}"
        for folder in (calm, wild):
            folder.mkdir()
            said("prepare", str(folder), str(round_))
        (wanted,) = said("run", str(calm))
        for _ in range(examples(gate=2, deep=10)):
            process = victim("run", str(wild))
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.6))
            kills += process.poll() is None
            process.kill()
            process.communicate()
        (found,) = said("run", str(wild))
        assert found == wanted
    print(f"{kills} kills")
