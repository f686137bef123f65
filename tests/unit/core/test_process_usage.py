"""Resources of the processes below one: while they run, and of those that ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kit.waiting import wait_until
from mainspring.core.process_usage import Usage, of_descendants

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


def test_a_process_that_is_not_there_has_none() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert of_descendants(child.pid) is None
