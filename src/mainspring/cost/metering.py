"""Metering of this process's work: its processor time, memory and duration, by subject.

Work that has the process to itself (`whole`) is charged all that the process and its descendants use; beside other work
of the process it is charged its thread's time, which leaves out the threads of libraries. Of nested work the innermost
is charged. Amounts wait in memory, and are added to the store every `every_s`, soon after the end of work in a process
of `up`, and else at its end: a process that is killed loses that much, never anything twice.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.ids import new_id
from mainspring.core.process_usage import of_descendants, of_tree, open_gpus
from mainspring.core.time import HOUR, Clock
from mainspring.cost.paying import payers
from mainspring.cost.ports import UsageStore
from mainspring.cost.usage import Subject, Usage

_EVERY_S = 30.0
_SOON_S = 10.0
_MOST_WAITING = 100_000  # amounts, while the store does not answer

_log = logging.getLogger(__name__)
_Amounts = dict[tuple[Subject, str], int]


class Work:
    """Open work. Without a subject its use is kept until it has one. Its payers are those when it was opened."""

    __slots__ = ("_held", "_meter", "_teams", "subject", "whole")

    def __init__(self, meter: Metering, subject: Subject | None, whole: bool) -> None:
        self._meter = meter
        self._teams = payers().teams
        self._held: dict[str, int] = {}
        self.subject = subject
        self.whole = whole

    def name(self, subject: Subject) -> None:
        """Give it a subject, if it has none."""
        if self.subject is None:
            self.subject = subject
            self.charge({})

    def charge(self, amounts: Mapping[str, int]) -> None:
        for measure, amount in amounts.items():
            self._held[measure] = self._held.get(measure, 0) + amount
        if self.subject is not None and self._held:
            held, self._held = self._held, {}
            self._meter.add(msgspec.structs.replace(self.subject, teams=self.subject.teams or self._teams), held)

    def leave_to(self, outer: Work) -> None:
        """Charge what has no subject to the work around it."""
        held, self._held = self._held, {}
        outer.charge({measure: amount for measure, amount in held.items() if measure != "wall"})


_open: ContextVar[Work | None] = ContextVar("mainspring_metered", default=None)


def name_work(subject: Subject) -> None:
    """Give the innermost open work a subject, if it has none."""
    work = _open.get()
    if work is not None:
        work.name(subject)


def charge(amounts: Mapping[str, int]) -> None:
    """Charge amounts by measure, other than those of the process, to the innermost open work, if there is any."""
    work = _open.get()
    if work is not None:
        work.charge(amounts)


class Metering:
    """Meter of one process.

    Args:
        store: Returns the store, on the first flush.
        clock: The machine's.
        inside: Returns whether this process belongs to `up`, on the first work.
    """

    def __init__(
        self,
        store: Callable[[], UsageStore],
        clock: Clock,
        machine: str,
        inside: Callable[[], bool],
        every_s: float = _EVERY_S,
    ) -> None:
        self._store, self._clock, self._every_s = store, clock, every_s
        self._machine, self._source, self._sequence = machine, f"process {new_id()}", 0
        self._find_inside = inside
        self._inside: bool | None = None
        self._amounts: dict[int, _Amounts] = {}  # by the hour in which they were used
        self._sent: list[Usage] = []  # of a flush that may have failed
        self._changing, self._flushing = threading.Lock(), threading.Lock()
        self._whole: list[Work] = []
        self._last = (0.0, 0.0)  # processor and monotonic time, seconds, until which whole work is charged
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._due = threading.Event()

    def add(self, subject: Subject, amounts: Mapping[str, int]) -> None:
        """Add amounts that were used just now, by measure."""
        if self._inside is None:
            self._inside = self._find_inside()
        subject = msgspec.structs.replace(subject, inside=self._inside)
        now = self._clock.now()
        with self._changing:
            of = self._amounts.setdefault(now - now % HOUR, {})
            for measure, amount in amounts.items():
                key = subject, measure
                if key in of or len(of) < _MOST_WAITING:
                    of[key] = of.get(key, 0) + amount
        self._due.set()
        if self._thread is None:
            self._start()

    @contextmanager
    def of(self, subject: Subject | None, *, whole: bool | None = None) -> Iterator[Work]:
        """Context of work, see the module; its end, and that of a minute, adds what it used.

        Args:
            subject: `None` if it is named later; without a name it is charged to the work around it, if there is any.
            whole: Whether the process does nothing else; by default in its main thread. Only one thread may open such
                work.
        """
        if whole is None:
            whole = threading.current_thread() is threading.main_thread()
        work = Work(self, subject, whole)
        outer, before = _open.get(), _open.set(work)
        begun, cpu = time.monotonic(), time.thread_time_ns()
        if whole:
            with self._changing_whole():
                self._whole.append(work)
            self._start()
        try:
            yield work
        finally:
            _open.reset(before)
            if whole:
                with self._changing_whole():
                    self._whole.remove(work)
            else:
                work.charge({"cpu": (time.thread_time_ns() - cpu) // 1000})
            work.charge({"wall": round((time.monotonic() - begun) * 1e6)})
            if outer is not None:
                work.leave_to(outer)
            elif whole and not self._inside:  # a command, which ends soon
                self._rest()
                self.flush()

    @contextmanager
    def _changing_whole(self) -> Iterator[None]:
        with self._flushing:
            self._charge_whole()
            yield

    def _charge_whole(self) -> None:
        """Charge what the process used since the last time to the innermost work."""
        cpu_s, resident = _process()
        now = time.monotonic()
        before_cpu, before = self._last
        self._last = cpu_s, now
        if self._whole:
            elapsed = max(0.0, now - before)
            used = {"cpu": round(max(0.0, cpu_s - before_cpu) * 1e6), "memory": round(resident * elapsed)}
            if count := len(open_gpus(os.getpid())):
                used["gpu"] = round(count * elapsed * 1e6)
            self._whole[-1].charge(used)

    def _start(self) -> None:
        with self._changing:
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._follow, name="usage", daemon=True)
                self._thread.start()

    def _rest(self) -> None:
        """End the thread until there is work again: beside a thread, a process ends without closing its databases."""
        if self._thread is not None:
            self._ending.set()
            self._due.set()
            self._thread.join()
            with self._changing:
                self._thread = None
                self._ending.clear()

    def _follow(self) -> None:
        while not self._ending.is_set():
            self._due.wait(self._every_s)
            self._due.clear()
            # Ended work is told soon, in one transaction with what ends meanwhile.
            self._ending.wait(_SOON_S if not self._whole else self._every_s)
            self.flush()

    def flush(self) -> None:
        """Add what was used until now to the store; on an error it waits for the next time."""
        with self._flushing:
            if self._whole:
                self._charge_whole()
            if not self._sent:
                with self._changing:
                    amounts, self._amounts = self._amounts, {}
                self._sent = [
                    Usage(machine=self._machine, start=start, subject=subject, measure=measure, amount=amount)
                    for start, of in amounts.items()
                    for (subject, measure), amount in of.items()
                    if amount
                ]
                self._sequence += 1
            if not self._sent:
                return
            try:
                self._store().add(self._source, self._sequence, self._sent)
            except Exception as error:  # work goes on where its cost cannot be stored
                told = error if isinstance(error, MainspringError) else repr(error)
                _log.warning("usage is not stored yet: %s", told)
                return
            self._sent = []

    def close(self) -> None:
        """Add the rest, and stop."""
        self._ending.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()  # what was kept after an error
        self.flush()


def _process() -> tuple[float, int]:
    """Return the processor time of this process and its descendants, s, and their memory, bytes."""
    below, tree = of_descendants(os.getpid()), of_tree(os.getpid())
    times = os.times()
    if below is None or tree is None:
        return time.process_time() + times.children_user + times.children_system, 0
    return time.process_time() + below.cpu_s, tree.resident_bytes
