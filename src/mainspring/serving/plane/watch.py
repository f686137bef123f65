"""Periodic health check of the online store, off the event loop, for the readiness of the gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mainspring.core.errors import Corrupt, MainspringError, Unavailable
from mainspring.features.ports import OnlineStore
from mainspring.features.state.blobs import DamagedState

EVERY_S = 1.0

_log = logging.getLogger(__name__)


class StoreDamaged(Unavailable):
    """The online store answered with damage.

    Attributes:
        again: Reads the same once more; `None` where the damage is one entity's alone.
    """

    def __init__(self, what: str, again: Callable[[], object] | None = None) -> None:
        super().__init__(what)
        self.again = again


class StoreWatch:
    """Pings a store.

    Attributes:
        away: Whether it did not answer when it was last asked, or answered with damage.
    """

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="online-store")
        self._task: asyncio.Task[None] | None = None
        self.away = False
        self._damaged: Callable[[], object] | None = None  # a read that failed by damage

    def suspect(self, damage: StoreDamaged) -> None:
        """Treat the store as unavailable until the read that found damage succeeds: a ping may miss the damage."""
        if damage.again is not None:
            if not self.away:
                _log.error("The gateway is not ready until its online store is intact: %s", damage.__cause__ or damage)
            self.away, self._damaged = True, damage.again

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Ping the store once."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
        except Exception as error:  # of whatever kind: a watch that ends would leave the store away for good
            if not self.away:
                _log.error(
                    "Requests by key are rejected until the online store responds again: %s",
                    error,
                    exc_info=not isinstance(error, MainspringError),
                )
            self.away = True
        else:
            if self.away:
                _log.warning("The online store responds again.")
            self.away = False

    def _ask(self) -> None:
        self._store.ping()
        damaged = self._damaged
        if damaged is not None:
            try:
                damaged()
            except DamagedState:  # one entity's alone
                pass
            except (Corrupt, Unavailable):
                raise
            except Exception as error:  # the store was read: what fails now are the request's own values
                _log.debug("%s", error)
            self._damaged = None
