"""Models on each kind of device that is here, through the whole gateway.

This is the suite for a machine with a GPU; without one the processor stands in, by the same session options, bound
memory and measured sizes (docs/howto/serve-on-gpus.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from integration.test_gateway import Running, on_a_loop, running
from kit.models import mlp_bundle
from kit.serving import FEATURES, Kit, expected, full_request, heavy, route
from kit.serving_devices import PROCESSOR, SUITE, devices, missing, unusable
from kit.waiting import wait_until_async
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.conformance.executors import ExecutorConformance, Inputs
from mainspring.serving.devices.device import CPU, CUDA, ON_GPUS, PROVIDERS, opening
from mainspring.serving.model import Arm, Route
from mainspring.serving.plane.placement import Devices
from mainspring.serving.ports import Executor

MB, HEAVY = 1_000_000, 8
ROWS = {name: values for name, (_, values) in FEATURES.items()}
RNG = np.random.default_rng(11)


@pytest.fixture(params=SUITE)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(suite: str, made: Bundle, rows: int = 64) -> Executor:
    """Return an executor on the first device."""
    found = devices(suite, 2000 * MB)
    kind = CUDA if suite == PROCESSOR else suite
    device = found.find()[0] if suite in (*ON_GPUS, PROCESSOR) else None
    return found.executors().make(made, opening(kind, device, 1000 * MB, rows))


@pytest.mark.parametrize("kind", PROVIDERS)
def test_each_kind_is_here_or_says_why_not(kind: str) -> None:
    if reason := missing(kind):
        pytest.skip(reason)
    assert kind in SUITE


class TestOnDevices(ExecutorConformance):
    @pytest.fixture
    def executor(self, suite: str) -> Iterator[Executor]:
        made = opened(suite, mlp_bundle())
        yield made
        made.close()

    @pytest.fixture
    def inputs(self) -> Inputs:
        return {"x": RNG.normal(size=(12, 4)).astype(np.float32)}


def test_answers_are_the_processor_s_within_rounding(suite: str) -> None:
    made = mlp_bundle(3)
    on, off = opened(suite, made), OnnxExecutor(made)
    for rows in (1, 7, 64, 65, 300):
        x = RNG.normal(size=(rows, 4)).astype(np.float32)
        found, wanted = on.predict({"x": x}, rows)["y"], off.predict({"x": x}, rows)["y"]
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    on.close()


def kit_of(found: Devices, *routes: dict[str, Any], mb: int = 1) -> Kit:
    """Return a kit with endpoints e0, e1, ...; each has the fields of its route."""
    kit, table = Kit(devices=found), []
    for place, changes in enumerate(routes):
        made = heavy(float(place), mb)
        kit.bundles.save(made)
        one = route(Arm("1", made.digest), endpoint=f"e{place}")
        table.append(msgspec.structs.replace(one, **changes))
    kit.routes.publish(table)
    return kit


async def ask(each: Running, place: int) -> None:
    reply = await each.client.post(f"/v2/models/e{place}/infer", json=full_request())
    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"][0]["data"] == pytest.approx(expected(ROWS, float(place)), abs=1e-4)


async def told(each: Running, name: str) -> list[tuple[dict[str, str], float]]:
    text = (await each.client.get("/metrics")).text
    found = [family for family in text_string_to_metric_families(text) if family.name == name]
    return [(sample.labels, sample.value) for family in found for sample in family.samples]


async def runs_on(each: Running) -> dict[str, str]:
    return {labels["endpoint"]: labels["device"] for labels, _ in await told(each, "mainspring_endpoint_device")}


@on_a_loop
async def test_endpoints_move_between_devices_and_models_leave_for_others(suite: str) -> None:
    found = devices(suite, 2000 * MB)
    kind = CUDA if suite == PROCESSOR else suite
    async with running(kit_of(found, {"device": kind}, {"device": CPU}, {"device": kind}, mb=HEAVY)) as each:
        where = await runs_on(each)
        assert where["e1"] == CPU
        assert where["e0"] == where["e2"] != CPU
        await asyncio.gather(*(ask(each, place) for place in (0, 1, 2) * 5))
        nodes = {
            (labels["endpoint"], labels["provider"]): count
            for labels, count in await told(each, "mainspring_endpoint_nodes")
        }
        assert {endpoint for endpoint, _ in nodes} == {"e0", "e2"}
        if suite in (*ON_GPUS, PROCESSOR):
            await leave_for_each_other(each)
        table: list[Route] = list(each.kit.routes.current().values())
        each.kit.routes.publish([msgspec.structs.replace(one, device=CPU) for one in table])
        while set((await runs_on(each)).values()) != {CPU}:
            await ask(each, 0)
        await wait_until_async(partial(given_back, each))


async def given_back(each: Running) -> bool:
    found = await told(each, "mainspring_device_memory_used_bytes")
    return not any(value for _, value in found)


async def leave_for_each_other(each: Running) -> None:
    """Bound the device so that one of its two models fits."""
    ((name, (_, residency)),) = each.gateway._plane._placement.residencies.items()
    assert residency.used >= 2 * HEAVY * MB
    residency.budget, residency._stay_s = residency.used - MB, 0.0
    resting: Any = each.gateway._plane.served["e2"].lanes["1"].runtime.executor
    await asyncio.wrap_future(residency.resize(resting, 0, "the test"))
    for place, other in ((0, 2), (2, 0), (0, 2)):
        await wait_until_async(partial(answered, each, place))
        ((labels, used),) = await told(each, "mainspring_device_memory_used_bytes")
        assert (labels["device"], HEAVY * MB <= used <= residency.budget) == (name, True)
        here = {labels["endpoint"]: value for labels, value in await told(each, "mainspring_model_in_memory")}
        assert (here[f"e{place}"], here[f"e{other}"]) == (1.0, 0.0)


async def answered(each: Running, place: int) -> bool:
    reply = await each.client.post(f"/v2/models/e{place}/infer", json=full_request())
    return bool(reply.status_code == 200)


@on_a_loop
async def test_without_a_gpu_auto_says_so_and_cuda_is_refused() -> None:
    kit = kit_of(unusable(), {"device": "auto"}, {"device": CUDA}, {"device": CPU})
    async with running(kit, ready=False) as each:
        await wait_until_async(lambda: len(each.gateway._plane.served) == 2)
        await ask(each, 0)
        found = {labels["endpoint"]: labels for labels, _ in await told(each, "mainspring_endpoint_device")}
        assert found["e0"]["asked"] == "auto"
        assert found["e0"]["device"] == CPU
        assert found["e0"]["reason"] == "This machine has no NVIDIA GPU, or not its driver."
        assert found["e2"]["reason"] == ""
        ((labels, _),) = await told(each, "mainspring_refused_route")
        assert labels["endpoint"] == "e1"
        assert "no NVIDIA GPU" in labels["reason"]
        reply = await each.client.post("/v2/models/e1/infer", json=full_request())
        assert reply.status_code == 503
