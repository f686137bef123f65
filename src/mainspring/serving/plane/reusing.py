"""Earlier answers of one version on their way to a lane's requests.

A request of features or tensors is looked up when it comes. One by key is looked up by the features that are read for
it, which change with time; until they are read, equal requests wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Protocol

from mainspring.core.time import Clock
from mainspring.serving.batching.batcher import Job
from mainspring.serving.caching.digests import digest
from mainspring.serving.caching.responses import HIT, MISS, REFUSED, Response, Responses, Reuse
from mainspring.serving.plane.batch_run import Ask, Work, alike, monotonic_us
from mainspring.serving.plane.flights import Flights, Queue
from mainspring.serving.plane.runtime import Runtime
from mainspring.serving.plane.screening import Screen


class Owner(Queue, Protocol):
    """The lane whose requests they are."""

    @property
    def screen(self) -> Screen | None:
        """The policy on unusual rows; an answer holds for the one that it was made by."""
        ...

    @property
    def most_rows(self) -> int:
        """How many rows may wait for the answers of equal requests."""
        ...

    def answer_again(self, work: Work) -> None:
        """Answer requests whose answers were computed for others."""
        ...

    def refuse(self, work: Work, error: BaseException) -> None:
        """Tell requests an error."""
        ...


class Reusing:
    """Looks for earlier answers, and keeps new ones. It holds no reference to its lane."""

    def __init__(self, responses: Responses, runtime: Runtime, version: str, flights: Flights, clock: Clock) -> None:
        self.responses = responses
        self._runtime, self._version = runtime, version
        self._flights, self._clock = flights, clock
        self._names = tuple(spec.name for spec in runtime.inputs)
        self._hits: list[tuple[Job[Ask], Response]] = []

    def take(self, job: Job[Ask], owner: Owner) -> bool:
        """Return whether a request needs no place in the queue: it is answered in the next turn of the loop, or when an
        equal one is. If not, others may wait for it from now on."""
        reuse, rows = job.payload.reuse, job.payload.rows
        if reuse is None:
            return False
        reuse.outcome = REFUSED if reuse.refuses else MISS
        key = self._key(reuse, rows.columns, keyed=rows.keyed)
        if key is None:
            return False
        if not rows.keyed:
            reuse.key = key
            if (response := self.responses.find(key, reuse, owner.screen)) is not None:
                self._hit(job, reuse, response, owner)
                return True
        if not reuse.refuses and self._flights.join(key, job, owner.most_rows):
            return True
        self._flights.lead(key, job, owner)
        return False

    def found(self, work: Work, screen: Screen | None) -> Work | None:
        """Take the requests by key for whose features there is an answer out of a batch, and return them with it;
        `None` if there are none."""
        if not work.gathered.keyed:
            return None
        found: dict[Job[Ask], Response] = {}
        features = work.gathered.features
        for job, start, end in work.parts():
            reuse = job.payload.reuse
            if reuse is None or not job.payload.rows.keyed:
                continue
            columns = {name: features[name][start:end] for name in self._names}
            reuse.key = self._key(reuse, columns, keyed=False) or b""
            if reuse.key and (response := self.responses.find(reuse.key, reuse, screen)) is not None:
                reuse.outcome = HIT
                found[job] = response
        if not found:
            return None
        hits = copy(work)
        hits.keep([*found])
        hits.called = hits.read
        hits.answer_by([found[job] for job in hits.jobs], screen)
        work.keep([job for job in work.jobs if job not in found])
        return hits

    def keep(self, work: Work) -> None:
        """Keep the answers of a batch."""
        for job, start, end in work.parts():
            reuse = job.payload.reuse
            if reuse is not None and reuse.key and reuse.store:
                self.responses.keep(reuse.key, reuse, work.response(start, end))

    def _key(self, reuse: Reuse, columns: Mapping[str, Any], *, keyed: bool) -> bytes | None:
        return digest((self._runtime.digest, self._version, reuse.owner, keyed), columns)

    def _hit(self, job: Job[Ask], reuse: Reuse, response: Response, owner: Owner) -> None:
        reuse.outcome = HIT
        job.arrived = monotonic_us()
        if not self._hits:
            asyncio.get_running_loop().call_soon(self._answer_hits, owner)
        self._hits.append((job, response))

    def _answer_hits(self, owner: Owner) -> None:
        hits, self._hits = {job: response for job, response in self._hits if not job.cancelled}, []
        for jobs in alike([*hits]):
            self._answer_alike(jobs, hits, owner)

    def _answer_alike(self, jobs: Sequence[Job[Ask]], hits: Mapping[Job[Ask], Response], owner: Owner) -> None:
        now = monotonic_us()
        work = Work(list(jobs), now, now)
        try:
            work.gather(self._runtime, self._names, self._clock.now(), defaults=False)
            work.read = work.called = now
            work.answer_by([hits[job] for job in work.jobs], owner.screen)
        except Exception as error:
            owner.refuse(work, error)
            return
        owner.answer_again(work)
