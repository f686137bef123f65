"""kill -9 of runners at random moments: every job finishes, none is lost, and no finished step is done again."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from kit.depot import Depot, lay_out
from kit.depth import deep, examples
from kit.waiting import wait_until
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.time import SECOND, SystemClock
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.model import NewJob, Status
from mainspring.project.catalog import open_catalog

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("DEATH_SEED") or random.randrange(1_000_000))
VICTIM = Path(__file__).parent / "jobs_victim.py"
JOBS, STEPS, KILLS = examples(gate=8, deep=20), 8, examples(gate=3, deep=8)


class Scene:
    """A store of jobs, and runners that come and go."""

    def __init__(self, catalog: Url, project: str, folder: Path) -> None:
        self.catalog, self.project, self.log = catalog, project, folder / "log"
        self.log.touch()
        self.engine: sa.Engine = open_catalog(catalog, MemoryLocks(), project)
        self.store = CatalogJobs(self.engine)
        self.finished: dict[tuple[str, str], int] = {}  # step -> how much of the log there was when it was known

    def start(self, holder: str, lease_ms: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(VICTIM), self.catalog.text, self.project, holder, str(self.log), str(lease_ms)]
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        return process

    def look(self, jobs: list[str]) -> None:
        """Remember which steps are finished."""
        for job in jobs:
            for step in self.store.steps(job):
                self.finished.setdefault((job, step.name.removeprefix("step ")), self.log.stat().st_size)

    def begun(self) -> list[tuple[int, str, str]]:
        """Return where in the log which job began which step."""
        at, found = 0, []
        for line in self.log.read_text().splitlines(keepends=True):
            word, job, step = line.split()
            if word == "begin":
                found.append((at, job, step))
            at += len(line)
        return found

    def ended(self) -> list[tuple[str, str]]:
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [(job, step) for word, job, step in lines if word == "end"]


@pytest.fixture(params=["sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    if request.param == "sqlite":
        made = Scene(Url(f"sqlite:///{tmp_path}/catalog.db"), "", tmp_path)
    else:
        made = Scene(request.getfixturevalue("postgres_server").url, f"p{secrets.token_hex(6)}", tmp_path)
    yield made
    made.engine.dispose()


@contextmanager
def ending(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("runners", examples(gate=[2], deep=[1, 2]))
def test_killed_at_any_moment_every_job_finishes_and_no_finished_step_is_done_again(scene: Scene, runners: int) -> None:
    print(f"DEATH_SEED={SEED}")
    chance, clock = random.Random(f"{SEED} {runners}"), SystemClock()
    # A kill is an attempt; here there are more of them at one step than anybody would bear.
    wanted = [NewJob("chain", {"steps": STEPS}, f"k{number}", attempts=1_000) for number in range(JOBS * runners)]
    jobs = [job.id for job in scene.store.enqueue(wanted, clock.now())]
    lease_ms = 60_000 if runners == 1 else 700  # alone it takes over its predecessor's; else they wait for the lease
    processes = [scene.start(f"h{number}", lease_ms) for number in range(runners)]
    with ending(processes):
        caught = kills = 0
        while kills < KILLS or caught < 2:
            kills += 1
            more = len(scene.ended()) + chance.randrange(8)
            wait_until(lambda more=more: len(scene.ended()) >= more, "steps to end")
            time.sleep(chance.random() * 0.05)
            victim = chance.randrange(runners)
            processes[victim].send_signal(signal.SIGKILL)
            processes[victim].communicate()
            caught += any(job.holder == f"h{victim}" for job in scene.store.find(statuses={Status.RUNNING}))
            scene.look(jobs)
            processes[victim] = scene.start(f"h{victim}", lease_ms)
        again = scene.store.enqueue(wanted, clock.now())
        assert [job.id for job in again] == jobs
        wait_until(lambda: all(job and job.status is Status.DONE for job in scene.store.get(jobs)), "every job's end")
        wait_until(lambda: len(scene.store.find(handlers={"beat"})) > 2, "the schedule's jobs")
    scene.look(jobs)

    steps = {(job, str(number)) for job in jobs for number in range(STEPS)}
    assert set(scene.finished) == steps
    assert [job.result for job in scene.store.get(jobs) if job] == [sum(range(STEPS))] * JOBS * runners
    assert {job.progress.done for job in scene.store.get(jobs) if job and job.progress} == {STEPS}
    begun = scene.begun()
    assert [(job, step) for at, job, step in begun if step != "beat" and at >= scene.finished[job, step]] == []
    # Of what was done to its end, a kill can have come before the record of one step only.
    ends = Counter(scene.ended())
    assert set(ends) == steps
    assert sum(ends.values()) - len(steps) <= kills
    beats = [job.enqueued_at // SECOND for job in scene.store.find(handlers={"beat"}, limit=1_000)]
    assert len(beats) == len(set(beats))


@deep
def test_the_worker_of_an_up_is_killed_and_its_jobs_go_on(tmp_path: Path) -> None:
    depot = lay_out(tmp_path / "depot")
    toml = depot.root / "mainspring.toml"
    toml.write_text(toml.read_text() + '\n[profiles.local.schedules]\ncollect-garbage = "1s"\n')
    depot.ingest_all()
    chance = random.Random(SEED)
    with depot.up(real=True) as up:
        ids = [depot.json("jobs", "run", "materialise", json.dumps({"rebuild": True}))["id"] for _ in range(4)]
        for _ in range(examples(gate=2, deep=4)):
            time.sleep(chance.random())
            pid = up.running["children"]["worker"]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: up.running["children"]["worker"] != pid, "a new worker")
        wait_until(lambda: all(status(depot, id) == "done" for id in ids), "every job's end")
        wait_until(lambda: depot.json("jobs", "list", "--job", "collect-garbage", "--status", "done"), "a collection")
    assert depot.json("jobs", "list", "--status", "failed") == []


def status(depot: Depot, id: str) -> str:
    return str(depot.json("jobs", "show", id)["status"])
