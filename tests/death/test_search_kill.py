"""A search whose processes are killed: what has ended stays, what was going on is tried again, nothing runs twice."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kit.depot import MODEL, Depot, opened
from kit.depth import DEEP, examples
from kit.searching import searched, told
from kit.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TRIALS = examples(gate=4, deep=10)
# A trial goes on once it has taken the token, or once all may.
WAITING = """
while not (TOLD.parent / "all").exists():
    try:
        (TOLD.parent / "token").unlink()
        break
    except FileNotFoundError:
        time.sleep(0.02)
"""


@functools.cache
def tracking(root: Path) -> Any:
    return opened(Depot(root)).tracking


def trials(depot: Depot, status: str) -> dict[str, Any]:
    """The runs of trials that have this status."""
    found = tracking(depot.root).search(MODEL, status=status, limit=1000)
    return {run.id: run for run in found if "mainspring.trial" in run.tags}


def test_a_killed_worker_and_a_killed_search_lose_nothing_and_repeat_nothing(depot: Depot) -> None:
    searched(depot, WAITING)
    (depot.root / "token").touch()
    process = depot.start("search", MODEL, "--trials", TRIALS, "--workers", 2)
    try:
        wait_until(lambda: len(trials(depot, "FINISHED")) >= 1 and len(trials(depot, "RUNNING")) >= 1, "a trial")
        victim = next(iter(trials(depot, "RUNNING").values()))
        os.kill(int(victim.tags["mainspring.pid"]), signal.SIGKILL)
        wait_until(lambda: trials(depot, "KILLED"), "the killed worker's run to say so")
        (depot.root / "token").touch()
        wait_until(lambda: len(trials(depot, "FINISHED")) > 1, "the search to go on")
    finally:
        process.kill()
        process.communicate(timeout=90)
    workers = {each["pid"] for each in told(depot)}
    wait_until(lambda: not any(_lives(pid) for pid in workers), "the workers to go with the search")
    finished, left = trials(depot, "FINISHED"), trials(depot, "RUNNING")
    assert 1 <= len(finished) < TRIALS
    (depot.root / "all").touch()
    folder = next((depot.state / "searches" / MODEL).iterdir())

    ran = depot.run("search", MODEL, "--trials", TRIALS, "--workers", 2, "--json", timeout_s=300)
    assert ran.code == 0, ran
    found = ran.document
    assert found["resumed"]
    assert found["run_id"] == folder.name
    assert len(found["trials"]) == TRIALS
    assert set(finished) <= {trial["run_id"] for trial in found["trials"]}  # nothing that had ended was lost

    ends = [json.dumps(each["ends"], sort_keys=True) for each in told(depot) if "ends" in each]
    for run in finished:
        params = next(trial["params"] for trial in found["trials"] if trial["run_id"] == run)
        assert ends.count(json.dumps(params, sort_keys=True)) == 1, "it ran twice"
    assert not trials(depot, "RUNNING")
    killed = trials(depot, "KILLED")
    assert victim.id in killed
    assert set(left) <= set(killed)
    tried = [trial["params"] for trial in found["trials"]]
    begun = {each["run"]: each["begins"] for each in told(depot) if "begins" in each}
    assert all(begun[run] in tried for run in killed if run in begun)  # the parameters were tried again


@pytest.mark.parametrize("whole_group", [True, False] if DEEP else [True])
def test_an_interrupt_ends_a_search_at_once_and_the_same_command_goes_on(depot: Depot, whole_group: bool) -> None:
    searched(depot, WAITING)
    process = depot.start("search", MODEL, "--trials", 3, "--workers", 2, start_new_session=True)
    try:
        wait_until(lambda: len(told(depot)) >= 2, "two trials to begin")
        os.killpg(process.pid, signal.SIGINT) if whole_group else process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)  # no trial ends by itself
    finally:
        process.kill()
    assert (process.returncode, "Error: Interrupted." in said) == (130, True)
    wait_until(lambda: not any(_lives(each["pid"]) for each in told(depot)), "the workers to be gone")

    (depot.root / "all").touch()
    ran = depot.run("search", MODEL, "--trials", 3, "--workers", 2, "--json", timeout_s=300)
    assert ran.code == 0, ran
    assert ran.document["resumed"]
    begun_first = [each["begins"] for each in told(depot) if "begins" in each][:2]
    tried = [trial["params"] for trial in ran.document["trials"]]
    assert all(params in tried for params in begun_first)
    assert not trials(depot, "RUNNING")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
