"""A lease's renewals, and what they bring back."""

from __future__ import annotations

from kit.waiting import wait_until
from mainspring.core.time import SECOND, SystemClock
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.model import NewJob, Renewal
from mainspring.jobs.runner import Heart
from mainspring.project.catalog import memory_catalog


def test_a_heart_hears_that_its_job_is_to_end_while_it_keeps_the_lease() -> None:
    store, clock = CatalogJobs(memory_catalog()), SystemClock()
    store.enqueue([NewJob("work")], clock.now())
    [lease] = store.claim("ana", ["work"], clock.now(), 5 * SECOND)
    heard = []
    with Heart(store, lease, clock, 3 * SECOND // 2) as heart:
        assert heart.said is Renewal.HELD
        store.cancel([lease.job.id], clock.now())
        wait_until(lambda: heart.said is not Renewal.HELD, "another answer")
        heard.append(heart.said)
    assert heard == [Renewal.CANCELLING]


def test_a_heart_hears_that_its_lease_is_somebody_elses() -> None:
    store, clock = CatalogJobs(memory_catalog()), SystemClock()
    store.enqueue([NewJob("work")], clock.now())
    [lease] = store.claim("ana", ["work"], clock.now(), 5 * SECOND)
    store.take_over("ana", clock.now())
    with Heart(store, lease, clock, 3 * SECOND // 2) as heart:
        wait_until(lambda: heart.said is not Renewal.HELD, "another answer")
        assert heart.said is Renewal.LOST
