"""Budgets of the calls of one machine's processes.

What is spent and what is reserved are counts of all its processes, in two mapped files (see `serving.plane.counts`):
what a killed process settled stays spent, and what it had reserved for calls under way is charged to their callers.
A reservation is summed and added under a lock of the kernel, so that budgets are neither exceeded nor refused early,
however many calls and processes ask at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from mainspring.core.errors import Unavailable
from mainspring.core.time import Clock, SystemClock
from mainspring.llm.budgets import NOTHING, Reservation, Spend, limits, refusal, standing, too_much
from mainspring.security.model import Principal
from mainspring.security.quota import Quota, period
from mainspring.serving.plane.counts import FILE, Counts, Row
from mainspring.serving.plane.metering import Fields

RESERVATIONS = "reservations"
_LOCK = "budgets.lock"
_MOST_NAMES = 8192
_LOCK_WAIT_S = 0.5  # for others, who hold it for microseconds; meanwhile the event loop goes on
_AGAIN_S = 0.0005
_LEASE_S = 1.0


class Purse:
    """One limit, for the callers of one count.

    Attributes:
        end: End of its period, UTC epoch microseconds.
    """

    __slots__ = ("_after", "_held", "_held_row", "_spent", "_spent_row", "end", "limit", "measure", "name", "quota")

    def __init__(self, quota: Quota, measure: str, name: str, spent: Counts, held: Counts) -> None:
        self.quota, self.measure, self.name = quota, measure, name
        self.limit = quota.limits[measure]
        self._spent, self._held = spent, held
        self._spent_row = self._held_row = Row(0, -1)
        self.end = self._after = 0

    def turn(self, now: int) -> None:
        """Begin the period that an instant is in."""
        end = period(self.quota.per, now)[1]
        if end != self.end:
            self._spent_row, self._held_row = self._spent.row(self.name, now), self._held.row(self.name, now)
            self.end, self._after = end, period(self.quota.per, end)[1]

    def hold(self, amount: int, now: int) -> int:
        """Add to what is reserved, and return the sum."""
        while (total := self._held.add(self._held_row, amount, self.end, self._after)) is None:
            self._held_row = self._held.row(self.name, now)
        return total

    def spend(self, amount: int, now: int) -> int:
        """Add to what is spent, and return the sum."""
        while (total := self._spent.add(self._spent_row, amount, self.end, self._after)) is None:
            self._spent_row = self._spent.row(self.name, now)
        return total

    def left(self, now: int) -> tuple[int, int]:
        """Return what is neither spent nor reserved, and what is not spent."""
        held = self.hold(0, now)  # first: what is settled between the two is in both, never in neither
        unspent = self.limit - self.spend(0, now)
        return unspent - held, unspent


class MachineReservation(Reservation):
    """Reservation in the counts of a machine."""

    __slots__ = ("_budgets", "_ends", "_open", "_purses")

    def __init__(self, budgets: MachineBudgets, purses: Sequence[Purse], fields: Fields) -> None:
        self._budgets, self._purses = budgets, purses
        self._ends = [each.end for each in purses]
        self.most = NOTHING
        self._open = True
        self.used = NOTHING
        self.fields = fields

    async def grow(self, most: Spend) -> None:
        if self._open:
            most = Spend(*map(max, most, self.most))
            before, after = (Spend(*map(max, each, self.used)) for each in (self.most, most))
            await self._budgets.hold(self._purses, self._ends, before, after)
            self.most = most

    def note(self, used: Spend) -> None:
        if not self._open:
            return
        now = self._budgets.now()
        for purse, end in zip(self._purses, self._ends, strict=True):
            if purse.end != end:
                continue  # its period is over
            before, after, held = self.used.of(purse.measure), used.of(purse.measure), self.most.of(purse.measure)
            purse.spend(after - before, now)
            purse.hold(max(0, held - after) - max(0, held - before), now)
        self.used = used

    def settle(self, used: Spend | None = None) -> None:
        if not self._open:
            return
        if not self._purses:  # nothing limits the call
            self._open, self.used = False, used or self.used
            return
        if used is not None and used != self.used:
            self.note(used)
        now = self._budgets.now()
        for purse, end in zip(self._purses, self._ends, strict=True):
            if purse.end == end:
                purse.hold(-max(0, self.most.of(purse.measure) - self.used.of(purse.measure)), now)
        self._open = False


class MachineBudgets:
    """Budgets of the calls of a machine's processes.

    Args:
        spent: Counts of what is settled; quotas of endpoints may be counted in it, too.
        held: Counts of reservations, made with `held=True`.
        lock: A file whose lock the processes take to reserve; `None` where this process is the only one.
        lease_s: Time between looks for processes that have died, whose reservations are then free.
    """

    def __init__(
        self,
        spent: Counts,
        held: Counts,
        lock: Path | None = None,
        clock: Clock | None = None,
        lease_s: float = _LEASE_S,
    ) -> None:
        self._spent, self._held = spent, held
        self._lock = lock
        self._descriptor: int | None = None
        self._clock = clock or SystemClock()
        self._purses: dict[str, Purse] = {}
        self._lease_s = lease_s
        self._looked = float("-inf")

    @classmethod
    def within(
        cls, folder: Path, clock: Clock | None = None, lease_s: float = _LEASE_S, spent: Counts | None = None
    ) -> MachineBudgets:
        """Return the budgets that the processes of a machine share in a folder; `spent` are counts of its `FILE`."""
        held = Counts(folder / RESERVATIONS, held=True)
        return cls(spent or Counts(folder / FILE), held, folder / _LOCK, clock, lease_s)

    def open(self) -> None:
        """Map the counts; raises as of `Counts.open`. Otherwise the first call that a quota limits maps them, and waits
        for no other process that does so."""
        self._spent.open()
        self._held.open()

    def now(self) -> int:
        """Return the current instant, UTC epoch microseconds."""
        return self._clock.now()

    async def reserve(self, quotas: Sequence[Quota], caller: Principal, model: str, most: Spend) -> MachineReservation:
        purses = [self._purse(*each) for each in limits(quotas, caller, model)]
        for purse in purses:
            purse.turn(self.now())
        made = MachineReservation(self, purses, ())
        await made.grow(most)
        made.fields = self._fields(purses)
        return made

    async def left(self, quotas: Sequence[Quota], caller: Principal, model: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for quota, measure, name in limits(quotas, caller, model):
            purse = self._purse(quota, measure, name)
            purse.turn(self.now())
            free = max(0, purse.left(self.now())[0])
            found[measure] = min(found.get(measure, free), free)
        return found

    async def hold(self, purses: Sequence[Purse], ends: Sequence[int], before: Spend, after: Spend) -> None:
        """Reserve the difference of two amounts in all purses whose periods last, or in none; as of `reserve`."""
        now, asked = self.now(), []
        for purse, end in zip(purses, ends, strict=True):
            if purse.end == end and (more := after.of(purse.measure) - before.of(purse.measure)):
                asked.append((purse, more))
                if after.of(purse.measure) > purse.limit:
                    raise too_much(purse.quota, purse.measure, after.of(purse.measure))
        if not asked:
            return
        async with self.alone():
            self._charge_dead(now)
            for purse, more in asked:
                free, unspent = purse.left(now)
                if free < more:
                    raise refusal(purse.quota, purse.measure, free, unspent < more, purse.end - now)
            for purse, more in asked:
                purse.hold(more, now)

    async def close(self) -> None:
        """Give the columns of the counts back."""
        self._spent.close()
        self._held.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _purse(self, quota: Quota, measure: str, name: str) -> Purse:
        found = self._purses.get(name)
        if found is None or (found.quota is not quota and found.quota != quota):
            if len(self._purses) >= _MOST_NAMES:
                del self._purses[next(iter(self._purses))]
            found = self._purses[name] = Purse(quota, measure, name, self._spent, self._held)
        return found

    def _fields(self, purses: Sequence[Purse]) -> Fields:
        if not purses:
            return ()
        now = self.now()
        return standing([(each.quota, each.measure, each.left(now)[0], each.end - now) for each in purses])

    def _charge_dead(self, now: int) -> None:
        """Charge what processes that have died had reserved: their calls may have used it."""
        at = time.monotonic()
        if at >= self._looked + self._lease_s:
            self._looked = at
            with suppress(Unavailable):
                self._held.move_dead(self._spent, now, _after)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Let no other process reserve meanwhile. In the block nothing is awaited."""
        if self._lock is None:
            yield
            return
        if self._descriptor is None:
            self._descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Unavailable("The budgets are in use by another process.") from None
            await asyncio.sleep(_AGAIN_S)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def _after(name: str, end: int) -> int:
    return period(name.split("\0")[2], end)[1]


def unlimited() -> Reservation:
    """Return a reservation of a call that nothing limits."""
    return MachineReservation(_NOBODY, (), ())


_NOBODY = MachineBudgets(Counts(), Counts(held=True))
