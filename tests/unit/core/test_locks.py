import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mainspring.core.errors import Conflict
from mainspring.core.lock_conformance import LocksConformance
from mainspring.core.locks import FileLocks, Locks, MemoryLocks

HOLDER = """
import sys
from pathlib import Path
from mainspring.core.locks import FileLocks
with FileLocks(Path(sys.argv[1])).hold("ingest"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestMemoryLocks(LocksConformance):
    @pytest.fixture
    def locks(self) -> Locks:
        return MemoryLocks()

    @pytest.fixture
    def elsewhere(self, locks: Locks) -> Locks:
        return locks


class TestFileLocks(LocksConformance):
    @pytest.fixture
    def locks(self, tmp_path: Path) -> Locks:
        return FileLocks(tmp_path / "locks")

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Locks:
        return FileLocks(tmp_path / "locks")


def test_another_process_holds_it_and_is_named(tmp_path: Path) -> None:
    with (
        another_process(tmp_path) as holder,
        pytest.raises(Conflict, match=f"in use by process {holder.pid}"),
        FileLocks(tmp_path).hold("ingest", wait_s=0),
    ):
        pass


def test_a_killed_holder_frees_it_at_once(tmp_path: Path) -> None:
    with another_process(tmp_path) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with FileLocks(tmp_path).hold("ingest", wait_s=0):
            pass


def test_a_waiter_gets_a_killed_holders_lock(tmp_path: Path) -> None:
    with another_process(tmp_path) as holder:
        killer = threading.Timer(0.05, os.kill, (holder.pid, signal.SIGKILL))
        killer.start()
        with FileLocks(tmp_path).hold("ingest", wait_s=30):
            assert holder.wait() == -signal.SIGKILL
        killer.join()


def test_lock_files_are_private(tmp_path: Path) -> None:
    with FileLocks(tmp_path / "locks").hold("ingest"):
        pass
    assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "locks" / "ingest.lock").stat().st_mode & 0o777 == 0o600
