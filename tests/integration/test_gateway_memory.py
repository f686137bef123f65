"""A gateway whose models do not fit into its memory at once: what callers get, and what the numbers say."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest

from integration.test_gateway import Running, on_a_loop, running
from kit.serving import FEATURES, Kit, expected, full_request, heavy, route
from kit.waiting import wait_until_async
from mainspring.serving.load.use import read_uses
from mainspring.serving.model import Arm, Route

MB = 1_000_000
ROWS = {name: values for name, (_, values) in FEATURES.items()}


def kit_of(*mbs: int, memory: int = 40 * MB, **changes: dict[str, Any]) -> Kit:
    """Return a kit with endpoints e0, e1, ... whose models take so many megabytes; `changes` are of their routes."""
    kit, routes = Kit(memory=memory), []
    for place, mb in enumerate(mbs):
        made = heavy(float(place), mb)
        kit.bundles.save(made)
        one = route(Arm("1", made.digest), endpoint=f"e{place}")
        routes.append(msgspec.structs.replace(one, **changes.get(f"e{place}", {})))
    kit.routes.publish(routes)
    return kit


async def ask(each: Running, place: int, status: int = 200) -> Any:
    reply = await each.client.post(f"/v2/models/e{place}/infer", json=full_request())
    assert reply.status_code == status, reply.text
    if status == 200:
        answers = reply.json()["outputs"][0]["data"]
        assert answers == pytest.approx(expected(ROWS, float(place)), abs=1e-6)
    return reply


async def numbers(each: Running, name: str) -> dict[str, float]:
    """Return endpoint -> value of a metric."""
    text = (await each.client.get("/metrics")).text
    return {found[0]: float(found[1]) for found in re.findall(rf'^{name}{{endpoint="(\w+)".*}} (\S+)$', text, re.M)}


def change(kit: Kit, **changes: dict[str, Any]) -> None:
    """Change routes by endpoint."""
    table: list[Route] = list(kit.routes.current().values())
    kit.routes.publish([msgspec.structs.replace(each, **changes.get(each.endpoint, {})) for each in table])


@on_a_loop
async def test_endpoints_whose_models_are_out_answer_as_the_others_do() -> None:
    async with running(kit_of(25, 25, 25)) as each:
        out = await away(each)
        assert len(out) == 2
        for place in range(3):
            assert (await each.client.get(f"/v2/models/e{place}/ready")).status_code == 200
            assert (await each.client.get(f"/v2/models/e{place}")).json()["inputs"]
        await asyncio.gather(*(ask(each, out[0]) for _ in range(10)))
        loads = await numbers(each, "mainspring_model_loads_total")
        assert [loads[f"e{place}"] for place in out] == [2.0, 1.0]
        assert (await numbers(each, "mainspring_model_memory_bytes"))["e0"] >= 25 * MB
        text = (await each.client.get("/metrics")).text
        used = re.search(r"^mainspring_models_memory_used_bytes (\S+)", text, re.M)
        assert used is not None
        assert 25 * MB < float(used[1]) <= 40 * MB
        uses = read_uses({0: text.encode()})
        assert (uses.used, uses.limit) == (float(used[1]), 40 * MB)
        assert [uses.endpoints[f"e{place}"].executors for place in (out[0], out[1])] == [1, 0]
        assert uses.endpoints[f"e{out[0]}"].nbytes == uses.used
        explained = await each.client.post(f"/v2/models/e{out[0]}/explain", json=full_request())
        assert explained.status_code == 200


@on_a_loop
async def test_a_short_deadline_gets_503_and_the_retry_its_answer() -> None:
    short = {"deadline_us": 5_000}
    async with running(kit_of(25, 25, e0=short, e1=short)) as each:
        (out,) = [
            int(name[1]) for name, value in (await numbers(each, "mainspring_model_in_memory")).items() if not value
        ]
        while True:
            refused = await ask(each, out, 503)
            assert refused.headers["retry-after"] == "1"
            if refused.json()["error"] != "The deadline has already passed.":  # as it has, before, on a busy machine
                break
        assert "being loaded" in refused.json()["error"]
        await wait_until_async(lambda: is_in(each, out))
        change(each.kit, e0={"deadline_us": 10_000_000}, e1={"deadline_us": 10_000_000})
        await wait_until_async(lambda: each.gateway._plane.served[f"e{out}"].route.deadline_us > 5_000)
        await ask(each, out)


async def away(each: Running) -> list[int]:
    here = await numbers(each, "mainspring_model_in_memory")
    return [int(name[1:]) for name, value in here.items() if not value]


async def is_in(each: Running, place: int) -> bool:
    return bool((await numbers(each, "mainspring_model_in_memory"))[f"e{place}"])


@on_a_loop
async def test_resident_endpoints_and_rollouts_stay() -> None:
    async with running(kit_of(25, 12, 12, e0={"resident": True})) as each:
        (out,) = await away(each)
        await ask(each, out)
        assert await away(each) == [3 - out]
        change(each.kit, **{f"e{3 - out}": {"rollout": "r1"}})
        await wait_until_async(lambda: is_in(each, 3 - out))
        assert await away(each) == [out]


@on_a_loop
async def test_a_model_that_never_fits_is_refused_with_the_bytes_and_the_others_serve() -> None:
    async with running(kit_of(12, 50), ready=False) as each:
        await wait_until_async(lambda: each.gateway._plane.refused)
        await ask(each, 0)
        await ask(each, 1, 503)
        assert (await numbers(each, "mainspring_refused_route")) == {"e1": 1.0}
        assert "bytes are missing" in (await each.client.get("/metrics")).text
