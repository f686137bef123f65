"""Budgets of language models, in tokens and money: reserved before a call, settled after it; and of requests alone.

A budget is a `Quota`. A call reserves the most that it can use; the reservation fails if that and all that is spent and
reserved is more than a limit. Settled is what was used. Of the processes of one machine: `machine_budgets`; of all
machines: `adapters.redis_budgets`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from mainspring.core.errors import Invalid, Overloaded, QuotaExceeded, Unavailable
from mainspring.security.model import Principal
from mainspring.security.quota import COST, REQUESTS, TOKENS, Quota
from mainspring.serving.plane.metering import Fields, label_of, name_of, named, policy_of, state_of, subject_of, worded

_BUSY_MS = 1000  # until others' reservations may have been settled


class Spend(NamedTuple):
    """An amount of each measure. Money is in millionths of the currency."""

    tokens: int
    micros: int = 0
    requests: int = 1

    def of(self, measure: str) -> int:
        """Return the amount of a measure of quotas."""
        return {TOKENS: self.tokens, COST: self.micros, REQUESTS: self.requests}[measure]


NOTHING, ONE = Spend(0, 0, 0), Spend(0)
_REFUSED = (Overloaded, Unavailable)  # by the server, for no fault of a caller's


class Reservation(ABC):
    """Reservation of the most that one call may use.

    As a context it is settled at its end: with what was noted, by default with nothing.

    Attributes:
        most: What is reserved, together with what was used of it.
        used: What was noted.
        fields: Header fields of the reply.
    """

    __slots__ = ("fields", "most", "used")
    most: Spend
    used: Spend
    fields: Fields

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    @abstractmethod
    async def grow(self, most: Spend) -> None:
        """Reserve more for the call: `most` is all that it may use together, with what it has used.

        Raises:
            As of `Budgets.reserve`; the reservation stays as it was.
        """

    @abstractmethod
    def note(self, used: Spend) -> None:
        """Charge what the call has used so far, also what is more than was reserved."""

    @abstractmethod
    def settle(self, used: Spend | None = None) -> None:
        """Charge what the call has used, by default what was noted, and free the rest. A second time does nothing."""


class Budgets(Protocol):
    """Budgets of calls, whichever processes make them. Belongs to one event loop."""

    async def reserve(self, quotas: Sequence[Quota], caller: Principal, model: str, most: Spend) -> Reservation:
        """Reserve what a call uses at most, of all quotas that limit its caller, or of none.

        Raises:
            QuotaExceeded: A quota is spent, or what is left of it is reserved by other calls.
            Invalid: The call alone may use more than a limit.
            Unavailable: The counts do not respond.
        """
        ...

    async def left(self, quotas: Sequence[Quota], caller: Principal, model: str) -> dict[str, int]:
        """Return measure -> what the caller may still reserve, by its tightest quota; absent where none limits it.

        Raises:
            Unavailable: The counts do not respond.
        """
        ...

    async def close(self) -> None:
        """Let go of the counts. What calls used is charged before that."""
        ...


@asynccontextmanager
async def counted(budgets: Budgets, quotas: Sequence[Quota], caller: Principal, name: str) -> AsyncIterator[Fields]:
    """Count one request of a caller, and yield header fields of its reply. One that the server then refuses, because
    it has no room or not what it needs, is not counted; one that fails otherwise is, and one whose caller leaves.

    Args:
        name: Name of what has the quotas.

    Raises:
        QuotaExceeded: A quota is spent.
        Unavailable: The counts do not respond.
    """
    with await budgets.reserve(quotas, caller, name, ONE) as made:
        try:
            yield made.fields
        except _REFUSED:
            raise
        except BaseException:
            made.note(ONE)
            raise
        made.note(ONE)


def limits(quotas: Sequence[Quota], caller: Principal, model: str) -> Iterator[tuple[Quota, str, str]]:
    """Yield each quota that limits a caller, once for each of its measures, with the name of the caller's count."""
    for quota in quotas:
        if named(quota.only, caller, model):
            subject = subject_of(quota, caller, model)
            for measure in quota.limits:
                yield quota, measure, name_of(quota, measure, subject)


def standing(purses: Sequence[tuple[Quota, str, int, int]]) -> Fields:
    """Return the header fields that say what is left of limits.

    Args:
        purses: Of each its quota, measure, what is left, and the time until its period ends.
    """
    return (("ratelimit", ", ".join([_state(*each) for each in purses])),)


def too_much(quota: Quota, measure: str, amount: int) -> Invalid:
    """Return the error of a call that may use more than a limit by itself."""
    what, limit = worded(measure, amount), worded(measure, quota.limits[measure])
    return Invalid(
        f"The request may use {what}; the quota {quota.name!r} is {limit} a {quota.per}.",
        fix="ask for fewer tokens.",
    )


def refusal(quota: Quota, measure: str, free: int, spent: bool, rest_us: int) -> QuotaExceeded:
    """Return the error of a call for which there is no room.

    Args:
        free: What is neither spent nor reserved.
        spent: Whether there would be no room without reservations either.
        rest_us: Until the end of the period.
    """
    limit = worded(measure, quota.limits[measure])
    fields = (
        ("ratelimit-policy", policy_of(quota, measure)),
        ("ratelimit", _state(quota, measure, free, rest_us)),
    )
    told = f"The quota {quota.name!r} of {limit} a {quota.per} is "
    if spent:
        return QuotaExceeded(told + "spent.", retry_after_ms=-(-rest_us // 1000), fields=fields)
    return QuotaExceeded(told + "reserved by calls under way.", retry_after_ms=_BUSY_MS, fields=fields)


def _state(quota: Quota, measure: str, left: int, rest_us: int) -> str:
    return state_of(label_of(quota, measure), measure, max(0, left), rest_us)
