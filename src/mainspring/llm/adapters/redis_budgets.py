"""Budgets of the calls of all machines, on Redis or Valkey: a hash for each count and period, changed by scripts.

Their layout is described in `redis_budget_scripts`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from mainspring.core.errors import Unavailable
from mainspring.core.settings import Url
from mainspring.core.time import Clock, SystemClock
from mainspring.llm.adapters.redis_budget_scripts import CHARGE, RESERVE
from mainspring.llm.budgets import NOTHING, Reservation, Spend, limits, refusal, standing, too_much
from mainspring.security.model import Principal
from mainspring.security.quota import Quota, period

_TIMEOUT_S, _CONNECTIONS = 1.0, 32
_LIVES_MS, _BEAT_S = 15_000, 3.0  # without a sign, and between two
_AGAIN_S, _LONGEST_S = 0.05, 2.0  # between tries to charge
_AT_ONCE = 200  # charges sent together
_LEASE_S = 1.0  # between looks for dead processes before a refusal
_SWEEP_S = 15.0  # between looks in any case
_CLOSE_S = 5.0
_log = logging.getLogger(__name__)


class _Purse(NamedTuple):
    """One limit, for the callers of one count, in one period; instants are UTC epoch microseconds."""

    quota: Quota
    measure: str
    name: str
    key: str
    end: int
    kept_until: int

    @property
    def limit(self) -> int:
        return self.quota.limits[self.measure]

    def kept_ms(self, now: int) -> int:
        """Return how much longer its count is kept: a relative time, as the server's clock may differ."""
        return max(1000, (self.kept_until - now) // 1000)


class _Charge(NamedTuple):
    """Use of a reservation, to be reported to the server."""

    reservation: RedisReservation
    used: Spend
    last: int


class RedisReservation(Reservation):
    """Reservation on a server."""

    __slots__ = ("_budgets", "_open", "doubtful", "id", "purses")

    def __init__(self, budgets: RedisBudgets, id: str, purses: Sequence[_Purse]) -> None:
        self._budgets, self.id, self.purses = budgets, id, purses
        self.most = self.used = NOTHING
        self.fields = ()
        self.doubtful = False  # whether the server may reserve something later
        self._open = True

    async def grow(self, most: Spend) -> None:
        if self._open and self.purses:
            most = Spend(*map(max, most, self.most))
            self.fields = await self._budgets.hold(self, most)
            self.most = most

    def note(self, used: Spend) -> None:
        if self._open:
            self.used = used
            self._budgets.charge(_Charge(self, used, 0))

    def settle(self, used: Spend | None = None) -> None:
        if self._open:
            self._open = False
            self.used = used or self.used
            self._budgets.charge(_Charge(self, self.used, 2 if self.doubtful else 1))


class RedisBudgets:
    """Budgets on a server, of the processes of all machines that name it.

    What is charged while the server does not respond is charged once it does, as long as this process lives. What a
    process that dies has reserved is charged once it gave no sign for 15 seconds.

    Args:
        url: `redis://` or `rediss://` (TLS), or the same as `valkey`.
        project: Separates the budgets of several projects on one server.
        lease_s: Time between looks for processes that have died.
    """

    def __init__(self, url: Url, project: str, clock: Clock | None = None, *, lease_s: float = _LEASE_S) -> None:
        self._shown = url.shown
        pool = redis.BlockingConnectionPool.from_url(
            url.text.replace("valkey", "redis", 1),
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = redis.Redis.from_pool(pool)
        self._root = f"mainspring:{{{project}}}:1:budgets:"
        self._process = os.urandom(8).hex()
        self._numbers = count(1)
        self._clock = clock or SystemClock()
        self._lease_s = lease_s
        self._reserve = self._client.register_script(RESERVE)
        self._charge = self._client.register_script(CHARGE)
        self._charges: deque[_Charge] = deque()
        self._wanted, self._ending = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._looked = self._swept = float("-inf")

    async def reserve(self, quotas: Sequence[Quota], caller: Principal, model: str, most: Spend) -> RedisReservation:
        made = RedisReservation(self, f"{self._process}/{next(self._numbers)}", self._purses(quotas, caller, model))
        await made.grow(most)
        return made

    async def left(self, quotas: Sequence[Quota], caller: Principal, model: str) -> dict[str, int]:
        found: dict[str, int] = {}
        purses = self._purses(quotas, caller, model)
        if not purses:
            return found
        states: list[list[bytes | None]] = await self._asked(lambda: self._states(purses))
        for purse, (spent, held) in zip(purses, states, strict=True):
            free = max(0, purse.limit - int(spent or 0) - int(held or 0))
            found[purse.measure] = min(found.get(purse.measure, free), free)
        return found

    async def hold(self, reservation: RedisReservation, most: Spend) -> tuple[tuple[str, str], ...]:
        """Reserve the most of a call in all purses whose periods last, or in none, and return the header fields.

        Raises:
            As of `reserve`.
        """
        at = self._clock.now()
        purses = [purse for purse in reservation.purses if at < purse.end]
        if not purses:
            return reservation.fields
        for purse in purses:
            if most.of(purse.measure) > purse.limit:
                raise too_much(purse.quota, purse.measure, most.of(purse.measure))
        self._start()
        now = time.monotonic()
        look = int(now >= self._looked + self._lease_s)
        if now >= self._swept + _SWEEP_S:
            look, self._swept = 2, now
        keys = [f"{self._root}at:{self._process}", f"{self._root}names", *(purse.key for purse in purses)]
        arguments: list[str | int] = [_LIVES_MS, reservation.id, look, f"{self._root}at:", at // 1000]
        for each in purses:
            arguments += (each.name, each.end // 1000, each.kept_ms(at), most.of(each.measure), each.limit)
        try:
            short, *numbers = await self._asked(lambda: self._reserve(keys, arguments))
        except BaseException:  # the server may have reserved it, or will
            reservation.doubtful = True
            if reservation.most == NOTHING:
                reservation.settle(NOTHING)
            raise
        if short < 0:
            raise Unavailable(f"The budgets on {self._shown} took too long.")
        rest_us = [purse.end - at for purse in purses]
        if short:
            self._looked = now if look else self._looked
            purse, (free, unspent) = purses[short - 1], numbers
            more = most.of(purse.measure) - reservation.most.of(purse.measure)
            raise refusal(purse.quota, purse.measure, free, unspent < more, rest_us[short - 1])
        return standing(
            [
                (purse.quota, purse.measure, each, rest)
                for purse, each, rest in zip(purses, numbers, rest_us, strict=True)
            ]
        )

    def charge(self, charge: _Charge) -> None:
        """Charge what a reservation has used in all, soon."""
        if charge.reservation.purses:
            self._charges.append(charge)
            self._wanted.set()
            self._start()

    async def charged(self) -> None:
        """Wait until all that was charged is on the server."""
        while self._charges:
            await asyncio.sleep(0.002)

    async def vanish(self) -> None:
        """Give up what is reserved, as if the process had died for a while."""
        self._ending.set()  # not cancelled: a cancelled call of the client may go on
        self._wanted.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._client.delete(f"{self._root}at:{self._process}")

    async def close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self.charged()
        if self._charges:
            _log.error("%d charges of budgets were not written to %s.", len(self._charges), self._shown)
        with suppress(RedisError, OSError):
            await self.vanish()
        await self._client.aclose()

    def _purses(self, quotas: Sequence[Quota], caller: Principal, model: str) -> tuple[_Purse, ...]:
        now = self._clock.now()
        return tuple(self._purse(*each, now) for each in limits(quotas, caller, model))

    def _purse(self, quota: Quota, measure: str, name: str, now: int) -> _Purse:
        end = period(quota.per, now)[1]
        return _Purse(quota, measure, name, key_of(self._root, name, end), end, period(quota.per, end)[1])

    async def _states(self, purses: Sequence[_Purse]) -> Any:
        async with self._client.pipeline(transaction=False) as pipeline:
            for purse in purses:
                pipeline.hmget(purse.key, ["s", "h"])
            return await pipeline.execute()

    async def _asked(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await ask()
        except (RedisError, OSError) as error:
            raise Unavailable(f"The budgets on {self._shown} do not respond: {error}.") from None

    def _start(self) -> None:
        if not self._tasks:
            self._ending.clear()
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._write()), loop.create_task(self._beat())]

    async def _beat(self) -> None:
        """Show that this process lives."""
        while not self._ending.is_set():
            with suppress(RedisError, OSError):
                await self._client.set(f"{self._root}at:{self._process}", b"1", px=_LIVES_MS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_S):
                    await self._ending.wait()

    async def _write(self) -> None:
        """Send charges in their order, each until it is answered."""
        wait_s = _AGAIN_S
        while not self._ending.is_set():
            await self._wanted.wait()
            self._wanted.clear()
            while self._charges and not self._ending.is_set():
                sent = [self._charges[number] for number in range(min(_AT_ONCE, len(self._charges)))]
                try:
                    await self._send(sent)
                except (RedisError, OSError) as error:
                    if wait_s == _AGAIN_S:
                        _log.warning("Budgets cannot be charged on %s now: %s", self._shown, error)
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _LONGEST_S)
                    continue
                wait_s = _AGAIN_S
                for _ in sent:
                    self._charges.popleft()

    async def _send(self, charges: Sequence[_Charge]) -> None:
        now = self._clock.now()
        async with self._client.pipeline(transaction=False) as pipeline:
            for reservation, used, last in charges:
                arguments: list[str | int] = [reservation.id, last]
                for purse in reservation.purses:
                    arguments += (used.of(purse.measure), purse.kept_ms(now))
                await self._charge([purse.key for purse in reservation.purses], arguments, client=pipeline)
            await pipeline.execute()


def check(url: Url, project: str) -> None:
    """Reserve and charge a budget, and remove it. Not for an event loop.

    Raises:
        Unavailable: The server does not let its user do that, or does not respond.
    """
    quotas, nobody = (Quota("probe", per="second", tokens=1, by="all"),), Principal("probe", "probe", frozenset())

    async def charged() -> None:
        budgets = RedisBudgets(url, project)
        try:
            reservation = await budgets.reserve(quotas, nobody, "probe", Spend(1))
            charge = _Charge(reservation, NOTHING, 1)
            await budgets._asked(lambda: budgets._send([charge]))
            for purse in reservation.purses:
                await budgets._client.delete(purse.key)
                end = purse.end // 1000
                await budgets._client.zremrangebyscore(f"{budgets._root}names", end, end)
        finally:
            budgets._charges.clear()  # of what could not be reserved
            await budgets.close()

    asyncio.run(charged())


def key_of(root: str, name: str, end: int) -> str:
    """Return the key of a count in a period."""
    return f"{root}of:{name}:{end}"


def spent_of(url: Url, project: str, now: int) -> Iterator[tuple[str, int]]:
    """Yield the name of each count, and what is spent of it in its current period.

    Raises:
        Unavailable: The server does not respond.
    """
    import redis as blocking

    root = f"mainspring:{{{project}}}:1:budgets:"
    text = url.text.replace("valkey", "redis", 1)
    try:
        with blocking.Redis.from_url(text, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S) as client:
            found: Any = client.zrangebyscore(f"{root}names", now // 1000, "+inf")
            for name in [each.decode() for each in found]:
                end = period(name.split("\0")[2], now)[1]
                value: Any = client.hget(key_of(root, name, end), "s")
                yield name, int(value or 0)
    except RedisError as error:
        raise Unavailable(f"The budgets on {url.shown} do not respond: {error}.") from None
