"""Jobs that wait for others, in any order of events: nobody runs too early, and nobody waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import Conflict
from mainspring.core.ids import new_id
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.model import ENDED, Job, Lease, LeaseLost, NewJob, Outcome, Status
from mainspring.project.catalog import memory_catalog

LEASE = 10
LIMIT = 2
UNDER_WAY = (Status.QUEUED, Status.RUNNING)


@dataclass
class Run:
    """A parent with parts, and whoever holds leases of them. `order` is the graph as it was asked for."""

    store: CatalogJobs
    parent: str
    order: dict[str, NewJob]
    leases: list[Lease]
    now: int = 0

    def jobs(self) -> dict[str, Job]:
        return {job.id: job for job in self.store.find(parent=self.parent, limit=1_000)}

    def claim(self, limit: int) -> None:
        self.leases += self.store.claim("h", {"part"}, self.now, LEASE, limit)

    def end(self, at: int, outcome: Outcome) -> None:
        lease = self.leases.pop(at % len(self.leases))
        try:
            self.store.end(lease, outcome, self.now)
        except LeaseLost:
            assert self.jobs()[lease.job.id].holder is None or lease.job.leased_until is not None


@contextmanager
def run_of(graph: list[tuple[set[int], set[int], bool]]) -> Iterator[Run]:
    engine = memory_catalog()
    try:
        store = CatalogJobs(engine)
        [parent] = store.enqueue([NewJob("parent")], 0)
        ids = sorted(new_id() for _ in graph)
        wanted = [
            NewJob(
                "part", id=ids[at], parent=parent.id, attempts=2, needs=tuple(ids[each % at] for each in needs if at),
                after=tuple(ids[each % at] for each in after if at), group="g" if grouped else None,
                group_limit=LIMIT if grouped else None,
            )
            for at, (needs, after, grouped) in enumerate(graph)
        ]  # fmt: skip
        store.enqueue(wanted, 0)
        yield Run(store, parent.id, dict(zip(ids, wanted, strict=True)), [])
    finally:
        engine.dispose()


def check(run: Run) -> None:
    """Compare every part's status with what its needs and its group say."""
    jobs = run.jobs()
    places = [job for job in jobs.values() if job.group and job.status in UNDER_WAY]
    assert len(places) <= LIMIT
    for id, job in jobs.items():
        wanted = run.order[id]
        needs, after = [jobs[each] for each in wanted.needs], [jobs[each] for each in wanted.after]
        open_ = [each for each in {each.id: each for each in needs + after}.values() if each.status not in ENDED]
        if job.status in (*UNDER_WAY, Status.DONE, Status.FAILED):
            assert all(each.status is Status.DONE for each in needs)
        elif job.status is Status.WAITING:
            assert all(each.status not in ENDED - {Status.DONE} for each in needs)
            assert job.waiting == len(open_)
            if not open_:
                assert job.group
                assert len(places) == LIMIT
        assert (job.holder is not None) == (job.status is Status.RUNNING)


OUTCOMES = {
    "done": Outcome(Status.DONE),
    "failed": Outcome(Status.FAILED),
    "again": Outcome(Status.QUEUED, again_at=3),
    "put off": Outcome(Status.QUEUED, again_at=3, counts=False, gives_way=True),
    "skipped": Outcome(Status.SKIPPED),
}
small = st.integers(0, 30)
GRAPHS = st.lists(
    st.tuples(st.sets(small, max_size=3), st.sets(small, max_size=2), st.booleans()), min_size=1, max_size=12
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(1, 3)),
        st.tuples(st.sampled_from(sorted(OUTCOMES)), small),
        st.tuples(st.sampled_from(["cancel", "retry", "pass", "retry all", "take over"]), small),
    ),
    max_size=30,
)


@settings(max_examples=examples(gate=30, deep=2_000), deadline=None)
@given(GRAPHS, EVENTS)
def test_whatever_happens_nobody_is_early_and_nobody_is_stuck(
    graph: list[tuple[set[int], set[int], bool]], events: list[tuple[str, int]]
) -> None:
    with run_of(graph) as run:
        check(run)
        for event, number in events:
            happen(run, event, number)
            check(run)
        # Whoever is left is run to its end: then nobody waits any more.
        for _ in range(4 * len(graph) + 4):
            run.now += 2 * LEASE
            run.leases = run.store.claim("h", {"part"}, run.now, LEASE, 100)
            while run.leases:
                run.end(0, OUTCOMES["done"])
                check(run)
        assert {job.status for job in run.jobs().values()} <= ENDED


def happen(run: Run, event: str, number: int) -> None:
    ids = sorted(run.order)
    chosen = ids[number % len(ids)]
    if event == "claim":
        run.claim(number)
    elif event in OUTCOMES:
        if run.leases:
            run.end(number, OUTCOMES[event])
    elif event == "cancel":
        run.store.cancel([chosen], run.now)
    elif event == "pass":
        run.now += number
    elif event == "take over":
        run.store.take_over("h", run.now)
    else:
        jobs = run.jobs()
        again = [
            id for id in ids if jobs[id].status in ENDED - {Status.DONE} and (id >= chosen or event == "retry all")
        ]
        # A need that is done stays done; whoever came after one that is retried does not run a second time.
        if any(jobs[each].status in (*UNDER_WAY, Status.WAITING) for each in ids) and event == "retry":
            return
        try:
            run.store.retry(again, run.now)
        except Conflict:
            raise AssertionError("what has ended can be retried") from None
