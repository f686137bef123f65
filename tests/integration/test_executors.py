"""Executors in processes of their own: a crew of them, their number under load, none at rest, and killed ones."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from integration.test_apart import ENDLESS, children
from kit.serving import KEY, NOW, route
from kit.tensors import counted
from kit.waiting import wait_until, wait_until_async
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
            for parts in (1, size):
                assert crew.predict({"n": rows[:count]}, count, parts)["y"].tolist() == alone[:count].tolist()
    for child in children()[1:]:
        os.kill(child, signal.SIGKILL)
    with pytest.raises(ModelFailed, match="ended"):
        crew.predict({"n": rows}, 7, 3)
    assert crew.predict({"n": rows}, 7, 3)["y"].tolist() == alone.tolist()
    crew.drop()
    crew.drop()
    crew.drop()
    assert (crew.size, len(children())) == (1, 1)
    crew.close()
    assert not crew.add(lambda: OnnxExecutor(counted(KEY)))
    assert not children()


class Meeting(OnnxExecutor):
    """A model whose calls end once `parties` of them run at the same time."""

    inline = False
    meeting: ClassVar[threading.Barrier] = threading.Barrier(1)

    def predict(self, inputs: Any, rows: int) -> Any:
        Meeting.meeting.wait(20)
        return super().predict(inputs, rows)


def test_calls_at_once_have_an_executor_each_and_the_others_wait() -> None:
    Meeting.meeting = threading.Barrier(2)
    crew = Crew(Meeting(counted(KEY)))
    assert crew.add(lambda: Meeting(counted(KEY)))
    row = np.array([[5]], dtype=np.int64)
    with ThreadPoolExecutor(6) as threads:
        calls = [threads.submit(crew.predict, {"n": row}, 1) for _ in range(6)]
        assert [call.result()["y"].tolist() for call in calls] == [[[5.0]]] * 6
        Meeting.meeting = threading.Barrier(3)  # of two executors, no three calls meet
        calls = [threads.submit(crew.predict, {"n": row}, 1) for _ in range(3)]
        wait_until(lambda: Meeting.meeting.n_waiting == 2, "two calls")
        dropping = threads.submit(crew.drop)
        time.sleep(0.05)
        assert (Meeting.meeting.n_waiting, crew.size, dropping.done()) == (2, 2, False)
        Meeting.meeting.abort()
        for call in calls:
            assert isinstance(call.exception(), threading.BrokenBarrierError)
        dropping.result()
    assert crew.size == 1
    crew.close()


def test_a_lane_runs_as_many_batches_at_once_as_its_model_has_executors() -> None:
    async def check(each: Plane) -> None:
        lane = each.plane.endpoint("counted").lanes["1"]
        await wait_until_async(lambda: lane.runtime.executor.size == 3)  # type: ignore[attr-defined]
        Meeting.meeting = threading.Barrier(3)
        asked = []
        for _ in range(3):  # each comes while the ones before it are computed
            asked.append(asyncio.create_task(each.ask()))
            await asyncio.sleep(0.02)
        assert await asyncio.gather(*asked) == [5.0] * 3
        document = lane.statistics.document("counted", "1")
        assert [each["batch_size"] for each in document["batch_stats"]] == [1]
        assert lane.batcher.idle
        assert lane.load.busy_us(monotonic_us()) > 2 * 20_000

    async def run() -> None:
        Meeting.meeting = threading.Barrier(1)
        async with Plane(Meeting, executors=(3, 3), deadline_us=30_000_000) as each:
            await check(each)
        await wait_until_async(lambda: not children())

    asyncio.run(run())


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

    def __init__(self, make: Any = OnnxExecutor, **changes: Any) -> None:
        self.make = make
        self.bundles, self.routes = Bundles(MemoryBlobs(), KEY.public), CatalogRoutes(memory_catalog())
        made = counted(KEY)
        self.bundles.save(made)
        one = route(Arm("1", made.digest), endpoint="counted")
        self.routes.publish([msgspec.structs.replace(one, **changes)])

    async def __aenter__(self) -> Plane:
        self.plane = DataPlane(
            routes=self.routes, bundles=self.bundles, online=MemoryOnlineStore(), log=MemoryLedger(),
            executors=self.make, clock=ManualClock(NOW), threads=1,
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
