"""kill -9 of the worker while a step runs elsewhere: a Kubernetes Job is followed, and a task of Ray or Spark ends with
the worker and is done once more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kit.cluster import TOKEN, Cluster
from kit.depth import deep
from kit.engines import python_of
from kit.waiting import wait_until
from mainspring.jobs.model import Status
from mainspring.operations.pipelines import control
from mainspring.project import open_project
from mainspring.project.settings import load_settings

VICTIM = Path(__file__).parent / "pipelines_victim.py"
FLOWS = """
import fcntl
import time
from pathlib import Path

import mainspring as ms

HERE = Path(__file__).parent


def note(word):
    with (HERE / "notes").open("a") as notes:
        notes.write(word + "\\n")


def work(_=None):
    with (HERE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("two at once")
        note("begun")
        while (HERE / "hold").exists():
            time.sleep(0.02)
        note("done")


@ms.step(engine="kubernetes")
def in_pod():
    work()
    return 7


@ms.step(engine="ray")
def in_task():
    work()
    return 7


@ms.step(engine="spark")
def in_job(spark):
    spark.sparkContext.parallelize([1], 1).foreach(work)
    return 7


@ms.pipeline
def on_kubernetes():
    return in_pod()


@ms.pipeline
def on_ray():
    return in_task()


@ms.pipeline
def on_spark():
    return in_job()
"""


@contextmanager
def settings_of(engine: str, root: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the settings of a profile, and the requests to Kubernetes so far."""
    if engine != "kubernetes":
        yield '[profiles.local]\nspark = "local[2]"\n', []
        return
    with closing(Cluster(root)) as cluster:
        (root / "kubeconfig").write_text(
            f"current-context: here\ncontexts: [{{name: here, context: {{cluster: one, user: ana}}}}]\n"
            f"clusters: [{{name: one, cluster: {{server: '{cluster.url}'}}}}]\n"
            f"users: [{{name: ana, user: {{token: {TOKEN}}}}}]\n"
        )
        text = f'[profiles.local.kubernetes]\nimage = "shop:1"\nfolder = "{root}"\nconfig = "{root / "kubeconfig"}"\n'
        yield text, cluster.asked
        assert not cluster.pods, "Jobs are left"


@deep
@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize(
    ("engine", "ends_alone"), [("kubernetes", False), ("kubernetes", True), ("ray", False), ("spark", False)]
)
def test_a_step_elsewhere_whose_worker_is_killed_is_done_once(engine: str, ends_alone: bool, tmp_path: Path) -> None:
    python = sys.executable if engine == "kubernetes" else str(python_of(engine))
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "hold").touch()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(VICTIM.parents[1]), *sys.path])}

    def worker() -> subprocess.Popen[bytes]:
        command = [python, str(VICTIM), str(tmp_path), "-", "-", "0"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    def notes() -> list[str]:
        return (tmp_path / "notes").read_text().splitlines() if (tmp_path / "notes").exists() else []

    with settings_of(engine, tmp_path) as (text, requests):
        (tmp_path / "mainspring.toml").write_text(f'name = "shop"\nmodules = ["flows"]\n{text}')
        with closing(open_project(load_settings(tmp_path, environment={}))) as project:
            run = control.start(project, f"on-{engine}").id
            first = worker()
            wait_until(lambda: notes() == ["begun"], "the step to begin", within_s=300)
            first.kill()
            first.wait()
            before = len(requests)
            if ends_alone:
                (tmp_path / "hold").unlink()
                wait_until(lambda: notes() == ["begun", "done"], "the step to end", within_s=300)
            second = worker()
            try:
                if not ends_alone:
                    follows = (lambda: len(requests) > before + 1) if requests else (lambda: len(notes()) >= 2)
                    wait_until(follows, "the second worker to go on with the step", within_s=300)
                    (tmp_path / "hold").unlink()
                assert second.wait(timeout=300) == 0
            finally:
                second.kill()
                second.wait()
            found = control.state(project, run)
    assert (found.job.status, found.job.result) == (Status.DONE, 7)
    assert notes() == (["begun", "done"] if engine == "kubernetes" else ["begun", "begun", "done"])
