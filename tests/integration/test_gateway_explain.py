"""A real gateway that explains its answers: exact, within the deadline, without holding up others."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from kit.serving import FEATURES, WEIGHTS, Kit, full_request, keyed_request
from kit.waiting import free_port, wait_until_async
from mainspring.core.settings import Address
from mainspring.ledger.model import Log
from mainspring.registry.model import Bundle
from mainspring.security.model import KeyScope
from mainspring.security.quota import Quota
from mainspring.serving.adapters.onnx_explainer import OnnxExplainer
from mainspring.serving.http.server import serve
from mainspring.serving.plane.explaining import MOST_ROWS

EXPLAIN = "/v2/models/late-arrival/explain"
INFER = "/v2/models/late-arrival/infer"


@asynccontextmanager
async def running(*, quotas: tuple[Quota, ...] = (), **settings: Any) -> AsyncIterator[tuple[Kit, httpx.AsyncClient]]:
    kit = Kit(**settings)
    kit.publish("1")
    kit.routes.publish([msgspec.structs.replace(each, quotas=quotas) for each in kit.routes.current().values()])
    gateway, port, stop, started = kit.gateway(), free_port(), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(gateway, Address("127.0.0.1", port), stop=stop, started=started.set))
    try:
        await asyncio.wait((serving, asyncio.create_task(started.wait())), return_when=asyncio.FIRST_COMPLETED)
        headers = {"authorization": kit.key(), "content-type": "application/json"}
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20) as client:
            await wait_until_async(lambda: gateway.unready() is None, "the gateway to be ready")
            yield kit, client
    finally:
        stop.set()
        await serving


async def post(client: httpx.AsyncClient, body: Any, path: str = EXPLAIN, **headers: str) -> httpx.Response:
    return await client.post(path, content=json.dumps(body).encode(), headers=headers)


def test_each_row_is_explained_beside_its_prediction() -> None:
    async def check() -> None:
        async with running() as (kit, client):
            reply = await post(client, full_request(id="mine"))
            assert reply.status_code == 200, reply.text
            body = reply.json()
            assert (body["id"], body["model_version"], len(body["explanations"])) == ("mine", "1", 2)
            plain = (await post(client, full_request(), INFER)).json()
            assert body["outputs"] == plain["outputs"]
            given = np.array([FEATURES[name][1] for name in FEATURES], float)
            moved = (np.nan_to_num(given) - np.nan_to_num(given).mean(axis=1, keepdims=True)) * WEIGHTS[:, None]
            for row, explained in enumerate(body["explanations"]):
                assert explained["exact"] is True
                assert (explained["method"]["name"], explained["method"]["space"]) == ("linear", "log-odds")
                found = explained["outputs"]["probability"]
                assert list(found["contributions"].values()) == pytest.approx(moved[:, row], abs=1e-6)
                answer = body["outputs"][0]["data"][row]
                assert 1 / (1 + np.exp(-found["total"])) == pytest.approx(answer, abs=1e-6)
                prediction = kit.log.find(body["parameters"]["prediction_ids"][row])
                assert prediction.outputs == {"probability": answer}

    asyncio.run(check())


def test_a_given_explanation_is_kept_where_the_endpoint_says_so() -> None:
    async def check() -> None:
        async with running() as (kit, client):
            (plain,) = (await post(client, full_request())).json()["parameters"]["prediction_ids"][:1]
            assert kit.log.explanations(plain) == []
            (made,) = kit.routes.current().values()
            kit.routes.publish([msgspec.structs.replace(made, log=Log(explanations=0))])

            async def kept() -> bool:
                nonlocal body
                body = (await post(client, full_request())).json()
                return bool(kit.log.explanations(body["parameters"]["prediction_ids"][0]))

            body: dict[str, Any] = {}
            await wait_until_async(kept, "the endpoint to keep explanations")
            for id_, given in zip(body["parameters"]["prediction_ids"], body["explanations"], strict=True):
                (one,) = kit.log.explanations(id_)
                prediction = kit.log.find(id_)
                assert json.loads(one.document) == given
                assert (one.origin, one.exact, one.at) == ("requested", True, prediction.at)
                assert (one.endpoint, one.version, one.digest) == ("late-arrival", "1", prediction.digest)

    asyncio.run(check())


def test_by_key_the_stored_features_are_explained() -> None:
    async def check() -> None:
        async with running() as (_, client):
            reply = await post(client, keyed_request("AA", None), "/v2/models/late-arrival/versions/1/explain")
            assert reply.status_code == 200, reply.text
            first = reply.json()["explanations"][0]["outputs"]["probability"]
            assert set(first["contributions"]) == set(FEATURES)

    asyncio.run(check())


def test_what_is_asked_wrongly_is_refused_without_a_prediction() -> None:
    async def check() -> None:
        async with running() as (kit, client):
            names = {"authorization": kit.key(KeyScope.SCRAPE)}
            many = keyed_request(*["AA"] * (MOST_ROWS + 1))
            binary = full_request(parameters={"binary_data_output": True})
            for status, reply in (
                (403, await post(client, full_request(), **names)),
                (401, await post(client, full_request(), authorization="Bearer msp_wrong")),
                (400, await post(client, many)),
                (400, await post(client, binary)),
                (400, await post(client, {"inputs": []})),
                (404, await post(client, full_request(), "/v2/models/nobody/explain")),
                (503, await post(client, full_request(parameters={"timeout": 1}))),
            ):
                assert reply.status_code == status, reply.text
            assert kit.log.recent() == []

    asyncio.run(check())


def test_a_model_without_an_exact_explanation_names_the_command() -> None:
    async def check() -> None:
        async with running() as (kit, client):
            kit.publish("1", slow=True)  # a longer graph: several matrix products
            changed = next(iter(kit.routes.current().values())).arms[0].digest

            async def refused() -> httpx.Response:
                return await post(client, full_request())

            replies: list[httpx.Response] = []

            async def asked() -> bool:
                replies.append(await refused())
                return replies[-1].status_code == 400

            for _ in range(200):
                if await asked():
                    break
                await asyncio.sleep(0.02)
            assert replies[-1].status_code == 400, (changed, replies[-1].text)
            assert "mainspring explain --sampled" in replies[-1].json()["error"]
            before = len(kit.log.recent())
            assert (await refused()).status_code == 400
            assert len(kit.log.recent()) == before

    asyncio.run(check())


def test_a_slow_explanation_holds_up_no_prediction_and_ends_at_the_deadline() -> None:
    held = threading.Event()

    class Slow(OnnxExplainer):
        def __init__(self, bundle: Bundle) -> None:
            held.wait(20)
            super().__init__(bundle)

    async def check() -> None:
        async with running(explainers=Slow) as (kit, client):
            (made,) = kit.routes.current().values()
            slow = asyncio.create_task(post(client, full_request()))
            answers = [await post(client, full_request(), INFER) for _ in range(5)]
            assert {each.status_code for each in answers} == {200}
            late = await post(client, full_request(), **{"mainspring-timeout-ms": "50"})
            assert late.status_code == 503
            assert "Retry-After" in late.headers
            waiting = [asyncio.create_task(post(client, full_request())) for _ in range(30)]
            await wait_until_async(lambda: sum(each.done() for each in waiting) >= 14, "16 at most to wait")
            assert {each.result().status_code for each in waiting if each.done()} == {429}
            held.set()
            assert (await slow).status_code == 200
            statuses = [(await each).status_code for each in waiting]
            assert set(statuses) == {200, 429}
            assert (await post(client, full_request())).status_code == 200
            assert made.endpoint == "late-arrival"

    asyncio.run(check())


def test_a_gateway_without_explainers_says_so() -> None:
    async def check() -> None:
        async with running(explainers=None) as (_, client):
            reply = await post(client, full_request())
            assert (reply.status_code, "does not explain" in reply.text) == (404, True)

    asyncio.run(check())


def test_an_arm_that_answers_is_the_one_that_is_explained() -> None:
    async def check() -> None:
        async with running() as (kit, client):
            kit.publish("1", "2", weights=[1, 1])
            for version in ("1", "2"):
                path = f"/v2/models/late-arrival/versions/{version}/explain"
                for _ in range(200):
                    reply = await post(client, full_request(), path)
                    if reply.status_code == 200:
                        break
                    await asyncio.sleep(0.02)
                total = reply.json()["explanations"][0]["outputs"]["probability"]["total"]
                answer = reply.json()["outputs"][0]["data"][0]
                assert 1 / (1 + np.exp(-total)) == pytest.approx(answer, abs=1e-6)
            replies = [await post(client, full_request(id=f"r{number}")) for number in range(12)]
            assert {each.json()["model_version"] for each in replies} == {"1", "2"}
            for each in replies:
                total = each.json()["explanations"][0]["outputs"]["probability"]["total"]
                answer = each.json()["outputs"][0]["data"][0]
                assert 1 / (1 + np.exp(-total)) == pytest.approx(answer, abs=1e-6)

    asyncio.run(check())


def test_a_refused_explanation_is_not_charged() -> None:
    async def check() -> None:
        async with running(quotas=(Quota("q", requests=2),)) as (_, client):
            binary = full_request() | {"parameters": {"binary_data_output": True}}
            many = full_request()
            for each in many["inputs"]:
                each["data"], each["shape"] = each["data"][:1] * (MOST_ROWS + 1), [MOST_ROWS + 1]
            for refused in (binary, many):
                for _ in range(3):
                    assert (await post(client, refused)).status_code == 400
            replies = [await post(client, full_request()) for _ in range(3)]
            assert [each.status_code for each in replies] == [200, 200, 429]

    asyncio.run(check())
