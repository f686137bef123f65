"""Handle of a running job: its argument, steps, progress, and stop requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar, cast

from mainspring.core.time import Clock
from mainspring.jobs.model import JobStopped, Lease, Progress, Renewal, Step
from mainspring.jobs.plain import Plain, decoded, encoded
from mainspring.jobs.ports import JobStore

T = TypeVar("T")
Asked = Callable[[], Renewal | None]  # the newest request; `None` if the runner stops


class JobRun:
    """One attempt at a job. Steps finished in an earlier attempt are not repeated: their recorded results are
    returned.
    """

    def __init__(self, lease: Lease, store: JobStore, clock: Clock, asked: Asked) -> None:
        self._lease = lease
        self._store = store
        self._clock = clock
        self._asked = asked
        self._finished = {step.name: step.result for step in store.steps(lease.job.id)}
        self._begun: Counter[str] = Counter()

    @property
    def id(self) -> str:
        """The job's id, the same in every attempt."""
        return self._lease.job.id

    @property
    def argument(self) -> Plain:
        """The argument with which the job was queued."""
        return self._lease.job.argument

    def step(self, name: str, do: Callable[[], T]) -> T:
        """Run `do` once across attempts: return its result, or the recorded result of an earlier attempt.

        A crash between the end of `do` and its recording repeats it, so `do` must be idempotent. The result must be
        representable in JSON, and is returned as JSON restores it, also the first time: a tuple becomes a list. The
        n-th step with a name is matched to the n-th one in every attempt.

        Raises:
            JobStopped: The attempt stops here; do not catch it.
            Invalid: JSON cannot represent the result of `do`.
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
        """Report the job's progress."""
        self._store.report(self._lease, Progress(done, total, note))

    def check(self) -> None:
        """Raise if the job must stop. Long steps should call this regularly.

        Raises:
            JobStopped: The job is cancelled, another runner has it, or its runner stops.
        """
        asked = self._asked()
        if asked is not Renewal.HELD:
            raise JobStopped(self.id, asked)
