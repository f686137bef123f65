"""In-memory job store, for tests and experiments."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from mainspring.core.errors import Conflict
from mainspring.core.ids import new_id
from mainspring.jobs import transitions
from mainspring.jobs.model import (
    AHEAD,
    ENDED,
    Job,
    Lease,
    LeaseLost,
    NewJob,
    Outcome,
    Progress,
    Renewal,
    Status,
    Step,
    Tick,
    unknown,
)
from mainspring.jobs.plain import decoded, encoded


class MemoryJobs:
    """Job store in dictionaries, thread-safe within one process."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tokens: dict[str, str] = {}  # job -> token of its newest lease
        self._steps: dict[str, list[Step]] = {}
        self._ticks: dict[str, int] = {}
        self._lock = threading.RLock()

    def enqueue(self, jobs: Sequence[NewJob], now: int) -> list[Job]:
        made = transitions.all_queued(list(jobs), now)
        with self._lock:
            there = {(job.handler, job.key): job for job in self._jobs.values() if job.key is not None}
            found = [job if job.key is None else there.setdefault((job.handler, job.key), job) for job in made]
            self._jobs.update((job.id, job) for job in found)
        return found

    def get(self, ids: Sequence[str]) -> list[Job | None]:
        with self._lock:
            return [self._jobs.get(id) for id in ids]

    def find(
        self,
        *,
        statuses: Collection[Status] = (),
        handlers: Collection[str] = (),
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        with self._lock:
            found = [
                job
                for job in self._jobs.values()
                if (not statuses or job.status in statuses)
                and (not handlers or job.handler in handlers)
                and (before is None or (job.enqueued_at, job.id) < before)
            ]
        return sorted(found, key=lambda job: (job.enqueued_at, job.id), reverse=True)[:limit]

    def counts(self) -> dict[Status, int]:
        with self._lock:
            return dict(Counter(job.status for job in self._jobs.values()))

    def steps(self, job: str) -> list[Step]:
        with self._lock:
            return list(self._steps.get(job, ()))

    def cancel(self, ids: Sequence[str], now: int) -> list[Job]:
        with self._lock:
            return self._keep([transitions.cancelled(job, now) for job in self._all(ids)])

    def retry(self, ids: Sequence[str], now: int) -> list[Job]:
        with self._lock:
            return self._keep([transitions.retried(job, now) for job in self._all(ids)])

    def claim(self, holder: str, handlers: Collection[str], now: int, lease_us: int, limit: int = 1) -> list[Lease]:
        taken: list[Lease] = []
        with self._lock:
            for job in sorted(self._jobs.values(), key=lambda job: (job.due_at, job.id)):
                if len(taken) == limit or job.handler not in handlers or not _due(job, now):
                    continue
                [found] = self._keep([transitions.claimed(job, holder, now, lease_us)])
                if found.status is Status.RUNNING:
                    self._tokens[found.id] = new_id()
                    taken.append(Lease(found, self._tokens[found.id]))
        return taken

    def take_over(self, holder: str, now: int) -> int:
        with self._lock:
            held = [job for job in self._jobs.values() if job.status is Status.RUNNING and job.holder == holder]
            for job in self._keep([replace(job, leased_until=now) for job in held]):
                del self._tokens[job.id]
            return len(held)

    def renew(self, leases: Sequence[Lease], now: int, lease_us: int) -> list[Renewal]:
        found = []
        with self._lock:
            for lease in leases:
                try:
                    [job] = self._keep([replace(self._held(lease), leased_until=now + lease_us)])
                except LeaseLost:
                    found.append(Renewal.LOST)
                else:
                    found.append(Renewal.CANCELLING if job.cancelling else Renewal.HELD)
        return found

    def record(self, lease: Lease, step: Step) -> None:
        result = decoded(encoded(step.result, f"The result of the step {step.name}"))
        with self._lock:
            job = self._held(lease)
            steps = self._steps.setdefault(job.id, [])
            if any(each.name == step.name for each in steps):
                raise Conflict(f"The job {job.id} has finished a step {step.name!r} already.")
            steps.append(replace(step, result=result))
            self._keep([replace(job, attempts=1)])

    def report(self, lease: Lease, progress: Progress) -> None:
        with self._lock:
            self._keep([replace(self._held(lease), progress=transitions.reported(progress))])

    def end(self, lease: Lease, outcome: Outcome, now: int) -> Job:
        with self._lock:
            [job] = self._keep([transitions.ended(self._held(lease), outcome, now)])
            return job

    def tick(self, ticks: Sequence[Tick], now: int) -> list[Job]:
        made = []
        with self._lock:
            for tick in ticks:
                last = self._ticks.get(tick.schedule.name)
                if last is not None and last < tick.at:
                    made.append(transitions.of_tick(tick, now))
                if last is None or last < tick.at or last > now + AHEAD:
                    self._ticks[tick.schedule.name] = tick.at
            return self._keep(made)

    def last_ticks(self) -> dict[str, int]:
        with self._lock:
            return dict(self._ticks)

    def forget(self, statuses: Collection[Status], ended_before: int) -> int:
        with self._lock:
            ended = [job for job in self._jobs.values() if job.status in ENDED.intersection(statuses)]
            going = [job.id for job in ended if (job.ended_at or 0) < ended_before]
            for id in going:
                del self._jobs[id]
                self._steps.pop(id, None)
            return len(going)

    def _all(self, ids: Sequence[str]) -> list[Job]:
        for id in ids:
            if id not in self._jobs:
                raise unknown(id)
        return [self._jobs[id] for id in ids]

    def _held(self, lease: Lease) -> Job:
        job = self._jobs.get(lease.job.id)
        if job is None or job.status is not Status.RUNNING or self._tokens.get(job.id) != lease.token:
            raise LeaseLost(lease.job.id)
        return job

    def _keep(self, jobs: list[Job]) -> list[Job]:
        self._jobs.update((job.id, job) for job in jobs)
        return jobs


def _due(job: Job, now: int) -> bool:
    if job.status is Status.RUNNING:
        return job.leased_until is not None and job.leased_until <= now
    return job.status is Status.QUEUED and job.due_at <= now
