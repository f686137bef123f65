"""Heartbeat that renews a lease while its job runs, and receives cancellation requests."""

from __future__ import annotations

import logging
import threading

from mainspring.core.errors import MainspringError
from mainspring.core.time import Clock
from mainspring.jobs.model import Lease, Renewal
from mainspring.jobs.ports import JobStore

log = logging.getLogger("mainspring")


class Heart:
    """Renews a lease three times per lease period. Its thread exists only while the job runs."""

    def __init__(self, store: JobStore, lease: Lease, clock: Clock, lease_us: int) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._lease_us = lease_us
        self._until = clock.now() + lease_us
        self._said = Renewal.HELD
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"job-{lease.job.id}", daemon=True)

    @property
    def said(self) -> Renewal:
        """Result of the last renewal. A lease that could not be renewed in time counts as lost."""
        return Renewal.LOST if self._clock.now() >= self._until else self._said

    def _beat(self) -> None:
        while not self._ended.wait(self._lease_us / 3e6):
            now = self._clock.now()
            try:
                [self._said] = self._store.renew([self._lease], now, self._lease_us)
            except MainspringError as error:  # the store may recover before the lease expires
                log.warning("job %s: its lease was not renewed: %s", self._lease.job.id, error)
            else:
                self._until = now + self._lease_us

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
