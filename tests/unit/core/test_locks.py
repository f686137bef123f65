import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.locks import FileLocks, Locks, MemoryLocks

HOLDER = """
import sys
from pathlib import Path
from mainspring.core.locks import FileLocks
with FileLocks(Path(sys.argv[1])).hold("ingest"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["memory", "file"])
def locks(request: pytest.FixtureRequest, tmp_path: Path) -> Locks:
    return MemoryLocks() if request.param == "memory" else FileLocks(tmp_path / "locks")


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_has_one_holder(locks: Locks) -> None:
    with locks.hold("ingest"):
        with pytest.raises(Conflict, match="ingest is in use"), locks.hold("ingest", wait_s=0.05):
            pass
        with locks.hold("train", wait_s=0):
            pass
    with locks.hold("ingest", wait_s=0):
        pass


def test_an_error_inside_frees_the_lock(locks: Locks) -> None:
    with pytest.raises(ZeroDivisionError), locks.hold("ingest"):
        raise ZeroDivisionError
    with locks.hold("ingest", wait_s=0):
        pass


def test_who_waits_gets_it(locks: Locks) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with locks.hold("ingest", wait_s=30):
            order.append("second")

    thread = threading.Thread(target=second)
    with locks.hold("ingest"):
        thread.start()
        waiting.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_is_no_path(locks: Locks) -> None:
    with pytest.raises(Invalid, match="cannot name a lock"), locks.hold("../ingest"):
        pass


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
