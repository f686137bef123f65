"""One side of bench/pipeline.py, in its own environment: `peer_pipeline.py SIDE SHAPE STEPS FOLDER`.

Runs a graph whose steps do nothing, a chain or a fan-out that a step collects, and prints the seconds and the processor
time of the second run; of the first where the graph is large.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_LARGE = 500
MODULE = """
import mainspring as ms


@ms.step
def add(number):
    return number + 1


@ms.step
def total(numbers):
    return sum(numbers)


@ms.pipeline
def chain():
    number = 0
    for _ in range({steps}):
        number = add(number)
    return number


@ms.pipeline
def wide():
    return total([add(each) for each in range({steps} - 1)])
"""


def ours(shape: str, steps: int, folder: Path) -> Callable[[], object]:
    """Run jobs as the worker of `mainspring up` does: the store on disk, steps in child processes."""
    from mainspring.jobs.model import ENDED, Status
    from mainspring.operations.jobs.work_loop import work
    from mainspring.operations.pipelines import control
    from mainspring.project import open_project
    from mainspring.project.settings import load_settings

    (folder / "steps.py").write_text(MODULE.format(steps=steps))
    (folder / "mainspring.toml").write_text('name = "bench"\nmodules = ["steps"]\n')
    project = open_project(load_settings(folder, environment={}))
    threading.Thread(target=work, args=(project, threading.Event()), daemon=True).start()

    def run() -> None:
        job = control.start(project, shape).id
        while (status := control.find_run(project, job).status) not in ENDED:
            time.sleep(0.02 if steps < _LARGE else 0.2)  # reading a large run costs milliseconds
        assert status is Status.DONE

    return run


def floor(_shape: str, steps: int, folder: Path) -> Callable[[], object]:
    """Do what a durable step in another process cannot do without: a round trip to it, and a commit to disk."""
    import sqlite3
    import subprocess

    echo = "import sys\nfor line in sys.stdin: sys.stdout.write(line); sys.stdout.flush()"
    child = subprocess.Popen([sys.executable, "-c", echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    base = sqlite3.connect(folder / "floor.db", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE steps (result TEXT)")

    def run() -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        for at in range(steps):
            child.stdin.write(b"%d\n" % at)
            child.stdin.flush()
            base.execute("INSERT INTO steps VALUES (?)", [child.stdout.readline()])

    return run


def prefect(shape: str, steps: int, folder: Path) -> Callable[[], object]:
    os.environ |= {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "DO_NOT_TRACK": "1",
    }
    from prefect import flow, task

    @task
    def add(number: int) -> int:
        return number + 1

    @task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @flow(persist_result=True)
    def run() -> int:
        if shape == "chain":
            number = 0
            for _ in range(steps):
                number = add(number)
            return number
        return total([add.submit(each) for each in range(steps - 1)])

    return run


def dagster(shape: str, steps: int, folder: Path) -> Callable[[], object]:
    os.environ["DAGSTER_HOME"] = str(folder)
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    os.environ["BENCH_SHAPE"], os.environ["BENCH_STEPS"] = shape, str(steps)
    from dagster import DagsterInstance, execute_job, reconstructable

    import peer_dagster_job

    job = reconstructable(peer_dagster_job.build)

    def run() -> object:
        with DagsterInstance.get() as instance, execute_job(job, instance=instance) as result:
            assert result.success
            return result.success

    return run


def dbos(shape: str, steps: int, folder: Path) -> Callable[[], object]:
    from dbos import DBOS

    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{folder}/dbos.db", "log_level": "ERROR"})

    @DBOS.step()
    def add(number: int) -> int:
        return number + 1

    @DBOS.step()
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @DBOS.workflow()
    def run() -> int:
        if shape == "chain":
            number = 0
            for _ in range(steps):
                number = add(number)
            return number
        return total([add(each) for each in range(steps - 1)])

    DBOS.launch()
    return run


def cpu_s() -> float:
    """Return the processor time of this process and its children, of those that live as Linux tells it."""
    spent = sum(os.times()[:4])
    for child in _children(os.getpid()):
        try:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        spent += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return spent


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    except OSError:
        return []
    return found + [child for each in found for child in _children(each)]


def main() -> None:
    name, shape, steps, folder = sys.argv[1:]
    sides = {"ours": ours, "floor": floor, "prefect": prefect, "dagster": dagster, "dbos": dbos}
    run = sides[name](shape, int(steps), Path(folder))
    if int(steps) < _LARGE and name != "dagster":  # each step of Dagster has a new process: nothing is warm
        run()  # imports, processes, and tables of the state
    spent, before = cpu_s(), time.perf_counter()
    run()
    print(json.dumps({"seconds": time.perf_counter() - before, "cpu_s": cpu_s() - spent}), flush=True)
    sys.stdin.read()  # whoever measures the memory says when
    os._exit(0)  # without waiting for threads and servers


if __name__ == "__main__":
    main()
