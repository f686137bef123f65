"""Fair queues before an upstream: callers share its tokens in flight by weight.

An upstream holds the tokens of all calls under way in its memory (the KV cache), so what it can take is a number of
tokens, not of calls. A call asks for the most that it may use. While that does not fit, calls wait, each key's in
order; the key next to start one is that with the least service by weight. Service is virtual time as of start-time
fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): a key whose calls begin to wait takes over the least of those that wait
already, so it is neither owed for the time in which it asked nothing, nor in debt. Charged are tokens, corrected when a
call has ended, as in the Virtual Token Counter (Sheng et al., Fairness in Serving Large Language Models, OSDI 2024).

Of two keys that wait all the time, the services by weight never differ by more than their largest calls by weight.
The next call waits until it fits, and none passes it: large calls do not starve. When the queue is full, the key that
has most calls in it by weight loses its newest, as in stochastic fair queueing (McKenney, INFOCOM 1990).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil

import msgspec

from mainspring.core.errors import DeadlineExceeded, Invalid, Overloaded
from mainspring.core.time import SECOND

_KEPT = 1024  # keys whose service is known while none of their calls waits
_SOONEST_MS, _LATEST_MS = 100, 60_000  # of an advice to ask again
_RECENT = 0.9  # weight of the past in the pace at which tokens are freed, at each call that ends


class Job(msgspec.Struct, eq=False, kw_only=True):
    """A call that asks to start.

    Attributes:
        tokens: The most that it may use.
        deadline: Instant until which it waits.
        weight: Share of its key, compared with those of the others.
        start: Is called when it starts; `drop`: when it was dropped for another's call, with the error.
    """

    key: str
    tokens: int
    deadline: int
    weight: float = 1.0
    start: Callable[[], None] | None = None
    drop: Callable[[Overloaded], None] | None = None
    waits: bool = False
    held: bool = False


class _Flow:
    """The calls of one key that wait."""

    __slots__ = ("jobs", "service", "weight")

    def __init__(self, service: float) -> None:
        self.jobs: deque[Job] = deque()
        self.service = service
        self.weight = 1.0

    @property
    def length(self) -> float:
        return len(self.jobs) / self.weight


class FairQueue:
    """The queue of one upstream. It has no clock and no thread; instants are microseconds of the caller's clock.

    Args:
        capacity: Tokens in flight.
        most_waiting: Calls that wait at most.

    Attributes:
        in_flight: Tokens of the calls that started and have not ended.
        waiting: Number of calls that wait.
    """

    def __init__(self, capacity: int, most_waiting: int = 256) -> None:
        self.capacity = capacity
        self._most_waiting = most_waiting
        self._flows: dict[str, _Flow] = {}  # with calls that wait
        self._idle: dict[str, float] = {}  # key -> service
        self._virtual = 0.0  # service of the key whose call started last
        self._freed_at: int | None = None
        self._freed = self._freed_in = 0.0  # recent tokens, and the µs in which they were freed
        self.in_flight = self.waiting = self._waiting_tokens = 0

    def offer(self, job: Job, now: int) -> bool:
        """Start a call at once if it may, else let it wait; return whether it started.

        Raises:
            Invalid: It may use more tokens than the upstream holds at all.
            Overloaded: The queue is full, and no other key has more in it.
        """
        if job.tokens > self.capacity:
            raise Invalid(
                f"The request may use {job.tokens:,} tokens; the model's upstream takes {self.capacity:,} at once.",
                fix="send a shorter prompt, or ask for fewer tokens.",
            )
        if not self._flows and self.in_flight + job.tokens <= self.capacity:
            flow = _Flow(max(self._idle.pop(job.key, 0.0), self._virtual))
            flow.weight = job.weight
            self._begin(job, flow)
            self._leave(job.key, flow)
            return True
        if self.waiting >= self._most_waiting:
            self._make_room(job, now)
        flow = self._flows.get(job.key) or self._enter(job.key)
        flow.weight = job.weight
        flow.jobs.append(job)
        job.waits = True
        self.waiting += 1
        self._waiting_tokens += job.tokens
        self._pump(now)
        return job.held

    def cancel(self, job: Job, now: int) -> None:
        """Take a call out of the queue, if it waits."""
        if job.waits:
            self._remove(job)
            self._pump(now)

    def end(self, job: Job, now: int, used: int | None = None) -> None:
        """Free the tokens of a call; its key is charged for what it `used`, by default for what it asked."""
        if not job.held:
            return
        job.held = False
        self.in_flight -= job.tokens
        self._pace(job.tokens, now)
        if used is not None and used < job.tokens:
            credit = (job.tokens - used) / job.weight
            if (flow := self._flows.get(job.key)) is not None:
                flow.service -= credit
            elif job.key in self._idle:
                self._idle[job.key] -= credit
        self._pump(now)

    def retry_after_ms(self) -> int:
        """Return when a call that is refused may find room: the time in which the queue drains at the recent pace."""
        if not self._freed_in:
            return 1000
        ms = ceil((self._waiting_tokens + self.in_flight) * self._freed_in / self._freed / 1000)
        return min(max(ms, _SOONEST_MS), _LATEST_MS)

    def _pump(self, now: int) -> None:
        """Start calls while the next one fits; those whose deadline is over leave."""
        while self._flows:
            key, flow = min(self._flows.items(), key=_by_service)
            job = flow.jobs[0]
            late = job.deadline <= now
            if not late and self.in_flight + job.tokens > self.capacity:
                return
            self._remove(job)
            if not late:
                self._begin(job, flow)
                if key in self._idle:
                    self._idle[key] = flow.service
            elif job.drop is not None:
                job.drop(Overloaded("The request waited until its deadline.", retry_after_ms=self.retry_after_ms()))

    def _begin(self, job: Job, flow: _Flow) -> None:
        self._virtual = max(self._virtual, flow.service)
        flow.service += job.tokens / job.weight
        self.in_flight += job.tokens
        job.held = True
        if job.start is not None:
            job.start()

    def _enter(self, key: str) -> _Flow:
        least = min((each.service for each in self._flows.values()), default=self._virtual)
        flow = self._flows[key] = _Flow(max(self._idle.pop(key, least), least))
        return flow

    def _leave(self, key: str, flow: _Flow) -> None:
        self._idle[key] = flow.service
        if len(self._idle) > _KEPT:
            del self._idle[next(iter(self._idle))]

    def _remove(self, job: Job) -> None:
        flow = self._flows[job.key]
        if flow.jobs[0] is job:
            flow.jobs.popleft()
        else:
            flow.jobs.remove(job)
        job.waits = False
        self.waiting -= 1
        self._waiting_tokens -= job.tokens
        if not flow.jobs:
            del self._flows[job.key]
            self._leave(job.key, flow)

    def _make_room(self, job: Job, now: int) -> None:
        for flow in list(self._flows.values()):
            for each in [one for one in flow.jobs if one.deadline <= now]:
                self._remove(each)
                if each.drop is not None:
                    each.drop(_full(self.retry_after_ms()))
        if self.waiting < self._most_waiting:
            return
        longest = max(self._flows.values(), key=_length)
        own = self._flows.get(job.key)
        if (len(own.jobs) + 1 if own else 1) / job.weight >= longest.length:
            raise _full(self.retry_after_ms())
        dropped = longest.jobs[-1]
        self._remove(dropped)
        if dropped.drop is not None:
            dropped.drop(_full(self.retry_after_ms()))

    def _pace(self, tokens: int, now: int) -> None:
        if self._freed_at is not None:
            self._freed = _RECENT * self._freed + tokens
            self._freed_in = _RECENT * self._freed_in + now - self._freed_at
        self._freed_at = now


class Admission:
    """The queue of one upstream on an event loop.

    Args:
        now: A clock that is never set, microseconds.
    """

    def __init__(self, queue: FairQueue, now: Callable[[], int]) -> None:
        self.queue = queue
        self._now = now

    async def enter(self, key: str, tokens: int, *, within_us: int, weight: float = 1.0) -> Job:
        """Wait for a call's turn; give what is returned to `leave`.

        Raises:
            Invalid, Overloaded: As of `FairQueue.offer`; or it was dropped for the call of another key.
            DeadlineExceeded: Its turn did not come in time.
        """
        now = self._now()
        job = Job(key=key, tokens=tokens, deadline=now + within_us, weight=weight)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        job.start = lambda: None if turn.done() else turn.set_result(None)
        job.drop = lambda error: None if turn.done() else turn.set_exception(error)
        if self.queue.offer(job, now):
            return job
        try:
            async with asyncio.timeout(within_us / SECOND):
                await turn
        except TimeoutError:
            self._give_up(job)
            after_ms = self.queue.retry_after_ms()
            raise DeadlineExceeded("The request waited until its deadline.", retry_after_ms=after_ms) from None
        except BaseException:
            self._give_up(job)
            raise
        return job

    def leave(self, job: Job, used: int | None = None) -> None:
        """End a call; `used` are the tokens that it used, if known."""
        self.queue.end(job, self._now(), used)

    def _give_up(self, job: Job) -> None:
        self.queue.cancel(job, self._now())
        self.queue.end(job, self._now(), 0)


def _by_service(flow: tuple[str, _Flow]) -> float:
    return flow[1].service


def _length(flow: _Flow) -> float:
    return flow.length


def _full(after_ms: int) -> Overloaded:
    return Overloaded("Too many requests wait for the model.", retry_after_ms=after_ms)
