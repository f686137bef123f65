"""A runner of jobs that is killed: run by test_jobs_kill.py, not a test itself.

`jobs_victim.py CATALOG PROJECT HOLDER LOG LEASE_MS` runs what is due, again and again. What it does it appends to LOG,
a line before and a line after each step.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.time import MILLISECOND, SECOND, SystemClock
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.model import Schedule
from mainspring.jobs.runner import Backoff, JobRun, Runner
from mainspring.jobs.times import Every
from mainspring.project.catalog import open_catalog

BEAT = Schedule("beat", "beat", Every(SECOND))


def main() -> None:
    catalog, project, holder, path, lease_ms = sys.argv[1:]
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chance = random.Random()

    def say(*words: object) -> None:
        os.write(log, (" ".join(map(str, words)) + "\n").encode())

    def chain(run: JobRun) -> int:
        def act(number: int) -> Callable[[], int]:
            def do() -> int:
                say("begin", run.id, number)
                time.sleep(chance.random() * 0.05)
                if chance.random() < 0.1:
                    raise ConnectionError("the network is bad today")
                say("end", run.id, number)
                return number

            return do

        total = 0
        for number in range(run.argument["steps"]):
            total += run.step(f"step {number}", act(number))
            run.progress(number + 1, run.argument["steps"])
        return total

    clock, store = SystemClock(), CatalogJobs(open_catalog(Url(catalog), MemoryLocks(), project))
    handlers = {"chain": chain, "beat": lambda run: run.step("beat", lambda: say("begin", run.id, "beat"))}
    backoff = Backoff(10 * MILLISECOND, 50 * MILLISECOND)
    runner = Runner(store, handlers, clock, holder=holder, backoff=backoff, lease_us=int(lease_ms) * MILLISECOND)
    store.take_over(holder, clock.now())
    print("running", flush=True)
    while True:
        runner.tick([BEAT])
        if runner.run_one() is None:
            time.sleep(0.02)


if __name__ == "__main__":
    main()
