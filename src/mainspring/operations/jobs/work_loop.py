"""The worker's thread that queues and runs due jobs, beside the worker's duties."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mainspring.core.errors import Conflict, MainspringError
from mainspring.core.files import write_atomic
from mainspring.core.ids import new_id
from mainspring.jobs.model import Job, Lease
from mainspring.jobs.runner import Runner
from mainspring.operations.jobs.children import Children
from mainspring.operations.jobs.handlers import handlers
from mainspring.project import Project
from mainspring.project.schedules import schedules_of

log = logging.getLogger("mainspring")
LOCK = "jobs"
_LOOK_S = 1.0  # interval of checks for due jobs
_LONGEST_S = 60.0
_DOUBLINGS = 16  # maximum wait after a failure
_END_S = 5.0


@contextmanager
def working(project: Project, stop: threading.Event) -> Iterator[None]:
    """Run jobs inside the block, in a thread that ends on `stop` once its job has finished a step."""
    _ = project.jobs  # built here, before two threads would build it
    thread = threading.Thread(target=work, args=(project, stop), name="jobs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END_S)  # the next worker takes over running jobs


def work(project: Project, stop: threading.Event) -> None:
    """Queue and run jobs until `stop` is set, `jobs_at_once` of them in threads.

    The lock proves that the previous worker of this state folder is dead, so its jobs continue at once.
    """
    at_once = project.settings.jobs_at_once
    ended, busy = threading.Event(), set[Future[Job]]()
    schedules, failures = schedules_of(project.settings), 0
    taken_over = False
    with (
        _alone(project, stop),
        closing(Children(project.settings)) as children,
        ThreadPoolExecutor(at_once, thread_name_prefix="job") as threads,
    ):
        runner = Runner(
            project.jobs,
            handlers(project, children),
            project.wall,
            holder=holder(project.settings.state),
            stopping=stop.is_set,
        )
        while not stop.is_set():
            ended.clear()
            busy = {each for each in busy if not each.done()}
            leases: list[Lease] = []
            try:
                if not taken_over:
                    project.jobs.take_over(holder(project.settings.state), project.wall.now())
                    taken_over = True
                runner.tick(schedules)
                if len(busy) < at_once:
                    leases = runner.claim(at_once - len(busy))
                failures = 0
            except MainspringError as error:
                failures += 1
                log.warning("jobs: %s", error)
            except Exception:
                failures += 1
                log.exception("jobs failed")
            for lease in leases:
                future = threads.submit(_run, runner, lease)
                future.add_done_callback(lambda _: ended.set())
                busy.add(future)
            if not leases or len(busy) == at_once:
                _wait(stop, ended, min(_LONGEST_S, _LOOK_S * 2 ** min(failures, _DOUBLINGS)))
            children.sweep()


def _run(runner: Runner, lease: Lease) -> Job:
    try:
        return runner.run(lease)
    except MainspringError as error:
        log.warning("jobs: %s", error)
        return lease.job
    except Exception:
        log.exception("jobs failed")
        return lease.job


def _wait(stop: threading.Event, ended: threading.Event, longest_s: float) -> None:
    """Return when a job has ended, when `stop` is set, or after a while."""
    until = time.monotonic() + longest_s
    while not stop.is_set() and (left := until - time.monotonic()) > 0 and not ended.wait(min(left, 0.25)):
        pass


def holder(state: Path) -> str:
    """Return the lease holder's name of a state folder's worker, the same at every start."""
    path = state / "worker.id"
    if not path.exists():
        write_atomic(path, new_id().encode())
    return f"{path.read_text().strip()[:64]}@{socket.gethostname()[:60]}"


@contextmanager
def _alone(project: Project, stop: threading.Event) -> Iterator[None]:
    """Wait until no other process runs jobs from this state folder, or until `stop` is set."""
    with ExitStack() as stack:
        while not stop.is_set():
            try:
                stack.enter_context(project.own_locks.hold(LOCK, wait_s=0))
                break
            except Conflict:
                stop.wait(_LOOK_S)
        yield
