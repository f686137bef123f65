"""Budgets of language models, in tokens and money: reserved before a call, settled after it.

A budget is a `Quota`. A call reserves the most that it can use; the reservation fails if that and all that is spent and
reserved is more than a limit. Settled is what was used. Both are counts of all processes of a machine, in two mapped
files (see `serving.plane.counts`): what a killed process settled stays spent, and what it reserved is free again when
another call would be refused for it. A reservation is summed and added under a lock of the kernel, so that budgets are
neither exceeded nor refused early, however many calls and processes ask at once.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from mainspring.core.errors import Invalid, QuotaExceeded, Unavailable
from mainspring.core.time import Clock, SystemClock
from mainspring.security.model import Principal
from mainspring.serving.plane.counts import FILE, Counts, Row
from mainspring.serving.plane.metering import Fields, label_of, name_of, named, policy_of, state_of, subject_of, worded
from mainspring.serving.quota import COST, REQUESTS, TOKENS, Quota, period

RESERVATIONS = "reservations"
_LOCK = "budgets.lock"
_MOST_NAMES = 8192
_LOCK_WAIT_S = 0.05  # of the event loop
_AGAIN_S = 0.0001
_BUSY_MS = 1000  # until others' reservations may have been settled
_LEASE_S = 1.0


class Spend(NamedTuple):
    """An amount of each measure. Money is in millionths of the currency."""

    tokens: int
    micros: int = 0
    requests: int = 1

    def of(self, measure: str) -> int:
        """Return the amount of a measure of quotas."""
        return {TOKENS: self.tokens, COST: self.micros, REQUESTS: self.requests}[measure]


NOTHING = Spend(0, 0, 0)


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


class Reservation:
    """Reservation of the most that one call may use.

    As a context it is settled at its end: with what was noted, by default with nothing.

    Attributes:
        most: What is reserved, together with what was used of it.
        used: What was noted.
        fields: Header fields of the reply.
    """

    __slots__ = ("_budgets", "_ends", "_open", "_purses", "fields", "most", "used")

    def __init__(self, budgets: Budgets, purses: Sequence[Purse], fields: Fields) -> None:
        self._budgets, self._purses = budgets, purses
        self._ends = [each.end for each in purses]
        self.most = NOTHING
        self._open = True
        self.used = NOTHING
        self.fields = fields

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    def grow(self, most: Spend) -> None:
        """Reserve more for the call: `most` is all that it may use together, with what it has used.

        Raises:
            As of `Budgets.reserve`; the reservation stays as it was.
        """
        if self._open:
            self._budgets.hold(self._purses, self._ends, self.most, Spend(*map(max, most, self.most)))
            self.most = Spend(*map(max, most, self.most))

    def note(self, used: Spend) -> None:
        """Charge what the call has used so far, also what is more than was reserved."""
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
        """Charge what the call has used, by default what was noted, and free the rest. A second time does nothing."""
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


class Budgets:
    """Budgets of this process's calls.

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
    ) -> Budgets:
        """Return the budgets that the processes of a machine share in a folder; `spent` are counts of its `FILE`."""
        held = Counts(folder / RESERVATIONS, held=True)
        return cls(spent or Counts(folder / FILE), held, folder / _LOCK, clock, lease_s)

    def now(self) -> int:
        """Return the current instant, UTC epoch microseconds."""
        return self._clock.now()

    def reserve(self, quotas: Sequence[Quota], caller: Principal, model: str, most: Spend) -> Reservation:
        """Reserve what a call uses at most, of all quotas that limit its caller, or of none.

        Raises:
            QuotaExceeded: A quota is spent, or what is left of it is reserved by other calls.
            Invalid: The call alone may use more than a limit.
            Unavailable: Another process holds the counts and does not go on.
        """
        purses = [
            self._purse(quota, measure, subject_of(quota, caller, model))
            for quota in quotas
            if named(quota.only, caller, model)
            for measure in quota.limits
        ]
        for purse in purses:
            purse.turn(self.now())
        made = Reservation(self, purses, ())
        made.grow(most)
        made.fields = self._fields(purses)
        return made

    def left(self, quotas: Sequence[Quota], caller: Principal, model: str) -> dict[str, int]:
        """Return measure -> what the caller may still reserve, by its tightest quota; absent where none limits it."""
        found: dict[str, int] = {}
        for quota in quotas:
            if named(quota.only, caller, model):
                for measure in quota.limits:
                    purse = self._purse(quota, measure, subject_of(quota, caller, model))
                    purse.turn(self.now())
                    free = max(0, purse.left(self.now())[0])
                    found[measure] = min(found.get(measure, free), free)
        return found

    def hold(self, purses: Sequence[Purse], ends: Sequence[int], before: Spend, after: Spend) -> None:
        """Reserve the difference of two amounts in all purses whose periods last, or in none; as of `reserve`."""
        now, asked = self.now(), []
        for purse, end in zip(purses, ends, strict=True):
            if purse.end == end and (more := after.of(purse.measure) - before.of(purse.measure)):
                asked.append((purse, more))
                if after.of(purse.measure) > purse.limit:
                    raise _too_much(purse, after.of(purse.measure))
        if not asked:
            return
        with self._alone():
            for purse, more in asked:
                if purse.left(now)[0] < more:
                    self._release_dead()
                    free, unspent = purse.left(now)
                    if free < more:
                        raise _refusal(purse, free, unspent < more, now)
            for purse, more in asked:
                purse.hold(more, now)

    def close(self) -> None:
        """Give the columns of the counts back."""
        self._spent.close()
        self._held.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _purse(self, quota: Quota, measure: str, subject: str) -> Purse:
        name = name_of(quota, measure, subject)
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
        return (("ratelimit", ", ".join([_state(each, max(0, each.left(now)[0]), now) for each in purses])),)

    def _release_dead(self) -> None:
        now = time.monotonic()
        if now >= self._looked + self._lease_s:
            self._looked = now
            self._held.release_dead()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process reserve meanwhile."""
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
                time.sleep(_AGAIN_S)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def unlimited() -> Reservation:
    """Return a reservation of a call that nothing limits."""
    return Reservation(_NOBODY, (), ())


_NOBODY = Budgets(Counts(), Counts(held=True))


def _state(purse: Purse, left: int, now: int) -> str:
    return state_of(label_of(purse.quota, purse.measure), purse.measure, left, purse.end - now)


def _too_much(purse: Purse, amount: int) -> Invalid:
    what, limit = worded(purse.measure, amount), worded(purse.measure, purse.limit)
    return Invalid(
        f"The request may use {what}; the quota {purse.quota.name!r} is {limit} a {purse.quota.per}.",
        fix="ask for fewer tokens.",
    )


def _refusal(purse: Purse, free: int, spent: bool, now: int) -> QuotaExceeded:
    quota, limit = purse.quota, worded(purse.measure, purse.limit)
    fields = (
        ("ratelimit-policy", policy_of(quota, purse.measure)),
        ("ratelimit", _state(purse, max(0, free), now)),
    )
    told = f"The quota {quota.name!r} of {limit} a {quota.per} is "
    if spent:
        return QuotaExceeded(told + "spent.", retry_after_ms=-(-(purse.end - now) // 1000), fields=fields)
    return QuotaExceeded(told + "reserved by calls under way.", retry_after_ms=_BUSY_MS, fields=fields)
