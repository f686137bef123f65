"""A process that logs metrics into a run and is killed: run by test_run_kill.py, not a test itself.

`python run_victim.py STATE SEED...` logs once for each SEED in a forked child, which dies by SIGKILL at a random time:
for an odd SEED so long after its first flush, else after its start. After each flush that
returned, the child writes how many steps it had logged into the pipe to its parent, which prints `RUN_ID STEPS` of the
last. All that is slow to import is imported once, before the first fork.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path

from mainspring.core.time import SystemClock
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.processes import process_tags
from mainspring.training.runs.run import Run


def tracking_in(state: Path) -> MlflowTracking:
    return MlflowTracking(f"sqlite:///{state / 'tracking.db'}", state / "runs")


def value(step: int) -> float:
    return 1.0 / (step + 1)


def log(state: Path, seed: int, told: int) -> None:
    chance = random.Random(seed)
    clock, tracking = SystemClock(), tracking_in(state)
    run_id = tracking.start("late", process_tags(), clock.now())
    os.write(told, f"{run_id} 0\n".encode())
    run = Run(tracking, run_id, clock, seed=0, flush_every_s=0.02, system_every_s=0.05)
    with run, run.nested("part") as part:
        killer = threading.Timer(chance.uniform(0.0, 0.5), lambda: os.kill(os.getpid(), signal.SIGKILL))
        if seed % 2 == 0:
            killer.start()
        step = 0
        while True:
            for _ in range(chance.randrange(1, 400)):
                run.log_metrics({"loss": value(step), "other": -value(step)}, step)
                part.log_metric("loss", value(step), step)
                step += 1
            run.flush()
            part.flush()
            os.write(told, f"{run_id} {step}\n".encode())
            if not killer.is_alive():
                killer.start()


def main() -> None:
    state, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]]
    for module in ("mlflow.store.tracking.sqlalchemy_store", "mlflow.tracking.fluent"):
        import_module(module)
    tracking_in(state).close()
    for seed in seeds:
        read, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            log(state, seed, told)
            os._exit(1)
        os.close(told)
        with os.fdopen(read) as lines:
            (*_, last) = [line.strip() for line in lines if line.endswith("\n")]
        _, status = os.waitpid(child, 0)
        print(last, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
