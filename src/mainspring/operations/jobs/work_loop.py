"""The worker's thread that queues and runs due jobs, beside the worker's duties."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mainspring.core.errors import Conflict, MainspringError
from mainspring.core.files import write_atomic
from mainspring.core.ids import new_id
from mainspring.jobs.bell import Bell
from mainspring.jobs.model import Ended, Lease
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
    schedules, failures = schedules_of(project.settings), 0
    taken_over = False
    with (
        _alone(project, stop),
        Bell(project.settings.state) as bell,
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
        places = _Places(runner, threads, at_once, stop)
        while not stop.is_set():
            try:
                if not taken_over:
                    project.jobs.take_over(holder(project.settings.state), project.wall.now())
                    taken_over = True
                runner.tick(schedules)
                places.fill()
                failures = 0
            except MainspringError as error:
                failures += 1
                log.warning("jobs: %s", error)
            except Exception:
                failures += 1
                log.exception("jobs failed")
            _wait(stop, bell, min(_LONGEST_S, _LOOK_S * 2 ** min(failures, _DOUBLINGS)))
            children.sweep()
        places.close()


class _Places:
    """Threads that run jobs, as many at once as there are places.

    A commit to disk takes longer than all else of a short step. So the thread that ends a job stores, in one
    transaction, the ends of all threads that wait to store one, and claims the next jobs for their places.
    """

    def __init__(self, runner: Runner, threads: ThreadPoolExecutor, count: int, stop: threading.Event) -> None:
        self._runner, self._threads, self._stop = runner, threads, stop
        self._free = count
        self._ended: deque[Ended] = deque()
        self._storing = threading.Lock()  # held by who claims
        self._closed = False

    def fill(self) -> None:
        """Claim due jobs for the free places."""
        with self._storing:
            if self._free:
                self._start(self._runner.claim(self._free))

    def close(self) -> None:
        """Let the threads claim no more, so that the pool can be closed."""
        with self._storing:
            self._closed = True

    def _start(self, leases: list[Lease]) -> None:
        self._free -= len(leases)
        for lease in leases:
            self._threads.submit(self._run, lease)

    def _run(self, lease: Lease) -> None:
        try:
            self._ended.append(Ended(lease, self._runner.attempt(lease)))
        except BaseException as error:
            _tell(error)
            with self._storing:
                self._free += 1
            return
        with self._storing:
            ended = [self._ended.popleft() for _ in range(len(self._ended))]
            if not ended:  # another thread has stored it meanwhile
                return
            self._free += len(ended)
            try:
                self._start(self._runner.end_and_claim(ended, 0 if self._closed or self._stop.is_set() else self._free))
            except Exception as error:
                _tell(error)


def _tell(error: BaseException) -> None:
    if isinstance(error, MainspringError):
        log.warning("jobs: %s", error)
    else:
        log.error("jobs failed", exc_info=error)


def _wait(stop: threading.Event, bell: Bell, longest_s: float) -> None:
    """Return when a job was queued, when `stop` is set, or after a while."""
    until = time.monotonic() + longest_s
    while not stop.is_set() and (left := until - time.monotonic()) > 0 and not bell.wait(min(left, 0.25)):
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
