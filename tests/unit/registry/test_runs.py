"""Runs of dead processes are closed; those of the living, and of other machines, are not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.core.time import SECOND, ManualClock
from mainspring.registry import processes
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.registry.processes import BOOT, HOST, PID, STARTED, has_ended, is_dead, process_name, process_tags
from mainspring.registry.runs import DIED, PARENT, sweep

STAT = f"1 (python) R{' 1' * 18} 77"  # proc(5)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_process_is_dead_once_it_has_ended(other: subprocess.Popen[bytes]) -> None:
    tags = process_tags(other.pid)
    assert not is_dead(tags)
    other.kill()
    other.wait()
    assert is_dead(tags)


def test_a_zombie_is_dead(other: subprocess.Popen[bytes]) -> None:
    tags = process_tags(other.pid)
    other.kill()
    assert other.stdin is not None
    while not is_dead(tags):  # until the signal has arrived; it is not waited for, so its pid stays taken
        pass
    assert other.returncode is None


def test_this_process_lives() -> None:
    assert not is_dead(process_tags())


def test_a_pid_that_was_given_to_another_process_is_dead() -> None:
    assert is_dead({**process_tags(), STARTED: "1"})


def test_what_ran_before_a_restart_of_the_machine_is_dead() -> None:
    assert is_dead({**process_tags(), BOOT: "another"})


@pytest.mark.parametrize("tags", [{}, {PID: "1"}, {**process_tags(), HOST: "elsewhere", PID: "999999999"}])
def test_what_cannot_be_judged_is_taken_to_live(tags: dict[str, str]) -> None:
    assert not is_dead(tags)


@pytest.mark.parametrize("wait", [True, False])
def test_a_name_tells_whether_its_process_has_ended(wait: bool) -> None:
    script = "from mainspring.registry.processes import process_name as n; print(n(), flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert not has_ended(name)
        other.kill()
        if wait:
            other.wait()
        while not has_ended(name):  # until the signal has arrived: a zombie has ended too
            pass
    host, pid, identity, number = name.rsplit(".", 3)
    assert not has_ended(f"{host}.{pid}.0{identity[1:]}x.{number}")  # of another machine, or another container


def test_names_that_are_not_known_to_have_ended() -> None:
    name = process_name()
    host, pid, identity, number = name.rsplit(".", 3)
    place, _, started = identity.partition("-")
    assert not has_ended(name)
    assert name != process_name()
    assert has_ended(f"{host}.{pid}.{place}-1{started}.{number}")  # the pid was given to this process
    for other in ("one", "", f"{host}.{pid}.-.{number}", f"{host}.{pid}.another-{started}.{number}"):
        assert not has_ended(other)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder instead of /proc; returns the file that this process is seen by."""
    own, seen = tmp_path / f"own/{os.getpid()}", tmp_path / str(os.getpid())
    (own / "ns").mkdir(parents=True)
    (own / "ns/pid").symlink_to("pid:[1]")
    (own / "stat").write_text(STAT)
    (tmp_path / "self").symlink_to(own)
    seen.mkdir()
    (seen / "stat").write_text(STAT)
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    processes._place.cache_clear()
    yield seen / "stat"
    processes._place.cache_clear()


def test_a_process_that_is_hidden_has_not_ended(proc: Path) -> None:
    name, tags = process_name(), process_tags()
    assert "-77." in name
    proc.unlink()  # as by hidepid=2
    assert not has_ended(name)
    assert not is_dead(tags)
    proc.mkdir()  # it cannot be read, as by hidepid=1
    assert not has_ended(name)
    assert not is_dead(tags)


def test_a_process_that_does_not_know_its_start_is_not_known_to_have_ended(proc: Path) -> None:
    proc.unlink()
    name = process_name()
    assert not has_ended(name)
    proc.write_text(STAT)
    assert not has_ended(name)


def test_pids_of_another_namespace_say_nothing(proc: Path) -> None:
    own = proc.parent.parent / f"own/{os.getpid()}"
    (proc.parent.parent / "self").unlink()
    (proc.parent.parent / "self").symlink_to(own.rename(own.parent / "1"))
    name = process_name()
    proc.write_text(STAT + "8")  # another process has this pid there
    assert not has_ended(name)


def test_the_sweep_closes_only_the_dead(other: subprocess.Popen[bytes]) -> None:
    tracking, clock = MemoryTracking(), ManualClock(9 * SECOND)
    killed = tracking.start("late", process_tags(other.pid), SECOND)
    done = tracking.start("late", process_tags(other.pid), SECOND)
    tracking.finish(done, "FINISHED", 2 * SECOND)
    mine = tracking.start("fraud", process_tags(), SECOND)
    other.kill()
    other.wait()

    assert sweep(tracking, clock) == [killed]
    assert tracking.get(killed).tags[DIED] == "true"

    assert (tracking.get(killed).status, tracking.get(killed).ended_at) == ("KILLED", 9 * SECOND)
    assert (tracking.get(done).status, tracking.get(done).ended_at) == ("FINISHED", 2 * SECOND)
    assert tracking.get(mine).status == "RUNNING"
    assert sweep(tracking, clock) == []


def test_a_run_without_a_process_has_that_of_the_run_that_it_is_part_of(other: subprocess.Popen[bytes]) -> None:
    tracking = MemoryTracking()
    of_the_dead = tracking.start("late", process_tags(other.pid), SECOND)
    of_the_living = tracking.start("late", process_tags(), SECOND)
    inner = tracking.start("late", {PARENT: of_the_dead}, SECOND)
    innermost = tracking.start("late", {PARENT: inner}, SECOND)
    for parent in (of_the_living, "0" * 26, "../x"):
        tracking.start("late", {PARENT: parent}, SECOND)
    other.kill()
    other.wait()
    assert set(sweep(tracking, ManualClock(9 * SECOND))) == {of_the_dead, inner, innermost}
