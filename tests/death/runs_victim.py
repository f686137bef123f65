"""A process that logs runs one after another until it is killed: started by test_run_search_kill.py.

`python runs_victim.py URL FOLDER WHO` prints a line once it has logged its first run.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from mainspring.core.time import SystemClock
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking


def log_runs(tracking: MlflowTracking, who: str) -> None:
    draw, clock, number = random.Random(who), SystemClock(), 0
    while True:
        run_id = tracking.start(f"model-{draw.randrange(3)}", {"who": who}, clock.now())
        tracking.log(run_id, params={"depth": str(draw.randrange(9)), "how": draw.choice(("adam", "sgd"))})
        for step in range(4):
            tracking.log(
                run_id, metrics=[("loss", draw.random(), step, clock.now()), (f"part-{number % 50}", 1.0, step, 1)]
            )
        tracking.finish(run_id, draw.choice(("FINISHED", "FAILED")), clock.now())
        if number % 5 == 4:
            tracking._store.delete_run(run_id)
        if number % 10 == 9:
            tracking._store.restore_run(run_id)
        if number == 0:
            print("logged", flush=True)
        number += 1


if __name__ == "__main__":
    log_runs(MlflowTracking(sys.argv[1], Path(sys.argv[2])), sys.argv[3])
