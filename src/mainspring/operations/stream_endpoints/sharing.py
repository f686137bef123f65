"""Partitions of a stream endpoint, shared by the processes of one catalog."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress

from mainspring.core.errors import Conflict, MainspringError
from mainspring.core.locks import Locks
from mainspring.core.time import Clock
from mainspring.data.streams.landing import LEASE_US
from mainspring.data.streams.store import StreamStore


class Leases:
    """`Share` by leases, which divide partitions evenly, with a lock for each.

    A lease says who should have a partition, and ends with time; the lock keeps others out until whoever lost a lease
    has stopped, and ends with its holder. Where the connection to a lock breaks, the epoch of the lease is checked by
    every write of a state.

    Args:
        owner: Name of this process that no other has.
    """

    def __init__(
        self,
        endpoint: str,
        owner: str,
        store: StreamStore,
        locks: Locks,
        wall: Clock,
        *,
        lease_us: int = LEASE_US,
    ) -> None:
        self.owner = owner
        self._endpoint = endpoint
        self._store = store
        self._locks = locks
        self._wall = wall
        self._lease_us = lease_us
        self._partitions: tuple[int, ...] | None = None  # of the topic
        self._epochs: dict[int, int] = {}
        self._until = 0
        self._claiming = threading.Lock()
        self._held: dict[int, ExitStack] = {}

    def renew(self) -> None:
        """Renew the leases. Called by another thread, as a batch may take longer than a lease."""
        with self._claiming:
            now = self._wall.now()
            until = now + self._lease_us
            self._epochs = self._store.claim(self._endpoint, self.owner, self._partitions or (), now, until)
            self._until = until

    def held(self, partitions: Collection[int]) -> Mapping[int, int]:
        if self._partitions != (known := tuple(partitions)):
            self._partitions = known
            self.renew()
        if self._wall.now() >= self._until:
            return {}
        epochs = self._epochs
        for partition in epochs.keys() - self._held.keys():
            self._lock(partition)
        return {partition: epoch for partition, epoch in epochs.items() if partition in self._held}

    def give_up(self, partition: int) -> None:
        if partition in self._held:
            with suppress(MainspringError):  # it was lost before
                self._held.pop(partition).close()

    def close(self) -> None:
        """Give up all partitions, so that others need not wait."""
        for partition in [*self._held]:
            self.give_up(partition)
        with suppress(MainspringError):
            self._store.release(self._endpoint, self.owner)

    def _lock(self, partition: int) -> None:
        stack = ExitStack()
        with suppress(Conflict):  # its last owner is still at work
            stack.enter_context(self._locks.hold(f"stream.{self._endpoint}.{partition}", wait_s=0))
            self._held[partition] = stack
