"""A gateway with a cache: over HTTP and gRPC, through swaps, policies, quotas and erasures, and killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from integration.test_gateway import Running, running
from integration.test_grpc_workers import message
from kit.fleet import BODY, INFER, Fleet
from kit.serving import FEATURES, Kit, expected, full_request, keyed_request
from kit.waiting import free_port, wait_until_async
from mainspring.ledger.adapters.unread import unread
from mainspring.ledger.model import Log
from mainspring.processes.supervisor import Supervisor
from mainspring.security.quota import Quota
from mainspring.serving.grpc import wire
from mainspring.serving.model import Cache
from mainspring.serving.outputs import Outputs

MISS, HIT, REFUSED = "mainspring; fwd=miss", "mainspring; hit", "mainspring; fwd=request"
PLAIN = Cache()
NEW = ("cache-control", "no-cache")
ANSWER = [pytest.approx(each, abs=1e-6) for each in expected({name: each for name, (_, each) in FEATURES.items()})]


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def cached(*versions: str, kit: Kit | None = None, cache: Cache | None = PLAIN, **changes: Any) -> Kit:
    kit = kit or Kit()
    kit.publish(*(versions or ("1",)))
    (made,) = kit.routes.current().values()
    kit.routes.publish([msgspec.structs.replace(made, cache=cache, **changes)])
    return kit


async def ask(each: Running, body: Any = None, **headers: str) -> tuple[str, dict[str, Any]]:
    """Return what the cache did, and the reply."""
    content = json.dumps(body or full_request()).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await each.client.post(INFER, content=content, headers=sent)
    assert reply.status_code == 200, reply.text
    return reply.headers.get("cache-status", ""), reply.json()


@on_a_loop
async def test_an_equal_request_gets_the_earlier_answer_under_ids_of_its_own() -> None:
    async with running(cached()) as each:
        first, one = await ask(each)
        again, other = await ask(each, full_request(id="mine"))
        assert (first, again) == (MISS, HIT)
        assert one["outputs"] == other["outputs"]
        assert one["outputs"][0]["data"] == ANSWER
        assert (one["parameters"].get("cached"), other["parameters"]["cached"]) == (None, True)
        ids = [*one["parameters"]["prediction_ids"], *other["parameters"]["prediction_ids"]]
        found = [each.kit.log.find(id_) for id_ in ids]
        assert [prediction.cached for prediction in found] == [False, False, True, True]
        assert len(set(ids)) == 4
        assert found[0].features == found[2].features
        assert found[2].request_id == "mine"
        binary = await each.client.post(INFER, json=full_request(parameters={"binary_data_output": True}))
        assert binary.headers["cache-status"] == HIT
        for control, said in (("no-cache", REFUSED), ("max-age=0", MISS), ("no-store", REFUSED)):
            assert (await ask(each, cache_control=control))[0] == said
        assert (await ask(each))[0] == HIT
        explained = await each.client.post(INFER.replace("infer", "explain"), json=full_request())
        assert explained.status_code == 200
        assert explained.json()["parameters"]["cached"]
        numbers = (await each.client.get("/metrics")).text
        assert 'mainspring_cache_requests_total{endpoint="late-arrival",outcome="hit"} 4.0' in numbers
        assert 'mainspring_cache_answers{endpoint="late-arrival"} 1.0' in numbers
        assert 'mainspring_predictions_total{endpoint="late-arrival"} 16.0' in numbers
        [stats] = (await each.client.get("/v2/models/late-arrival/stats")).json()["model_stats"]
        assert stats["inference_stats"]["cache_hit"]["count"] == 4
        assert (stats["execution_count"], stats["inference_count"]) == (4, 16)


@on_a_loop
async def test_many_at_once_over_connections_of_their_own_cost_one_prediction() -> None:
    async with running(cached(deadline_us=10_000_000)) as each:
        said = await asyncio.gather(*(ask(each) for _ in range(40)))
        assert [body["outputs"][0]["data"] for _, body in said] == [ANSWER] * 40
        [stats] = (await each.client.get("/v2/models/late-arrival/stats")).json()["model_stats"]
        assert stats["execution_count"] == 1
        assert stats["inference_stats"]["success"]["count"] == 40
        assert [status for status, _ in said].count(MISS) == 1


@on_a_loop
async def test_a_request_by_key_is_answered_by_the_features_that_the_model_sees() -> None:
    async with running(cached()) as each:
        assert (await ask(each, keyed_request("AA")))[0] == MISS
        status, body = await ask(each, keyed_request("UA", parameters={"feature_statuses": True}))
        assert status == HIT
        assert body["parameters"]["feature_statuses"]["Carrier.delay_1h"] == ["MISSING"]
        prediction = each.kit.log.find(body["parameters"]["prediction_ids"][0])
        assert prediction.cached
        assert prediction.keys["carrier"] == "UA"
        assert prediction.statuses
        further = keyed_request("UA")
        further["inputs"][2]["data"] = [501.0]
        assert (await ask(each, further))[0] == MISS
        features = {"Carrier.flights_1h": 0, "Carrier.delay_1h": None, "Schedule.thousands": 0.5, "Schedule.hour": 2}
        given = [
            {"name": name, "shape": [1], "datatype": FEATURES[name][0], "data": [value]}
            for name, value in features.items()
        ]
        assert (await ask(each, {"inputs": given}))[0] == HIT
        mixed = await asyncio.gather(*(ask(each, keyed_request(*["AA"] * rows)) for rows in (1, 2, 1, 3, 2)))
        assert [len(body["outputs"][0]["data"]) for _, body in mixed] == [1, 2, 1, 3, 2]
        assert len({value for _, body in mixed for value in body["outputs"][0]["data"]}) == 1
        assert mixed[0][0] == HIT


@on_a_loop
async def test_a_swap_never_gives_the_answer_of_another_version_and_callers_are_apart() -> None:
    kit = cached()
    async with running(kit) as each:
        await ask(each)
        cached("2", kit=kit)
        await wait_until_async(lambda: set(each.gateway._plane.served["late-arrival"].lanes) == {"2"})
        status, body = await ask(each)
        wanted = expected({name: values for name, (_, values) in FEATURES.items()}, 1.0)
        assert status == MISS
        assert body["outputs"][0]["data"] == pytest.approx(wanted, abs=1e-6)
        cached("1", kit=kit)
        await wait_until_async(lambda: set(each.gateway._plane.served["late-arrival"].lanes) == {"1"})
        assert (await ask(each))[0] == HIT  # of the version that came back
        assert (await ask(each, authorization=kit.key()))[0] == MISS
        cached("1", kit=kit, cache=Cache(by="all"))
        await wait_until_async(lambda: each.gateway._plane.served["late-arrival"].route.cache.by == "all")
        assert [(await ask(each, authorization=kit.key()))[0] for _ in range(2)] == [MISS, HIT]
        cached("1", kit=kit, cache=None)
        await wait_until_async(lambda: each.gateway._plane.served["late-arrival"].route.cache is None)
        assert (await ask(each))[0] == ""


@on_a_loop
async def test_policies_quotas_and_erasures_hold_for_earlier_answers() -> None:
    mark = [""]
    quota = Quota("trial", per="month", requests=5)
    kit = cached(kit=Kit(erasures=lambda: mark[0]), cache=Cache(by="all"), quotas=(quota,))
    async with running(kit) as each:
        await ask(each)
        (made,) = kit.routes.current().values()
        revision = kit.routes.publish([msgspec.structs.replace(made, outputs=(Outputs(digits=1),))])
        await wait_until_async(lambda: each.gateway._plane.served["late-arrival"].route.revision == revision)
        status, body = await ask(each)
        assert status == HIT
        assert body["outputs"][0]["data"] == [pytest.approx(round(value.expected, 1)) for value in ANSWER]
        mark[0] = "erased"
        assert [(await ask(each))[0] for _ in range(3)] == [MISS, HIT, HIT]
        spent = await each.client.post(INFER, json=full_request())
        assert spent.status_code == 429


def test_over_grpc_and_a_kill_loses_nothing_but_the_cache(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, workers=1, settings={"grpc": f"127.0.0.1:{free_port()}"})
    fleet.publish("1", cache=Cache(by="all"), log=Log(sync=True))
    environment = {f"MAINSPRING_{name.upper()}": str(value) for name, value in fleet._settings.items()}
    supervisor = Supervisor(fleet.project, environment | {"OMP_NUM_THREADS": "1"}, parts=("gateway", "grpc"))

    def over_grpc(*metadata: tuple[str, str]) -> bool:
        asking = [("authorization", f"Bearer {fleet.key}"), *metadata]
        with grpc.insecure_channel(str(fleet.settings["grpc"])) as channel:
            infer = channel.unary_unary(f"/{wire.SERVICE}/ModelInfer")
            found = wire.InferResponse.FromString(infer(message(), metadata=asking, timeout=60, wait_for_ready=True))
        return "cached" in found.parameters

    with supervisor.running(ready_within_s=60):
        assert [over_grpc(), over_grpc(), over_grpc(NEW), over_grpc()] == [False, True, False, True]
        said = [fleet.ask("POST", INFER, BODY).headers["cache-status"] for _ in range(3)]
        fleet.until_replaced("gateway", fleet.kill("gateway"))
        said.append(fleet.ask("POST", INFER, BODY).headers["cache-status"])
        assert said == [MISS, HIT, HIT, MISS]
    kept = list(unread(fleet.project.settings.state / "ledger"))
    assert [each.cached for each in kept].count(True) == 8
    assert len(kept) == 16
