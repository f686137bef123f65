"""kill -9 of a training at random moments: no metric whose flush returned is lost, and the run ends as KILLED."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from death.run_victim import tracking_in, value
from kit import prefork
from kit.depth import examples
from mainspring.core.time import SystemClock
from mainspring.registry.runs import NAME, PARENT, sweep

TESTS = Path(__file__).parents[1]
KILLS = examples(gate=2, deep=10)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_flushed_survives_and_the_run_is_killed(tmp_path: Path) -> None:
    moments = random.Random(os.environ.get("DEATH_SEED"))
    seeds = [str(2 * moments.randrange(2**30) + number % 2) for number in range(KILLS)]
    done = subprocess.run(
        prefork.script(TESTS / "death" / "run_victim.py", tmp_path, *seeds),
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    died = [line.split() for line in done.stdout.splitlines()]
    assert [code for _, _, code in died] == ["-9"] * KILLS, done.stderr
    assert sum(int(steps) for _, steps, _ in died) > 0, "no flush returned before the kill: nothing was tested"

    tracking = tracking_in(tmp_path)
    children = {run.tags[PARENT]: run for run in tracking.search(limit=100) if PARENT in run.tags}
    for run_id, flushed, _ in died:
        for metric, sign in (("loss", 1), ("other", -1)):
            history = tracking.history(run_id, metric)
            # all that was flushed, and of what came after it nothing out of its order
            assert len(history) >= int(flushed)
            assert [(kept, step) for kept, step, _ in history] == [(sign * value(n), n) for n in range(len(history))]
            if history:
                assert tracking.get(run_id).metrics[metric] == history[-1][0]
        assert len(tracking.history(run_id, "loss")) == len(
            tracking.history(run_id, "other")
        )  # of one word all or none
        if int(flushed):
            child = children[run_id]
            assert child.tags[NAME] == "part"
            assert len(tracking.history(child.id, "loss")) >= int(flushed)

    running = {run.id for run in tracking.search(status="RUNNING", limit=100)}
    assert {run_id for run_id, _, _ in died} <= running
    assert set(sweep(tracking, SystemClock())) == running
    assert {run.status for run in tracking.search(limit=100)} == {"KILLED"}
