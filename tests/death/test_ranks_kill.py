"""kill -9 of a launcher or of any rank at any moment: no process is left, and the training ends as if undisturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from kit import prefork
from kit.depth import deep, examples
from kit.later import later
from kit.waiting import wait_until

later("torch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
VICTIM = Path(__file__).with_name("ranks_victim.py")


def launched(folder: Path, *deeds: str, real: bool = True) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = prefork.script(VICTIM, folder, *deeds, imports="torch")
    if real:  # of processes that are killed
        command = [sys.executable, str(VICTIM), str(folder), *deeds]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def trained(folder: Path) -> str:
    """Train to the end, and return the weights."""
    with launched(folder, real=False) as process:
        process.communicate(timeout=300)
    assert process.returncode == 0
    return (folder / "weights-0.json").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("undisturbed"))


def test_a_killed_launcher_leaves_no_process_and_the_next_one_goes_on(tmp_path: Path, undisturbed: str) -> None:
    for _ in range(examples(gate=1, deep=6)):
        with launched(tmp_path, "0:1:0:wait") as process:
            wait_until(lambda: (tmp_path / "checkpoints").exists() or process.poll() is not None, "a checkpoint")
            below = psutil.Process(process.pid).children(recursive=True)
            assert len(below) == 3, "an agent and two ranks"
            process.kill()
        wait_until(partial(_ended, below), "the agent and the ranks to end")
    assert trained(tmp_path) == undisturbed


@deep
def test_any_rank_may_die_at_any_time(tmp_path: Path, undisturbed: str) -> None:
    chance = random.Random(os.environ.get("DEATH_SEED"))
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        with launched(folder, "0:0:0:wait", "1:1:0:wait") as process:
            assert process.stdout is not None
            for _ in range(2):
                while "Started" not in (line := process.stdout.readline()) and line:
                    pass
                with suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0, 3))
                with suppress(psutil.NoSuchProcess, IndexError):  # all is done already
                    [agent] = psutil.Process(process.pid).children() or [None]
                    chance.choice(agent.children() if agent else []).send_signal(signal.SIGKILL)
            process.communicate(timeout=300)
        assert process.returncode == 0
        assert (folder / "weights-0.json").read_text() == (folder / "weights-1.json").read_text() == undisturbed


def _ended(processes: Sequence[psutil.Process]) -> bool:
    return not any(_runs(each) for each in processes)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
