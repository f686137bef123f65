"""Runs of jobs with parts in one group, in any order of events: no more work at once than may, and nobody is stuck."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from random import Random

import pytest
import sqlalchemy as sa

from kit.depth import examples
from mainspring.core.errors import Conflict
from mainspring.core.ids import new_id
from mainspring.core.time import SECOND
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.adapters.tables import jobs
from mainspring.jobs.model import ENDED, Lease, NewJob, Outcome, Status, Step
from mainspring.project.catalog import memory_catalog

HANDLERS = ("run", "step", "ask")
LONG = 10**12


class World:
    """Runs of at most `limit` at once. Each has steps, in groups of one too, and approvals."""

    def __init__(self, seed: int) -> None:
        self.engine = memory_catalog()
        self.store = CatalogJobs(self.engine)
        self.chance, self.now = Random(seed), 0
        self.limit = self.chance.choice([1, 1, 2])
        self.parts: dict[str, list[str]] = {}
        self.asked: set[str] = set()  # approvals that nobody has answered
        self.leases: list[Lease] = []
        self.runs = [
            self.store.enqueue(
                [NewJob("run", group="p", group_limit=self.limit, priority=self.chance.choice([0, 0, 3]))], at
            )[0].id
            for at in range(self.chance.randint(2, 5))
        ]

    def claim(self, most: int) -> None:
        self.leases += self.store.claim("h", HANDLERS, self.now, LONG, most)

    def answer(self) -> None:
        if self.asked:
            id = self.chance.choice(sorted(self.asked))
            with suppress(Conflict):
                self.store.signal(id, Step("by ana", None, self.now))
                self.asked.remove(id)

    def end(self, *, held: bool) -> None:
        if not self.leases:
            return
        lease = self.leases.pop(self.chance.randrange(len(self.leases)))
        outcome = Outcome(Status.DONE)
        if lease.job.handler == "run":
            outcome = self._run(lease.job.id)
        elif lease.job.id in self.asked:
            outcome = Outcome(Status.WAITING)
        elif lease.job.handler == "step" and held and self.chance.random() < 0.6:
            outcome = Outcome(Status.QUEUED, again_at=self.now + 2 * SECOND, error="it failed")
            if self.chance.random() < 0.8:
                later = self.now + 300 * SECOND
                outcome = Outcome(Status.QUEUED, again_at=later, counts=False, gives_way=True)
        self.store.end(lease, outcome, self.now)  # nobody else may have it

    def _run(self, id: str) -> Outcome:
        if id not in self.parts:
            ids = self.parts[id] = sorted(new_id() for _ in range(self.chance.randint(1, 4)))
            made = []
            for at, part in enumerate(ids):
                ask = self.chance.random() < 0.2
                group = None if ask else self.chance.choice([None, None, "one", "other"])
                needs = tuple(each for each in ids[:at] if self.chance.random() < 0.3)
                made.append(
                    NewJob("ask" if ask else "step", id=part, parent=id, needs=needs, group=group, group_limit=1)
                )
                self.asked |= {part} if ask else set()
            self.store.enqueue(made, self.now)
        left = [each for each in self.store.get(self.parts[id]) if each is not None and each.status not in ENDED]
        return Outcome(Status.WAITING, after=tuple(self.parts[id])) if left else Outcome(Status.DONE)

    def check(self) -> bool:
        """Check the limits; return whether all has ended."""
        query = sa.select(
            jobs.c.status, jobs.c.parent, jobs.c.group, jobs.c.admitted, jobs.c.cancelling, jobs.c.handler
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        at_work = {
            row.parent for row in rows if row.status == "running" and row.handler == "step" and not row.cancelling
        }
        assert len(at_work) <= self.limit
        places = Counter(row.group for row in rows if row.group and row.admitted and Status(row.status) not in ENDED)
        assert all(taken <= (self.limit if group == "p" else 1) for group, taken in places.items())
        assert all(row.admitted for row in rows if row.status == "queued" and row.group)
        return all(Status(row.status) in ENDED for row in rows)


@pytest.mark.parametrize("seed", range(examples(gate=8, deep=1_000)))
def test_a_run_that_is_put_off_lets_others_begin_and_ends_after_them(seed: int) -> None:
    world = World(seed)
    try:
        for _ in range(150):
            world.now += world.chance.choice([1, 1, SECOND, 400 * SECOND])
            event = world.chance.random()
            if event < 0.5:
                world.claim(world.chance.randint(1, 3))
            elif event < 0.52:
                world.store.cancel([world.chance.choice(world.runs)], world.now)
            elif event < 0.6:
                world.answer()
            else:
                world.end(held=True)
            world.check()
        for _ in range(1_000):
            world.now += 400 * SECOND
            world.answer()
            world.claim(5)
            world.end(held=False)
            if world.check():
                return
        raise AssertionError("somebody waits for ever")
    finally:
        world.engine.dispose()
