"""A process that was silent had its chance to answer, or had none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mainspring.processes.liveness import held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the scheduler's state is in /proc")
LOTS_S = 1e9  # of processor time used before: since then there was none


@contextmanager
def running(code: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", f"print(flush=True); {code}"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def until_state(pid: int, wanted: str) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in wanted:
        os.sched_yield()


def test_one_that_is_stopped_or_waits_is_held() -> None:
    with running("import time; time.sleep(600)") as pid:
        until_state(pid, "S")
        assert held(pid, LOTS_S)
        os.kill(pid, signal.SIGSTOP)
        until_state(pid, "T")
        assert held(pid, LOTS_S)


def test_one_that_runs_is_held_where_it_had_a_second_of_the_processor() -> None:
    with running("exec('while True: pass')") as pid:
        until_state(pid, "R")
        assert held(pid, -1.0)
        assert not held(pid, LOTS_S)


def test_one_that_waits_for_another_of_its_threads_is_held_where_that_one_had_its_second() -> None:
    busy = "threading.Thread(target=exec, args=('while True: pass',))"
    with running(f"import threading; other = {busy}; other.start(); other.join()") as pid:
        until_state(pid, "S")
        assert not held(pid, LOTS_S)
        assert held(pid, -1.0)


def test_one_that_waits_for_a_disk_is_not(tmp_path: Path) -> None:
    """As for a disk, the kernel has a process wait for its child that opens a pipe before its own program begins."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    spawn = f"os.posix_spawn('/bin/true', ['true'], {{}}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, {str(pipe)!r}, 0, 0)])"
    with running(f"import os; {spawn}") as pid:
        try:
            until_state(pid, "D")
            assert not held(pid, LOTS_S)
            assert held(pid, -1.0)
        finally:
            pipe.open("wb").close()
