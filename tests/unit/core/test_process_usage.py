"""Resources of the processes below one: while they run, and of those that ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit.waiting import wait_until
from mainspring.core.process_usage import Usage, gpus, of_descendants, open_gpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
BUSY = "sum(range(60_000_000)); input()"


@contextmanager
def grandchild() -> Iterator[None]:
    """Keep a shell and a busy process below it inside the block."""
    command = ["sh", "-c", '"$0" -S -c "$1"; exit 0', sys.executable, BUSY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        try:
            yield
        finally:
            child.communicate(b"\n")


def usage() -> Usage:
    found = of_descendants(os.getpid())
    assert found is not None
    return found


def test_a_process_below_counts_while_it_runs_and_its_time_after_it() -> None:
    before = usage()
    with grandchild():
        wait_until(lambda: usage().cpu_s > before.cpu_s + 0.05, "the grandchild to work")
        during = usage()
        assert during.processes == before.processes + 2
        assert during.resident_bytes > before.resident_bytes + 1_000_000
    after = usage()
    assert after.processes == before.processes
    assert after.cpu_s >= during.cpu_s


def test_gpus_are_those_whose_files_are_open_in_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus() == set() or Path("/dev/nvidia0").exists()
    monkeypatch.setattr("mainspring.core.process_usage._DEV", tmp_path)
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus() == {0, 1, 12}
    assert open_gpus(os.getpid()) == set()
    command = ["sh", "-c", 'exec 3<"$0/nvidia1" 4<"$0/nvidiactl"; read wait', str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child, (tmp_path / "nvidia12").open():
        wait_until(lambda: open_gpus(os.getpid()) == {1, 12}, "the child to open its files")
        assert open_gpus(child.pid) == {1}
        child.communicate(b"\n")


def test_a_process_that_is_not_there_has_none() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert of_descendants(child.pid) is None
