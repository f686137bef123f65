"""kill -9 of a launcher or of any rank at any moment: no process is left, and the training ends as if undisturbed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from kit import prefork
from kit.depth import deep, examples, in_turns
from kit.later import later
from kit.rank_kills import LAYOUTS, VICTIM, disturbed, launched, trained
from kit.waiting import wait_until
from mainspring.training.distributed.logs import logged

later("torch")
FULL = re.compile(
    r"Rank \d of \d: No space left for /\S+/checkpoints/\S+\.safetensors\. It needs [\d,]+ bytes\. Training goes on "
    "without this checkpoint"
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def program() -> list[str]:
    """The launcher, forked from a process that has imported PyTorch."""
    return prefork.script(VICTIM, imports="torch")


@pytest.fixture(scope="module")
def undisturbed(program: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("undisturbed"), 2, "copies", program=program)[0]


def test_a_killed_launcher_leaves_no_process_and_the_next_one_goes_on(
    program: list[str], tmp_path: Path, undisturbed: str
) -> None:
    for _ in range(examples(gate=1, deep=6)):
        with launched(tmp_path, 2, "copies", "0:1:each:wait") as process:
            wait_until(lambda pid=process.pid: len(_below(pid)) == 3, "an agent and two ranks")
            wait_until((tmp_path / "checkpoints").exists, "a checkpoint")
            time.sleep(examples(gate=0.0, deep=random.uniform(0, 2)))
            below = _below(process.pid)
            process.kill()
        wait_until(partial(_ended, below), "the agent and the ranks to end")
    assert set(trained(tmp_path, 2, "copies", program=program)) == {undisturbed}


@pytest.mark.parametrize(
    ("size", "layout", "word"),
    examples(
        gate=[(2, "shards", "kill"), (3, "copies", "kill")], deep=in_turns([2, 3, 4], LAYOUTS, ["kill", "stop", "loop"])
    ),
)
def test_ranks_die_or_hang_at_each_moment(
    size: int, layout: str, word: str, program: list[str], tmp_path: Path
) -> None:
    chance = random.Random(os.environ.get("DEATH_SEED"))
    for each in disturbed(tmp_path, size, layout, word, chance, program):
        # Two between checkpoints, of which one may not be stored yet.
        assert each.steps > 10 if each.moment == "late" else each.steps <= 7, each
    if layout == "shards":
        said = logged(tmp_path / "disturbed" / "rank-0.log").decode()
        assert FULL.search(said), said


@deep
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_any_rank_may_die_or_stop_at_any_time(number: signal.Signals, tmp_path: Path, undisturbed: str) -> None:
    chance = random.Random(os.environ.get("DEATH_SEED"))
    silence_s = 30.0 if number == signal.SIGKILL else 2.0
    for place in range(examples(gate=1, deep=12)):
        folder = tmp_path / str(place)
        folder.mkdir()
        with launched(folder, 2, "copies", "0:0:each:wait", "1:1:each:wait", silence_s=silence_s) as process:
            assert process.stdout is not None
            for _ in range(2):
                while "Started" not in (line := process.stdout.readline()) and line:
                    pass
                with suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0, 3))
                with suppress(psutil.NoSuchProcess, IndexError):  # all is done already
                    [agent] = psutil.Process(process.pid).children() or [None]
                    chance.choice(agent.children() if agent else []).send_signal(number)
            process.communicate(timeout=300)
        assert process.returncode == 0
        assert (folder / "weights-0.json").read_text() == (folder / "weights-1.json").read_text() == undisturbed


def _below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def _ended(processes: Sequence[psutil.Process]) -> bool:
    return not any(_runs(each) for each in processes)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
