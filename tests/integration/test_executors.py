"""Executors in processes of their own: a crew of them, their number under load, none at rest, and killed ones."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import msgspec
import numpy as np
import pytest

from integration.test_apart import ENDLESS, children
from kit.serving import KEY, NOW, route
from kit.tensors import counted
from kit.waiting import wait_until_async
from mainspring.core.errors import MainspringError
from mainspring.core.time import ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import Bundles
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.adapters.sessions import CallLimits
from mainspring.serving.model import Arm
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.plane.inference import infer
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.protocol.codec import decode_infer, encode
from mainspring.serving.scaling.crew import Crew

WORK = 20_000  # counted to, some tens of milliseconds


def test_a_crew_answers_as_one_does_and_at_the_same_time() -> None:
    crew = Crew(OnnxExecutor(counted(KEY)))
    rows = np.arange(1, 8, dtype=np.int64).reshape(-1, 1)
    alone = crew.predict({"n": rows}, 7)["y"]
    for size in (2, 3):
        crew.add(lambda: OnnxExecutor(counted(KEY)))
        assert (crew.size, len(children())) == (size, size)
        for count in (1, 2, 7):
            assert crew.predict({"n": rows[:count]}, count)["y"].tolist() == alone[:count].tolist()
    for child in children()[1:]:
        os.kill(child, signal.SIGKILL)
    with pytest.raises(ModelFailed, match="ended"):
        crew.predict({"n": rows}, 7)
    assert crew.predict({"n": rows}, 7)["y"].tolist() == alone.tolist()
    crew.drop()
    crew.drop()
    crew.drop()
    assert (crew.size, len(children())) == (1, 1)
    crew.close()
    assert not crew.add(lambda: OnnxExecutor(counted(KEY)))
    assert not children()


def test_a_process_that_ends_at_each_call_is_started_ever_less_often() -> None:
    executor = OnnxExecutor(counted(KEY), limits=CallLimits(seconds=0.2))
    begun, calls = time.monotonic(), 0
    while time.monotonic() - begun < 2.5:
        with pytest.raises(ModelFailed):
            executor.predict({"n": ENDLESS}, 1)
        calls += "not started yet" not in _error(executor)
        time.sleep(0.01)
    assert calls <= 6
    executor.close()


def _error(executor: OnnxExecutor) -> str:
    try:
        executor.predict({"n": ENDLESS}, 1)
    except ModelFailed as error:
        return str(error)
    return ""


class Plane:
    """A data plane with one endpoint, whose model runs apart."""

    def __init__(self, **changes: Any) -> None:
        self.bundles, self.routes = Bundles(MemoryBlobs(), KEY.public), CatalogRoutes(memory_catalog())
        made = counted(KEY)
        self.bundles.save(made)
        one = route(Arm("1", made.digest), endpoint="counted")
        self.routes.publish([msgspec.structs.replace(one, **changes)])

    async def __aenter__(self) -> Plane:
        self.plane = DataPlane(
            routes=self.routes, bundles=self.bundles, online=MemoryOnlineStore(), log=MemoryLedger(),
            executors=OnnxExecutor, clock=ManualClock(NOW), threads=1,
        )  # fmt: skip
        self.plane.start()
        await wait_until_async(lambda: self.plane.served)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.plane.stop()

    async def ask(self, count: int = 5) -> float:
        tensor = {"name": "n", "datatype": "INT64", "data": [count], "shape": [1, 1]}
        asked = decode_infer(encode({"inputs": [tensor]})).asked
        served = self.plane.endpoint("counted")
        answered = await infer(asked, served, version="", principal="", received_us=monotonic_us())
        return float(np.asarray(answered.outputs[0].data).ravel()[0])


def test_executors_come_with_a_burst_and_none_is_left_at_rest() -> None:
    async def run() -> None:
        async with Plane(executors=(0, 3), idle_us=1_500_000, deadline_us=30_000_000) as each:
            assert len(children()) == 1
            until, most = time.monotonic() + 30, 0

            async def caller() -> None:
                while time.monotonic() < until and most < 3:
                    assert await each.ask(WORK) == WORK

            callers = [asyncio.create_task(caller()) for _ in range(12)]
            while not all(one.done() for one in callers):
                most = max(most, len(children()))
                await asyncio.sleep(0.05)
            for one in callers:
                one.result()
            assert most == 3
            await wait_until_async(lambda: not children())
            assert each.plane.unready() is None
            assert await asyncio.gather(*(each.ask() for _ in range(10))) == [5.0] * 10  # all wait for one
            assert len(children()) == 1
        await wait_until_async(lambda: not children())

    asyncio.run(run())


def test_killed_executors_are_replaced() -> None:
    async def run() -> None:
        async with Plane(executors=(2, 2), deadline_us=30_000_000) as each:
            await wait_until_async(lambda: len(children()) == 2)
            for _ in range(3):
                for child in children():
                    os.kill(child, signal.SIGKILL)
                found = await asyncio.gather(*(each.ask() for _ in range(4)), return_exceptions=True)
                assert all(one == 5.0 or isinstance(one, MainspringError) for one in found)
                assert await asyncio.gather(*(each.ask() for _ in range(4))) == [5.0] * 4

            async def replaced() -> bool:
                await asyncio.gather(*(each.ask() for _ in range(4)))
                return len(children()) == 2

            await wait_until_async(replaced)

    asyncio.run(run())
