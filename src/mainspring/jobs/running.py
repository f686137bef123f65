"""What a handler is given: the job's argument, its steps, its progress, and word of its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar, cast

from mainspring.core.time import Clock
from mainspring.jobs.model import JobStopped, Lease, Progress, Renewal, Step
from mainspring.jobs.plain import Plain, decoded, encoded
from mainspring.jobs.ports import JobStore

T = TypeVar("T")
Asked = Callable[[], Renewal | None]  # what is asked of the job; `None`: its runner stops


class JobRun:
    """One attempt at a job. A step that an earlier attempt finished is not done again: it gives what it gave then."""

    def __init__(self, lease: Lease, store: JobStore, clock: Clock, asked: Asked) -> None:
        self._lease = lease
        self._store = store
        self._clock = clock
        self._asked = asked
        self._finished = {step.name: step.result for step in store.steps(lease.job.id)}
        self._begun: Counter[str] = Counter()

    @property
    def id(self) -> str:
        """The job's id: the same in every attempt."""
        return self._lease.job.id

    @property
    def argument(self) -> Plain:
        """What the job was queued with."""
        return self._lease.job.argument

    def step(self, name: str, do: Callable[[], T]) -> T:
        """Do something once: return what `do` returns, or what it returned in an earlier attempt.

        A kill between the end of `do` and its record lets it be done again, so it must bear that. What it returns must
        be what JSON can say, and comes back as JSON gives it: a tuple as a list, also the first time. The n-th step of
        a name is the n-th in every attempt.

        Raises:
            JobStopped: The attempt ends here; let it pass.
            Invalid: `do` returned what JSON cannot say.
        """
        self._begun[name] += 1
        count = self._begun[name]
        known = name if count == 1 else f"{name} #{count}"
        if known in self._finished:
            return cast("T", self._finished[known])
        self.check()
        result = decoded(encoded(do(), f"The result of the step {known}"))
        self._store.record(self._lease, Step(known, result, self._clock.now()))
        self._finished[known] = result
        return cast("T", result)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the job is."""
        self._store.report(self._lease, Progress(done, total, note))

    def check(self) -> None:
        """Raise if the job is to end. Long steps call it now and then.

        Raises:
            JobStopped: It is cancelled, somebody else has it, or its runner stops.
        """
        asked = self._asked()
        if asked is not Renewal.HELD:
            raise JobStopped(self.id, asked)
