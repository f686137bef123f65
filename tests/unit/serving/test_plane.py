"""The core that every protocol shares: which version answers, with which outputs, and what a caller may ask of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import numpy as np
import pytest

from kit.serving import FEATURES, KEY, NOW, bundle, route
from kit.tensors import WIDE, echo, ragged, sums
from mainspring.core.errors import DeadlineExceeded, Invalid, NotFound
from mainspring.core.time import ManualClock
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.model import Arm
from mainspring.serving.plane import runtime
from mainspring.serving.plane.inference import Inference, infer
from mainspring.serving.plane.lane import Lane, monotonic_us
from mainspring.serving.plane.live import Router, Served
from mainspring.serving.plane.metrics import EndpointMetrics
from mainspring.serving.protocol.asked import Asked, Parameters
from mainspring.serving.protocol.tensor import DTYPES, Tensor
from unit.serving.test_lane import Held


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def served(
    threads: ThreadPoolExecutor,
    *bundles: Bundle,
    weights: tuple[float, ...] = (1.0, 1.0),
    executor: type[OnnxExecutor] = OnnxExecutor,
) -> Served:
    """Return an endpoint with these versions, numbered from 1."""
    arms = [
        Arm(f"{place}", made.digest, weight)
        for place, (made, weight) in enumerate(zip(bundles, weights, strict=False), 1)
    ]
    lanes = {
        arm.version: Lane(
            "late-arrival",
            arm.version,
            runtime.load(made, MemoryOnlineStore(), executor),
            log=MemoryLedger(),
            clock=ManualClock(NOW),
            metrics=EndpointMetrics(),
            threads=threads,
            reads=threads,
            max_queue_rows=4096,
        )
        for arm, made in zip(arms, bundles, strict=False)
    }
    return Served(route(*arms), Router("late-arrival", arms), lanes)


def features(rows: int = 2) -> list[Tensor]:
    return [Tensor(name, datatype, (rows,), values[:rows]) for name, (datatype, values) in FEATURES.items()]


def x(*rows: float) -> list[Tensor]:
    return [Tensor("x", "FP32", (len(rows), WIDE), np.repeat(np.float32(rows), WIDE).reshape(-1, WIDE))]


async def ask(behind: Served, asked: Asked, *, version: str = "") -> Any:
    return await infer(asked, behind, version=version, principal="key", received_us=monotonic_us())


@on_a_loop
async def test_outputs_are_arrays_in_the_order_asked(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, ragged(KEY))
    inputs = [Tensor("x", "FP32", (2, 3), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]
    answered = await ask(behind, Asked("mine", inputs))
    assert [(each.name, each.datatype, each.shape) for each in answered.outputs] == [
        ("sum", "FP32", (2, 1)), ("again", "FP32", (2, 3)),
    ]  # fmt: skip
    assert answered.outputs[0].data.tolist() == [[6.0], [15.0]]
    assert (answered.id, answered.model_name, answered.model_version) == ("mine", "late-arrival", "1")
    assert len(set(answered.parameters["prediction_ids"])) == 2
    some = await ask(behind, Asked(None, inputs, ["again", "sum"]))
    assert [each.name for each in some.outputs] == ["again", "sum"]
    for outputs, words in ((["nothing"], "'nothing'"), (["sum", "sum"], "twice")):
        with pytest.raises(Invalid, match=words):
            await ask(behind, Asked(None, inputs, outputs))


@on_a_loop
async def test_requests_of_different_shapes_run_apart_and_of_one_shape_together(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, ragged(KEY))
    asked = [Asked(None, [Tensor("x", "FP32", (1, size), [1.0] * size)]) for size in (3, 5, 3, 2, 5, 3)]
    answers = await asyncio.gather(*(ask(behind, each) for each in asked))
    assert [each.outputs[0].data.tolist() for each in answers] == [[[3.0]], [[5.0]], [[3.0]], [[2.0]], [[5.0]], [[3.0]]]
    (found,) = [behind.lanes["1"].statistics.document("m", "1")]
    assert {each["batch_size"]: each["compute_infer"]["count"] for each in found["batch_stats"]} == {1: 1, 2: 1, 3: 1}
    assert found["inference_count"] == 6


@on_a_loop
async def test_the_router_decides_by_id_and_a_version_that_is_named_wins(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, sums(KEY), sums(KEY))
    by_id = {name: (await ask(behind, Asked(name, x(1.0)))).model_version for name in map(str, range(64))}
    assert set(by_id.values()) == {"1", "2"}
    for name, version in list(by_id.items())[:8]:
        assert (await ask(behind, Asked(name, x(2.0)))).model_version == version
        assert (await ask(behind, Asked(name, x(2.0)), version="2")).model_version == "2"
    without = Counter([(await ask(behind, Asked(None, x(float(number))))).model_version for number in range(64)])
    assert set(without) == {"1", "2"}  # by the values themselves
    again = {(await ask(behind, Asked(None, x(7.0)))).model_version for _ in range(4)}
    assert len(again) == 1
    with pytest.raises(NotFound, match="'3'"):
        await ask(behind, Asked(None, x(1.0)), version="3")


@on_a_loop
async def test_a_texts_row_decides_too(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, bundle(), bundle(1.0))
    echoing = served(threads, echo(KEY), echo(KEY))
    inputs = [Tensor(f"in_{each.lower()}", each, (1, 2), np.zeros((1, 2), dtype)) for each, dtype in DTYPES.items()]
    texts = [[*inputs[:-1], Tensor("in_bytes", "BYTES", (1, 2), [f"{number}", "a"])] for number in range(24)]
    assert {(await ask(echoing, Asked(None, each))).model_version for each in texts} == {"1", "2"}
    versions = {
        (
            await ask(behind, Asked(None, [Tensor(each.name, each.datatype, (1,), [number]) for each in features(1)]))
        ).model_version
        for number in range(24)
    }
    assert versions == {"1", "2"}


@on_a_loop
async def test_statuses_are_told_only_where_they_are_asked_for(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, bundle())
    keyed = [
        Tensor("carrier", "BYTES", (1,), [b"AA"]),
        Tensor("flight_id", "INT64", (1,), np.array([1])),
        Tensor("distance", "FP32", (1,), np.float32([500.0])),
        Tensor("scheduled_at", "INT64", (1,), [NOW]),
    ]
    assert set((await ask(behind, Asked(None, keyed))).parameters) == {"prediction_ids"}
    told = (await ask(behind, Asked(None, keyed, (), Parameters(feature_statuses=True)))).parameters
    assert told["feature_statuses"] == {"Carrier.flights_1h": ["MISSING"], "Carrier.delay_1h": ["MISSING"]}
    full = await ask(behind, Asked(None, features(), (), Parameters(feature_statuses=True)))
    assert full.parameters["feature_statuses"] == {}


@on_a_loop
async def test_a_timeout_shortens_the_deadline(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, sums(KEY))
    with pytest.raises(DeadlineExceeded):
        await infer(
            Asked(None, x(1.0), (), Parameters(timeout=1)),
            behind,
            version="",
            principal="",
            received_us=monotonic_us() - 2,
        )
    assert behind.lanes["1"].statistics.document("m", "1")["inference_stats"]["fail"]["count"] == 1


@on_a_loop
async def test_who_hangs_up_while_waiting_is_dropped(threads: ThreadPoolExecutor) -> None:
    Held.go.set()
    behind = served(threads, sums(KEY, slow=True), executor=Held)
    Held.go.clear()
    running = asyncio.ensure_future(ask(behind, Asked(None, x(1.0))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left = Inference(Asked(None, x(2.0)), behind, "", principal="key", received_us=monotonic_us())
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    left.submit(never)
    left.cancel()
    cancelled = asyncio.ensure_future(ask(behind, Asked(None, x(3.0))))
    await asyncio.sleep(0)
    cancelled.cancel()
    Held.go.set()
    await running
    assert (await ask(behind, Asked(None, x(4.0)))).outputs[0].data.tolist() == [[16.0]]
    assert behind.lanes["1"].statistics.document("m", "1")["inference_count"] == 2
    assert not never.done()
