"""Deadlines of a call over gRPC: the same as over HTTP, and the call's own, from when it arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.serving import FEATURES, Kit
from mainspring.core.errors import DeadlineExceeded, Invalid
from mainspring.security.model import Principal
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.batching.batcher import Job
from mainspring.serving.grpc import wire
from mainspring.serving.grpc.calls import INFER, Caller
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.plane import DataPlane
from unit.serving.test_live import serving

pytestmark = pytest.mark.slow

ASKING = Principal("key", "test", frozenset())
DEADLINE_US = 10_000_000  # the endpoint's
FIELDS = {"INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}


def message(**parameters: int) -> Any:
    made = wire.InferRequest(model_name="late-arrival")
    for name, (datatype, values) in FEATURES.items():
        given = made.inputs.add(name=name, datatype=datatype, shape=[1])
        getattr(given.contents, FIELDS[datatype]).append(values[0])
    for name, value in parameters.items():
        made.parameters[name].int64_param = value
    return made


@asynccontextmanager
async def loaded() -> AsyncIterator[DataPlane]:
    """Give a data plane that serves one version of `late-arrival`."""
    kit = Kit()
    kit.publish("1")
    async with serving(kit, OnnxExecutor) as plane:
        yield plane


def answer(asked: Any, *, since_us: int, left_us: int | None) -> Any:
    """Return the reply to a call that arrived `since_us` ago and whose own deadline is in `left_us`."""

    async def main() -> Any:
        async with loaded() as plane:
            now = monotonic_us()
            caller = Caller(ASKING, now - since_us)
            if left_us is not None:
                caller.deadline = now + left_us
            return await INFER.answer(plane, asked, caller)

    return asyncio.run(main())


def test_a_message_that_came_slowly_has_what_is_left_of_its_calls_time() -> None:
    reply = answer(message(), since_us=DEADLINE_US * 6 // 10, left_us=DEADLINE_US * 3 // 10)
    assert len(reply.outputs) == 1


@pytest.mark.parametrize(
    ("since_us", "left_us", "parameters"),
    [(DEADLINE_US, None, {}), (0, 0, {}), (2_000, 60_000_000, {"timeout": 1_000})],
)
def test_what_is_too_late_is_refused(since_us: int, left_us: int | None, parameters: dict[str, int]) -> None:
    with pytest.raises(DeadlineExceeded, match="has already passed"):
        answer(message(**parameters), since_us=since_us, left_us=left_us)


def test_what_is_too_late_is_refused_before_its_tensors_are_decoded() -> None:
    asked = message()
    asked.inputs[0].shape[:] = [7]
    with pytest.raises(DeadlineExceeded):
        answer(asked, since_us=DEADLINE_US, left_us=None)


def test_what_the_queue_has_no_time_for_is_refused_before_its_tensors_are_decoded() -> None:
    asked = message()
    asked.inputs[1].shape[:] = [7]  # to decode it would be `Invalid`

    async def main() -> None:
        async with loaded() as plane:
            with pytest.raises(Invalid):  # an idle lane has time for anybody
                await INFER.answer(plane, asked, Caller(ASKING, monotonic_us()))
            (lane,) = plane.endpoint("late-arrival").lanes.values()
            lane.batcher.cost.observe(1, 10 * DEADLINE_US)  # a batch takes longer than anybody has
            lane.batcher.offer(Job(None, 1, monotonic_us() + 100 * DEADLINE_US))  # type: ignore[arg-type]
            lane.batcher.take()
            before = lane.batcher.waiting_rows
            with pytest.raises(DeadlineExceeded, match="would miss the deadline"):
                await INFER.answer(plane, asked, Caller(ASKING, monotonic_us()))
            assert (lane.batcher.waiting_rows, kit_rejections(plane)) == (before, 1)

    asyncio.run(main())


def kit_rejections(plane: DataPlane) -> int:
    return plane.metrics.of("late-arrival").rejections["too_late"]
