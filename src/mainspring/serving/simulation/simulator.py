"""The simulation: events of requests, batches, executors and replicas, in virtual time.

Each replica is a gateway process: one loop, the batcher, executors and the policy of the gateway itself. In a turn the
loop reads all requests that have come, one after the other, then batches begin; a model that runs on the loop holds up
the next turn. A replica gets each request by turns, as a balancer of connections gives them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import SECOND
from mainspring.serving.batching.batcher import Batch, Batcher, Job
from mainspring.serving.scaling.policy import Observed, Policy
from mainspring.serving.simulation.arrivals import Instants
from mainspring.serving.simulation.fleet import FleetRule
from mainspring.serving.simulation.model import Endpoint, Machines, Simulated

_TICK_S = 0.5  # of the gateway's scaler
_LEARNT = 40  # batches that a new batcher has seen: a gateway checks a model's golden rows at several sizes


@dataclass(slots=True, eq=False)
class _Replica:
    batcher: Batcher[int]
    policy: Policy
    ready_at: int
    since: int
    size: int = 0  # executors
    loop_free: int = 0
    active: int = 0  # when it last did something
    running: int = 0
    busy_us: float = 0.0
    waited_us: float = 0.0
    taken: int = 0
    lost: int = 0
    asked: int = 0
    before: tuple[float, float, int, int, int] = (0.0, 0.0, 0, 0, 0)
    looked: float = 0.0
    loading: bool = False
    gone: bool = False
    luck: float | None = None  # of the request that woke it
    wake: int = -1
    held: dict[int, int] = field(default_factory=dict)  # requests that are here: number -> arrival
    unread: list[int] = field(default_factory=list)  # those that its loop reads in its next turn
    unread_us: float = 0.0


def simulate(
    endpoint: Endpoint, arrivals: Instants, rule: FleetRule, machines: Machines | None = None, seed: int = 0
) -> Simulated:
    """Return what a load comes to.

    Args:
        arrivals: Instants of requests, µs, ascending.
        seed: Of what is left to chance: durations and losses of machines.

    Raises:
        Invalid: There is no request, or the numbers are out of range.
    """
    if not len(arrivals):
        raise Invalid("The load has no request.", fix='describe one: "50/s for 10m".')
    if not 0 <= endpoint.executors[0] <= endpoint.executors[1] or not endpoint.executors[1]:
        raise Invalid(
            f"The executors are {endpoint.executors}.", fix="the least is at most the most, which is above 0."
        )
    return _Simulation(endpoint, arrivals, rule, machines or Machines(), seed).run()


def simulate_often(
    endpoint: Endpoint, arrivals: Instants, rule: Callable[[], FleetRule], machines: Machines | None = None, *,
    seed: int = 0, times: int = 5,
) -> Simulated:  # fmt: skip
    """Return the outcome of several that is in the middle by its mean latency: near a limit of a policy chance decides.

    Args:
        rule: Makes a rule; one remembers what it saw.
    """
    found = [simulate(endpoint, arrivals, rule(), machines, seed + each) for each in range(times)]
    found.sort(key=lambda each: float(each.latencies_us.mean()) if len(each.latencies_us) else 0.0)
    return found[len(found) // 2]


class _Simulation:
    def __init__(self, endpoint: Endpoint, arrivals: Instants, rule: FleetRule, machines: Machines, seed: int) -> None:
        self._waking = endpoint.waking
        self._endpoint, self._arrivals, self._rule, self._machines = endpoint, arrivals, rule, machines
        self._rng = np.random.default_rng(seed)
        self._chances: list[float] = []
        self._now = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._replicas: list[_Replica] = []
        self._turn = 0
        self._end = int(arrivals[-1]) + 1
        self._answered: list[float] = []
        self._in_time = self._refused = self._lost = 0
        self._machine_us = self._executor_us = self._busy_us = self._processor_us = 0.0
        self._busy_before = 0.0
        self._size = 0
        self._sized = 0
        self._sizes: list[tuple[float, int]] = []
        self._counts: list[tuple[float, int]] = []

    def run(self) -> Simulated:
        for _ in range(max(self._rule.first, 0)):
            self._boot(0.0)
        self._at(int(self._rule.every_s * SECOND), self._look)
        self._at(int(_TICK_S * SECOND), self._scale)
        arrivals = self._arrivals.tolist()
        place, count = 0, len(arrivals)
        events = self._events
        while place < count or events:
            if events and (place == count or events[0][0] <= arrivals[place]):
                if place == count and not self._waiting():
                    break
                self._now, _, act = heapq.heappop(events)
                act()
            else:
                self._now = arrivals[place]
                self._arrive(place)
                place += 1
        for each in self._replicas:
            self._stop(each)
        end = max(self._now, self._end)
        self._note_size(end)
        return Simulated(
            seconds=self._end / SECOND,
            asked=count,
            latencies_us=np.asarray(self._answered),
            in_time=self._in_time,
            refused=self._refused,
            lost=self._lost,
            machine_s=self._machine_us / SECOND,
            executor_s=self._executor_us / SECOND,
            busy_s=self._busy_us / SECOND,
            processor_s=(self._processor_us + self._endpoint.idle_share * self._machine_us) / SECOND,
            replicas=self._counts,
            executors=self._sizes,
        )

    def _waiting(self) -> bool:
        return any(each.held for each in self._replicas)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (int(when), self._number, act))

    def _chance(self) -> float:
        if not self._chances:
            self._chances = self._rng.random(4096).tolist()
        return self._chances.pop()

    # Replicas

    def _boot(self, boot_s: float) -> None:
        endpoint = self._endpoint
        batcher: Batcher[int] = Batcher(
            lambda: self._now, max_queue_rows=endpoint.max_queue_rows, max_batch_rows=endpoint.max_batch_rows
        )
        for number in range(_LEARNT):
            rows = endpoint.times.sizes[number % len(endpoint.times.sizes)]
            batcher.cost.observe(rows, endpoint.times.draw(rows, self._chance()))
        least, most = endpoint.executors
        policy = Policy(least, most, deadline_s=endpoint.deadline_us / SECOND, idle_s=endpoint.idle_s)
        ready = self._now + int(boot_s * SECOND)
        replica = _Replica(batcher, policy, ready, self._now, loop_free=ready, active=ready, looked=ready / SECOND)
        self._replicas.append(replica)
        self._counts.append((self._now / SECOND, len(self._replicas)))
        self._at(ready, lambda: self._resize(replica, max(least, 1)))
        lives = self._machines.lives
        if lives is not None and (ends := self._now + lives.draw_s(self._chance()) * SECOND) < self._end:
            self._at(ends, lambda: self._interrupt(replica))

    def _stop(self, replica: _Replica) -> None:
        if not replica.gone:
            replica.gone = True
            until = max(self._now, self._end) if replica in self._replicas else self._now
            self._machine_us += until - replica.since
            self._note_size(self._now, -replica.size)

    def _remove(self, replica: _Replica) -> None:
        self._replicas.remove(replica)
        self._counts.append((self._now / SECOND, len(self._replicas)))
        self._machine_us += self._now - replica.since
        self._note_size(self._now, -replica.size)
        replica.gone, replica.size = True, 0

    def _interrupt(self, replica: _Replica) -> None:
        if not replica.gone:
            self._lost += len(replica.held)
            replica.held.clear()
            self._remove(replica)
            self._boot(self._machines.boot_s)

    def _look(self) -> None:
        rule, count = self._rule, len(self._replicas)
        # One that starts counts as idle, as Kubernetes' autoscaler takes it: else each look would add for it again.
        there = sum(each.size or max(1, self._endpoint.executors[0]) for each in self._replicas)
        passed = rule.every_s * SECOND * max(1, there)
        utilisation = min(1.0, (self._busy_us - self._busy_before) / passed)
        self._busy_before = self._busy_us
        wanted = rule.wanted(self._now / SECOND, count, utilisation)
        for _ in range(wanted - count):
            self._boot(self._machines.boot_s)
        idle_first = sorted(self._replicas, key=lambda each: (len(each.held), -each.since))
        for replica in idle_first[: max(0, count - wanted)]:
            self._drain(replica)
        if self._now < self._end:
            self._at(self._now + rule.every_s * SECOND, self._look)

    def _drain(self, replica: _Replica) -> None:
        """Remove a replica; what it has it answers, as a gateway does that is stopped."""
        self._remove(replica)
        replica.size = 1 if replica.held else 0
        replica.batcher.executors = max(1, replica.size)
        self._begin(replica)

    # Executors

    def _note_size(self, at: int, change: int = 0) -> None:
        self._executor_us += self._size * (at - self._sized)
        self._sized = at
        if change:
            self._size += change
            self._sizes.append((at / SECOND, self._size))

    def _resize(self, replica: _Replica, size: int) -> None:
        if replica.gone or size == replica.size:
            return
        self._note_size(self._now, size - replica.size)
        replica.size = size
        replica.batcher.executors = max(1, size)
        self._begin(replica)

    def _scale(self) -> None:
        endpoint = self._endpoint
        least, most = endpoint.executors
        for replica in self._replicas:
            if least == most or replica.ready_at > self._now:
                continue
            now = (replica.busy_us, replica.waited_us, replica.taken, replica.lost, replica.asked)
            busy, waited, taken, lost, asked = (one - other for one, other in zip(now, replica.before, strict=True))
            replica.before = now
            passed = max(self._now / SECOND - replica.looked, 1e-3)
            replica.looked = self._now / SECOND
            seen = Observed(
                self._now / SECOND,
                replica.size,
                min(1.0, busy / SECOND / passed / max(1, replica.size)),
                waited / SECOND / taken if taken else 0.0,
                int(lost) if replica.size else 0,
                int(asked),
            )
            goal = replica.policy.decide(seen).executors
            if replica.size and goal != replica.size and not replica.loading:
                self._grow(replica, goal)
        if self._now < self._end:
            self._at(self._now + _TICK_S * SECOND, self._scale)

    def _grow(self, replica: _Replica, goal: int) -> None:
        if goal < replica.size:
            self._resize(replica, goal)
            return
        replica.loading = True
        self._processor_us += (goal - replica.size) * self._endpoint.load_processor_s * SECOND

        def loaded() -> None:
            replica.loading = False
            self._resize(replica, goal)

        self._at(self._now + self._endpoint.load_s * SECOND, loaded)

    # Requests

    def _arrive(self, number: int) -> None:
        arrived = self._now
        ready = self._replicas
        if len(ready) != 1 or ready[0].ready_at > arrived:
            ready = [each for each in ready if each.ready_at <= arrived]
            if not ready:
                self._lost += 1
                return
        self._turn = (self._turn + 1) % len(ready)
        replica = ready[self._turn]
        free = replica.loop_free
        takes = processor = self._endpoint.overhead_us
        if self._waking is not None and free <= arrived and not replica.held:
            chance = replica.luck = self._chance()
            more, more_processor = self._waking.draw(arrived - max(replica.active, free), chance)
            takes += more
            processor += more_processor
        elif self._waking is not None and self._endpoint.inline:
            takes += self._waking.draw_busy(self._chance())
        self._processor_us += processor
        replica.held[number] = arrived
        replica.unread.append(number)
        replica.unread_us += takes
        if len(replica.unread) == 1:
            self._when_free(replica, self._read)

    def _when_free(self, replica: _Replica, act: Callable[[_Replica], None]) -> None:
        """Let a replica's loop do something once it has done what it is at."""
        if replica.loop_free <= self._now:
            act(replica)
        else:
            self._at(replica.loop_free, lambda: self._when_free(replica, act))

    def _read(self, replica: _Replica) -> None:
        numbers, replica.unread = replica.unread, []
        replica.loop_free = self._now + int(replica.unread_us)
        replica.unread_us = 0.0

        def offer(replica: _Replica) -> None:
            for number in numbers:
                self._offer(replica, number)
            if replica.running < replica.size:
                self._begin(replica)

        self._when_free(replica, offer)

    def _offer(self, replica: _Replica, number: int) -> None:
        arrived = replica.held.get(number)
        if arrived is None:
            return  # its machine was lost
        endpoint, batcher = self._endpoint, replica.batcher
        replica.asked += 1
        deadline = arrived + endpoint.deadline_us
        if not replica.size and not replica.gone:  # the first request waits for the model
            if not replica.loading:
                self._grow(replica, max(1, endpoint.executors[0]))
            deadline = self._now + int(endpoint.load_s * SECOND) + endpoint.deadline_us
        try:
            batcher.offer(Job(number, endpoint.rows, deadline, 0))
        except MainspringError:
            self._refuse(replica, number)

    def _refuse(self, replica: _Replica, number: int) -> None:
        if replica.held.pop(number, None) is not None:
            self._refused += 1
            replica.lost += 1

    def _begin(self, replica: _Replica) -> None:
        while replica.batcher.waiting_rows and replica.running < replica.size and replica.batcher.idle:
            until = replica.batcher.wait_until()
            if until > self._now:
                if replica.wake != until:
                    replica.wake = until
                    self._at(until, lambda: self._when_free(replica, self._begin))
                return
            batch = replica.batcher.take()
            for job in batch.late:
                self._refuse(replica, job.payload)
            if not batch.jobs:
                return
            self._compute(replica, batch)

    def _compute(self, replica: _Replica, batch: Batch[int]) -> None:
        endpoint, executors = self._endpoint, batch.executors
        replica.running += executors
        chance, replica.luck = replica.luck, None
        if executors > 1:
            rows = ceil(batch.rows / executors)
            takes = max([endpoint.times.draw(rows, self._chance()) for _ in range(executors)])
        else:  # of a request alone what it takes in all was one measured latency
            takes = endpoint.times.draw(
                batch.rows, self._chance() if chance is None or len(replica.held) > 1 else chance
            )
        works = takes * executors
        crowd = replica.running * endpoint.model_share / endpoint.cores
        if crowd > 1:
            takes *= crowd
        replica.busy_us += takes * executors
        self._busy_us += works
        self._processor_us += works * endpoint.model_share + endpoint.batch_us
        replica.taken += len(batch.jobs)
        now = self._now
        for job in batch.jobs:
            replica.waited_us += now - job.arrived
        takes += endpoint.batch_us
        free = replica.loop_free
        replica.loop_free = (free if free > now else now) + int(takes if endpoint.inline else endpoint.batch_us)
        self._at(now + takes, lambda: self._done(replica, batch, takes))

    def _done(self, replica: _Replica, batch: Batch[int], takes: float) -> None:
        now, endpoint, held = self._now, self._endpoint, replica.held
        replica.running -= batch.executors
        replica.active = now
        replica.batcher.done(batch, takes)
        for job in batch.jobs:
            arrived = held.pop(job.payload, None)
            if arrived is not None:
                latency = now - arrived + endpoint.apart_us
                self._answered.append(latency)
                self._in_time += latency <= endpoint.deadline_us
        if replica.batcher.waiting_rows:
            self._begin(replica)
