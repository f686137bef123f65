"""An erasure that is killed before any of its steps is finished by the same command."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from kit import prefork
from kit.depth import DEEP
from kit.erased_shop import BEN, HOSTILE, customers, found_in, opened, planted, subject
from mainspring.operations.subjects.erasing import erase, plan

STEPS = range(16) if DEEP else (6, 10)
_VICTIM = Path(__file__).with_name("erase_victim.py")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erased")
    planted(folder).close()
    return folder


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_erasure_is_finished_by_the_next(shop: Path, tmp_path: Path, step: int) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    killed = subprocess.run(prefork.script(_VICTIM, folder, step), check=False)
    assert killed.returncode == -signal.SIGKILL
    project = opened(folder)
    erasure = erase(project, [subject(project)])
    assert erasure.receipt
    assert project.erasures.unfinished() == []
    assert found_in(folder / ".mainspring") == []
    assert plan(project, [subject(project)]).held == []
    assert customers(project) == sorted({BEN, *HOSTILE})
