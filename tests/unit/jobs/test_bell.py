"""The bell that wakes a worker when a job is queued."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.bell import Bell, ring
from mainspring.jobs.model import Claim, Ended, NewJob, Outcome, Schedule, Status, Step, Tick
from mainspring.jobs.times import Every
from mainspring.project.catalog import memory_catalog


def test_another_process_wakes_the_worker_once(tmp_path: Path) -> None:
    with Bell(tmp_path) as bell:
        assert not bell.wait(0)
        code = "import pathlib, sys; from mainspring.jobs.bell import ring; ring(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert bell.wait(60)
        assert not bell.wait(0)
        for _ in range(100_000):  # more than a pipe holds
            ring(tmp_path)
        assert bell.wait(0)
    assert list(tmp_path.iterdir()) == []


def test_nobody_hears_it_and_a_dead_worker_left_its_pipe(tmp_path: Path) -> None:
    ring(tmp_path / "missing")
    left = Bell(tmp_path)
    left.__enter__()
    ring(tmp_path)
    with Bell(tmp_path) as bell:
        ring(tmp_path)
        assert bell.wait(0)
    left.__exit__(None, None, None)
    (tmp_path / "jobs.bell").write_text("a file")
    ring(tmp_path)
    assert (tmp_path / "jobs.bell").read_text() == "a file"


def test_where_no_pipe_can_be_made_a_worker_waits_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "jobs.bell").mkdir()
    with Bell(tmp_path) as bell:
        ring(tmp_path)
        assert not bell.wait(0.01)


def test_whatever_queues_a_job_rings(tmp_path: Path) -> None:
    store = CatalogJobs(memory_catalog(), partial(ring, tmp_path))
    beat = Schedule("beat", "count", Every(1))
    with Bell(tmp_path) as bell:
        [job] = store.enqueue([NewJob("count")], 0)
        assert bell.wait(0)
        claim = Claim("ana", {"count"}, 1_000)
        _, [lease] = store.end_and_claim([], claim, 0)
        store.end(lease, Outcome(Status.WAITING), 0)
        store.tick([Tick(beat, 1)], 1)
        assert not bell.wait(0)
        store.signal(job.id, Step("by ana", None, 1))
        assert bell.wait(0)
        store.tick([Tick(beat, 2)], 2)
        assert bell.wait(0)
        _, [lease] = store.end_and_claim([], claim, 2)
        store.end_and_claim([Ended(lease, Outcome(Status.FAILED))], None, 2)
        assert not bell.wait(0)
        store.retry([job.id], 3)
        assert bell.wait(0)
