"""Numbers of executors, decided twice a second from the lanes of each model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from mainspring.serving.model import Route
from mainspring.serving.plane.lane import Lane
from mainspring.serving.plane.live import Served
from mainspring.serving.residency.resident import ResidentExecutor
from mainspring.serving.scaling.policy import Observed, Policy

TICK_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sum:
    """Counts of a model's lanes together."""

    busy_us: float = 0.0
    waited_us: int = 0
    taken: int = 0
    lost: int = 0
    asked: int = 0

    @classmethod
    def of(cls, lanes: list[Lane], now_us: float) -> _Sum:
        loads = [lane.load for lane in lanes]
        return cls(
            sum(each.busy_us(now_us) for each in loads),
            sum(each.waited_us for each in loads),
            sum(each.taken for each in loads),
            sum(each.lost for each in loads),
            sum(each.asked for each in loads),
        )


@dataclass(slots=True)
class _Followed:
    """A model whose number of executors changes."""

    policy: Policy
    key: tuple[object, ...]  # of the policy
    lanes: list[Lane]
    at: float
    before: _Sum
    change: Future[None] | None = None


class Scaler:
    """Call `start` on the event loop that serves."""

    def __init__(self, served: Callable[[], Mapping[str, Served]]) -> None:
        self._served = served
        self._followed: dict[ResidentExecutor, _Followed] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Decide nothing any more. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._followed.clear()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.look(time.monotonic())
            except Exception:  # one look that fails must not leave all models as they are for ever
                _log.exception("executors could not be decided on")

    def look(self, now: float) -> None:
        """Observe each model, and change what its policy says."""
        models: dict[ResidentExecutor, list[tuple[Route, Lane]]] = {}
        for each in self._served().values():
            for lane in each.lanes.values():
                if isinstance(lane.runtime.executor, ResidentExecutor):
                    models.setdefault(lane.runtime.executor, []).append((each.route, lane))
        for gone in self._followed.keys() - models.keys():
            del self._followed[gone]
        for model, served in models.items():
            self._decide(model, [route for route, _ in served], [lane for _, lane in served], now)

    def _decide(self, model: ResidentExecutor, routes: list[Route], lanes: list[Lane], now: float) -> None:
        least, most = max(each.executors[0] for each in routes), max(each.executors[1] for each in routes)
        deadline_s, idle_s = min(each.deadline_us for each in routes) / 1e6, max(each.idle_us for each in routes) / 1e6
        summed, key = _Sum.of(lanes, now * 1e6), (least, most, deadline_s, idle_s)
        found = self._followed.get(model)
        if found is None or found.key != key or found.lanes != lanes:
            policy = Policy(least, most, deadline_s=deadline_s, idle_s=idle_s)
            self._followed[model] = _Followed(policy, key, lanes, now, summed)
            return
        before, passed_s, size = found.before, max(now - found.at, 1e-3), model.size
        found.at, found.before = now, summed
        taken = summed.taken - before.taken
        seen = Observed(
            now,
            size,
            min(1.0, (summed.busy_us - before.busy_us) / 1e6 / passed_s / max(1, size)),
            (summed.waited_us - before.waited_us) / 1e6 / taken if taken else 0.0,
            summed.lost - before.lost if size else 0,
            summed.asked - before.asked,
        )
        wanted = found.policy.decide(seen)
        goal = wanted.executors if model.crew is not None or not wanted.executors else size
        residency = lanes[0].runtime.residency
        if residency is not None and size and goal != size and (found.change is None or found.change.done()):
            found.change = residency.resize(model, goal, wanted.why, seen)
