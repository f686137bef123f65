"""A peer's side of bench/pipeline.py, in the peer's own environment: `peer_pipeline.py PEER SHAPE STEPS FOLDER`.

Prints `{"seconds": ...}` of a second run of a graph whose steps do nothing: a chain, or a fan-out that a step collects.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


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


def main() -> None:
    name, shape, steps, folder = sys.argv[1:]
    run = {"prefect": prefect, "dagster": dagster, "dbos": dbos}[name](shape, int(steps), Path(folder))
    if int(steps) < 500:
        run()  # imports, and tables of the state
    before = time.perf_counter()
    run()
    print(json.dumps({"seconds": time.perf_counter() - before}), flush=True)
    os._exit(0)  # without waiting for threads and servers


if __name__ == "__main__":
    main()
