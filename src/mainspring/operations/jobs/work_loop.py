"""The worker's thread that queues and runs due jobs, beside the worker's duties."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mainspring.core.errors import Conflict, MainspringError
from mainspring.core.files import write_atomic
from mainspring.core.ids import new_id
from mainspring.jobs.runner import Runner
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
    """Queue and run jobs until `stop` is set.

    The lock proves that the previous worker of this state folder is dead, so its jobs continue at once.
    """
    runner = Runner(
        project.jobs, handlers(project), project.wall, holder=holder(project.settings.state), stopping=stop.is_set
    )
    schedules, failures = schedules_of(project.settings), 0
    taken_over = False
    with _alone(project, stop):
        while not stop.is_set():
            try:
                if not taken_over:
                    project.jobs.take_over(holder(project.settings.state), project.wall.now())
                    taken_over = True
                runner.tick(schedules)
                idle = runner.run_one() is None
                failures = 0
            except MainspringError as error:
                idle, failures = True, failures + 1
                log.warning("jobs: %s", error)
            except Exception:
                idle, failures = True, failures + 1
                log.exception("jobs failed")
            if idle:
                stop.wait(min(_LONGEST_S, _LOOK_S * 2 ** min(failures, _DOUBLINGS)))


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
