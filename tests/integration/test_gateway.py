"""A real gateway on a free port, a real ONNX bundle behind it, real connections in front of it."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import httpx
import msgspec
import pytest

from kit.load import REST_S
from kit.serving import FEATURES, NOW, Kit, bundle, expected, full_request, keyed_request, route
from kit.waiting import free_port, wait_until_async
from mainspring.core.errors import Conflict, Unavailable
from mainspring.core.settings import Address, Limits
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.security.model import Action, KeyScope
from mainspring.serving.http.gateway import Gateway
from mainspring.serving.http.server import serve
from mainspring.serving.model import DEFAULTS, Arm

INFER = "/v2/models/late-arrival/infer"
ANSWERS = expected({name: values for name, (_, values) in FEATURES.items()})


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Running:
    """A gateway that serves, and a client with a key."""

    def __init__(self, kit: Kit, gateway: Gateway, port: int, client: httpx.AsyncClient) -> None:
        self.kit, self.gateway, self.port, self.client = kit, gateway, port, client

    async def infer(self, body: Any, path: str = INFER) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(path, content=content)

    async def raw(self, *parts: bytes, pause_s: float = 0.0) -> bytes:
        """Send bytes over a connection of their own and return everything that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        try:
            return await asyncio.wait_for(reader.read(65_536), 10)
        finally:
            writer.close()


@asynccontextmanager
async def running(kit: Kit, *, ready: bool = True) -> AsyncIterator[Running]:
    gateway, port = kit.gateway(), free_port()
    stop, started = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        serve(gateway, Address("127.0.0.1", port), limits=kit.limits, stop=stop, started=started.set)
    )
    try:
        await asyncio.wait((serving, asyncio.create_task(started.wait())), return_when=asyncio.FIRST_COMPLETED)
        headers = {"authorization": kit.key(), "content-type": "application/json"}
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20) as client:
            each = Running(kit, gateway, port, client)
            if ready:
                await wait_until_async(lambda: gateway.unready() is None)
            yield each
    finally:
        stop.set()
        await serving


def published(**settings: Any) -> Kit:
    kit = Kit(**settings)
    kit.publish("1")
    return kit


@on_a_loop
async def test_full_inputs_are_answered_as_the_model_says_and_logged() -> None:
    async with running(published()) as each:
        reply = await each.infer(full_request(id="mine"))
        body = reply.json()
        assert reply.status_code == 200
        assert (body["id"], body["model_name"], body["model_version"]) == ("mine", "late-arrival", "1")
        (output,) = body["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("probability", "FP32", [2])
        assert output["data"] == pytest.approx(ANSWERS, abs=1e-6)
        first, second = (each.kit.log.find(name) for name in body["parameters"]["prediction_ids"])
        assert first.features == {name: values[0] for name, (_, values) in FEATURES.items()}
        assert second.outputs == {"probability": output["data"][1]}
        assert (first.keys, first.request, first.statuses) == ({}, {}, {})
        assert (first.at, first.endpoint, first.model) == (NOW, "late-arrival", "late")
        assert first.latency_us > 0


@on_a_loop
async def test_requests_leave_nothing_to_the_cycle_collector() -> None:
    async with running(published()) as each:
        bodies = [full_request(), keyed_request("AA", None), {"inputs": []}, full_request(parameters={"timeout": 1})]
        statuses = [(await each.infer(body)).status_code for body in bodies]
        assert [status // 100 for status in statuses] == [2, 2, 4, 5]
        # A connection that is closed meanwhile may leave something; a request that does leaves it each time.
        left = [await _left_by(each, bodies * 5) for _ in range(3)]
        assert set.intersection(*left) == set()


async def _left_by(gateway: Any, bodies: list[Any]) -> set[type]:
    """Return the types of the gateway's objects that requests leave to the cycle collector."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for body in bodies:
            await gateway.infer(body)
        gc.collect()
        return {type(one) for one in gc.garbage if type(one).__module__.startswith("mainspring.serving")}
    finally:
        gc.set_debug(0)
        gc.enable()
        gc.garbage.clear()


@on_a_loop
async def test_by_key_the_rest_is_computed_and_read() -> None:
    async with running(published()) as each:
        reply = await each.infer(keyed_request("AA", None, parameters={"feature_statuses": True}))
        body = reply.json()
        features = {
            "Carrier.flights_1h": [0, 0],
            "Carrier.delay_1h": [None, None],
            "Schedule.thousands": [0.5, 0.5],
            "Schedule.hour": [2, 2],
        }
        assert body["outputs"][0]["data"] == pytest.approx(expected(features), abs=1e-6)
        assert set(body["parameters"]["feature_statuses"]) == {"Carrier.flights_1h", "Carrier.delay_1h"}
        logged = each.kit.log.find(body["parameters"]["prediction_ids"][0])
        assert logged.keys == {"flight_id": 1, "carrier": "AA"}
        assert logged.request == {"distance": 500.0, "scheduled_at": NOW + 2 * 3_600_000_000}
        assert logged.features == {name: values[0] for name, values in features.items()}
        assert set(logged.statuses.values()) == {"MISSING"}


@on_a_loop
async def test_requests_at_once_each_get_their_own_answer() -> None:
    async with running(published()) as each:

        async def ask(number: int) -> None:
            columns = {
                "Carrier.flights_1h": [number],
                "Carrier.delay_1h": [number / 7],
                "Schedule.thousands": [0.5],
                "Schedule.hour": [number % 24],
            }
            inputs = [
                {"name": name, "shape": [1, 1], "datatype": FEATURES[name][0], "data": [values]}
                for name, values in columns.items()
            ]
            body = keyed_request("AA") if number % 3 == 0 else {"inputs": inputs}
            reply = (await each.infer({**body, "id": f"{number}"})).json()
            assert reply["id"] == f"{number}"
            if number % 3:
                assert reply["outputs"][0]["data"] == pytest.approx(expected(columns), abs=1e-6)

        await asyncio.gather(*(ask(number) for number in range(200)))
        batches, rows = each.gateway.metrics.of("late-arrival").batch_rows.cumulative()
        assert rows == 200
        assert batches[-1][1] < 200  # some ran together


BAD = {
    "not JSON": (b"{", 400, "JSON"),
    "empty": (b"", 400, "JSON"),
    "NaN": (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', 400, "JSON"),
    "too large a number": (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1e999]}]}', 400, ""),
    "a list": (b"[]", 400, "object"),
    "no inputs": ({"inputs": []}, 400, "no inputs"),
    "inputs of another type": ({"inputs": {}}, 400, "$.inputs"),
    "a name of another type": ({"inputs": [{"name": 1}]}, 400, "$.inputs[0].name"),
    "deep nesting": (
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ' + b"[" * 100_000,
        400,
        "nest",
    ),
    "an unknown output": (full_request(outputs=[{"name": "logit"}]), 400, "'logit'"),
    "a negative timeout": (full_request(parameters={"timeout": -1}), 400, "timeout"),
    "a long id": (full_request(id="x" * 300), 400, "id"),
}


@pytest.mark.parametrize("name", BAD)
@on_a_loop
async def test_bad_bodies_get_a_400_that_names_the_place(name: str) -> None:
    body, status, word = BAD[name]
    async with running(published()) as each:
        reply = await each.infer(body)
        assert reply.status_code == status
        assert word in reply.json()["error"]
        assert "mainspring" not in reply.text
        assert "Traceback" not in reply.text
        assert (await each.infer(full_request())).status_code == 200


@on_a_loop
async def test_unknown_models_versions_paths_and_methods() -> None:
    async with running(published()) as each:
        for path, word in {
            "/v2/models/nobody/infer": "'nobody'",
            "/v2/models/late-arrival/versions/9/infer": "'9'",
            "/v2/models/late-arrival/versions/%2e%2e/infer": "",
            "/v2/models/..%2f..%2fetc/infer": "",
            "/v2/nothing": "path",
        }.items():
            reply = await each.infer(full_request(), path)
            assert (reply.status_code, word in reply.json()["error"]) == (404, True)
        reply = await each.client.get(INFER)
        assert (reply.status_code, "POST" in reply.json()["error"]) == (405, True)
        assert (await each.client.get("/v2/models/late-arrival/versions/9")).status_code == 404


@on_a_loop
async def test_anonymous_gets_401_everywhere_but_at_the_probes() -> None:
    async with running(published()) as each:
        for data_route in Gateway.ROUTES:
            path = data_route.path.format(model="late-arrival", version="1", region="r")
            for headers in (
                {"authorization": ""},
                {"authorization": "Bearer msp_wrong"},
                {"authorization": "Basic eA=="},
            ):
                reply = await each.client.request(data_route.method, path, headers=headers)
                if data_route.action is None:
                    assert reply.status_code == 200
                    assert data_route.path.startswith("/v2/health/")
                else:
                    assert reply.status_code == 401
                    assert reply.headers["www-authenticate"].startswith("Bearer")
        assert [each_route.action for each_route in Gateway.ROUTES].count(None) == 2
        assert (await each.client.get("/v2/nothing", headers={"authorization": ""})).status_code == 401


@on_a_loop
async def test_a_key_without_the_scope_gets_403() -> None:
    async with running(published()) as each:
        every = set(KeyScope)
        for data_route in Gateway.ROUTES:
            if data_route.action is not None:
                scope = KeyScope.SCRAPE if data_route.action is Action.METRICS_SCRAPE else KeyScope.PREDICT
                header = {"authorization": each.kit.key(*(every - {scope}))}
                path = data_route.path.format(model="late-arrival", version="1", region="r")
                reply = await each.client.request(data_route.method, path, headers=header)
                assert reply.status_code == 403


@on_a_loop
async def test_hosts_and_framing() -> None:
    async with running(published()) as each:
        key = each.client.headers["authorization"]
        head = f"POST {INFER} HTTP/1.1\r\nAuthorization: {key}\r\n"

        async def status(request: str, *rest: bytes, pause_s: float = 0.0) -> int:
            answer = await each.raw(request.encode(), *rest, pause_s=pause_s)
            return int(answer.split(b" ")[1])

        end = "Connection: close\r\n\r\n"
        assert await status(f"{head}Host: evil.example\r\nContent-Length: 0\r\n{end}") == 403
        assert await status(f"{head}Content-Length: 0\r\n{end}") == 400
        both = f"{head}Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n{end}"
        assert await status(both, b"0\r\n\r\n") == 400
        assert await status(f"{head}Host: localhost\r\nContent-Length: 2000000\r\n{end}") == 413
        assert await status(f"GET /v2/health/live HTTP/1.1\r\nHost: evil.example\r\n{end}") == 403


@on_a_loop
async def test_bodies_are_limited_in_size_and_time_while_they_come() -> None:
    async with running(published(max_body_bytes=10_000, limits=Limits(body_us=300_000))) as each:
        key = each.client.headers["authorization"]
        head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
        answer = await each.raw(head.encode(), chunk, chunk, chunk)
        assert answer.startswith(b"HTTP/1.1 413")
        answer = await each.raw(head.encode(), chunk)
        assert answer.startswith(b"HTTP/1.1 408")
        slow = head.replace("Transfer-Encoding: chunked", "Content-Length: 100")
        answer = await each.raw(slow.encode(), b"{")
        assert answer.startswith(b"HTTP/1.1 408")
        body = json.dumps(full_request()).encode()
        whole = head.encode() + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        assert (await each.raw(whole, pause_s=0.05)).startswith(b"HTTP/1.1 200")


@on_a_loop
async def test_compressed_bodies() -> None:
    async with running(published(max_body_bytes=10_000)) as each:
        body = json.dumps(full_request()).encode()
        header = {"content-encoding": "gzip"}

        async def status(content: bytes, headers: dict[str, str]) -> int:
            return (await each.client.post(INFER, content=content, headers=headers)).status_code

        assert await status(gzip.compress(body), header) == 200
        assert await status(gzip.compress(b" " * 5_000_000), header) == 413
        assert await status(gzip.compress(body)[:-9], header) == 400
        assert await status(body, header) == 400
        assert await status(body, {"content-encoding": "br"}) == 415


@on_a_loop
async def test_without_routes_it_lives_and_is_not_ready() -> None:
    async with running(Kit(), ready=False) as each:
        await wait_until_async(lambda: "route yet" in (each.gateway.unready() or ""))
        assert (await each.client.get("/v2/health/live")).status_code == 200
        reply = await each.client.get("/v2/health/ready")
        assert (reply.status_code, "route" in reply.json()["error"]) == (503, True)
        each.kit.publish("1")
        await wait_until_async(lambda: each.gateway.unready() is None)
        assert (await each.client.get("/v2/health/ready")).status_code == 200
        assert (await each.infer(full_request())).status_code == 200


@on_a_loop
async def test_no_request_fails_while_versions_come_and_go() -> None:
    async with running(published()) as each:
        done = False
        versions: set[str] = set()

        async def ask() -> None:
            while not done:
                reply = await each.infer(full_request())
                assert reply.status_code == 200, reply.text
                body = reply.json()
                bias = float(body["model_version"]) - 1
                columns = {name: values for name, (_, values) in FEATURES.items()}
                assert body["outputs"][0]["data"] == pytest.approx(expected(columns, bias), abs=1e-6)
                versions.add(body["model_version"])
                await asyncio.sleep(REST_S)

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for version in ("2", "3", "1"):
            each.kit.publish(version)
            changed = asyncio.get_running_loop().time()
            wanted = f'version="{version}"'
            await wait_until_async(lambda wanted=wanted: wanted in each.gateway.metrics.text().decode())
            assert asyncio.get_running_loop().time() - changed < 9  # a second on a machine that is not shared
            await asyncio.sleep(0.05)
        done = True
        await asyncio.gather(*asking)
        assert versions == {"1", "2", "3"}


@on_a_loop
async def test_a_bundle_that_cannot_be_served_leaves_what_serves() -> None:
    async with running(published()) as each:
        columns = {name: values for name, (_, values) in FEATURES.items()}
        wrong = {"inputs": columns, "outputs": {"probability": [0.1, 0.2]}}
        lying = bundle(5.0, golden_json=json.dumps(wrong).encode())
        each.kit.bundles.save(lying)
        each.kit.routes.publish([route(Arm("2", lying.digest))])
        await wait_until_async(lambda: b"mainspring_refused_versions 1.0" in each.gateway.metrics.text())
        reply = await each.infer(full_request())
        assert (reply.status_code, reply.json()["model_version"]) == (200, "1")
        assert (await each.client.get("/v2/health/ready")).status_code == 200
        each.kit.routes.publish([route(Arm("3", "0" * 64)), route(Arm("3", "0" * 64), endpoint="other")])
        await wait_until_async(lambda: each.gateway.unready() is not None)
        assert (await each.client.get("/v2/health/ready")).json()["error"].startswith("1 of 2 endpoints")
        assert (await each.client.get("/v2/models/other/ready")).status_code == 503
        assert (await each.infer(full_request())).status_code == 200


@on_a_loop
async def test_traffic_is_split_by_weight_and_sticks_to_the_key() -> None:
    kit = Kit()
    kit.publish("1", "2", weights=(3.0, 1.0))
    async with running(kit) as each:
        carriers = [f"C{number}" for number in range(200)]
        replies = [(await each.infer(keyed_request(carrier))).json()["model_version"] for carrier in carriers]
        assert 20 < replies.count("2") < 85
        again = [(await each.infer(keyed_request(carrier))).json()["model_version"] for carrier in carriers[:50]]
        assert again == replies[:50]
        for version in ("1", "2"):
            reply = await each.infer(full_request(), f"/v2/models/late-arrival/versions/{version}/infer")
            assert reply.json()["model_version"] == version


class SilentStore:
    """An online store that has just stopped to answer."""

    remote = False

    def payloads(self, wanted: Any) -> Any:
        raise Unavailable("redis://internal did not answer.")

    def ping(self) -> None:
        pass


@on_a_loop
async def test_an_online_store_that_does_not_answer_is_a_503_and_full_inputs_go_on() -> None:
    async with running(published(online=SilentStore())) as each:
        reply = await each.infer(keyed_request("AA"))
        assert (reply.status_code, "internal" in reply.text) == (503, False)
        assert int(reply.headers["retry-after"]) >= 1
        assert (await each.infer(full_request())).status_code == 200


@on_a_loop
async def test_who_hangs_up_while_waiting_is_not_predicted_for() -> None:
    kit = Kit()
    kit.publish("1", slow=True)
    async with running(kit) as each:
        body = json.dumps(keyed_request(*["AA"] * 40)).encode()
        key = each.client.headers["authorization"]
        head = (
            f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        # So many rows that the others wait also where the machine is busy with something else.
        running_one = asyncio.create_task(each.infer(json.dumps(keyed_request(*["AA"] * 200)).encode()))
        await wait_until_async(lambda: each.gateway.in_flight == 1)
        _, writer = await asyncio.open_connection("127.0.0.1", each.port)
        writer.write(head.encode() + body)
        await wait_until_async(lambda: b'waiting_rows{endpoint="late-arrival"} 40.0' in each.gateway.metrics.text())
        writer.close()
        assert (await running_one).status_code == 200
        await wait_until_async(lambda: each.gateway.in_flight == 0)
        assert (await each.infer(full_request())).status_code == 200
        assert len(kit.log.recent(limit=1000)) == 202
        assert b'status="499"} 1.0' in each.gateway.metrics.text()


class FailingRoutes:
    """A routing table whose backend stops answering."""

    def __init__(self, routes: Any) -> None:
        self.routes, self.silent = routes, False

    def revision(self) -> int:
        if self.silent:
            raise Unavailable("The catalog /secret did not answer.")
        return int(self.routes.revision())

    def current(self) -> Any:
        return self.routes.current()

    def publish(self, routes: Any) -> int:
        return int(self.routes.publish(routes))


@on_a_loop
async def test_a_routing_table_that_does_not_answer_leaves_what_serves() -> None:
    kit = Kit()
    kit.routes = FailingRoutes(kit.routes)
    kit.routes.silent = True
    async with running(kit, ready=False) as each:
        await wait_until_async(lambda: "does not respond" in (each.gateway.unready() or ""))
        reply = await each.infer(full_request())
        assert (reply.status_code, "secret" in reply.text) == (503, False)
        kit.publish("1")
        kit.routes.silent = False
        await wait_until_async(lambda: each.gateway.unready() is None)
        kit.routes.silent = True
        await asyncio.sleep(0.5)
        assert (await each.infer(full_request())).status_code == 200
        assert (await each.client.get("/v2/health/ready")).status_code == 200


@on_a_loop
async def test_a_header_says_how_long_a_request_may_take() -> None:
    async with running(published()) as each:

        async def ask(timeout: str, body: Any) -> tuple[int, str]:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            reply = await each.client.post(INFER, content=content, headers={"mainspring-timeout-ms": timeout})
            return reply.status_code, reply.json().get("error", "")

        assert (await ask("20000", full_request()))[0] == 200
        assert await ask("0", full_request()) == (503, "The deadline has already passed.")
        assert (await ask("0.000001", b"not even JSON"))[0] == 503  # nothing of it is read
        assert (await ask("20000", full_request(parameters={"timeout": 1})))[0] == 503  # the shorter one counts
        assert (await ask("9" * 9, b"not even JSON"))[0] == 400
        for wrong in ("", "-1", "1e3", "1 s", "nan", "1_000", "9" * 30):
            status, told = await ask(wrong, full_request())
            assert (status, "Mainspring-Timeout-Ms" in told) == (400, True), wrong
        assert each.gateway.metrics.of("late-arrival").rejections["too_late"] == 3


@on_a_loop
async def test_a_deadline_that_has_passed_is_a_503() -> None:
    async with running(published()) as each:
        reply = await each.infer(full_request(parameters={"timeout": 1}))
        assert (reply.status_code, "deadline" in reply.json()["error"]) == (503, True)
        text = (await each.client.get("/metrics")).text
        assert 'mainspring_rejections_total{cause="too_late",endpoint="late-arrival"} 1.0' in text


@on_a_loop
async def test_metrics_name_endpoints_and_never_callers_or_paths() -> None:
    async with running(published()) as each:
        await each.infer(full_request())
        await each.infer(full_request(), "/v2/models/stranger/infer")
        reply = await each.client.get("/metrics")
        assert reply.headers["content-type"].startswith("text/plain")
        assert 'mainspring_requests_total{endpoint="late-arrival",status="200"} 1.0' in reply.text
        assert 'mainspring_stage_seconds_count{endpoint="late-arrival",stage="compute"} 1.0' in reply.text
        assert 'mainspring_batch_rows_sum{endpoint="late-arrival"} 2.0' in reply.text
        labels = set(re.findall(r'([a-z]+)="', reply.text))
        assert labels == {"endpoint", "version", "status", "stage", "le", "asked", "device", "reason"}
        assert "stranger" not in reply.text
        assert "/infer" not in reply.text


@on_a_loop
async def test_metadata_says_what_to_send() -> None:
    async with running(published()) as each:
        model = (await each.client.get("/v2/models/late-arrival")).json()
        assert [tensor["name"] for tensor in model["inputs"]] == list(FEATURES)
        assert model["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1]}]
        assert model["parameters"]["optional_keyed_inputs"] == ["tail"]
        assert model["parameters"]["entity_keys"] == ["flight_id", "carrier"]
        ready = await each.client.get("/v2/models/late-arrival/versions/1/ready")
        assert ready.json() == {"name": "late-arrival", "version": "1", "ready": True}
        assert (await each.client.get("/v2")).json()["name"] == "mainspring"


@on_a_loop
async def test_two_gateways_cannot_share_an_address() -> None:
    async with running(published()) as each:
        with pytest.raises(Conflict, match=str(each.port)):
            await serve(Kit().gateway(), Address("127.0.0.1", each.port))


@on_a_loop
async def test_what_was_answered_is_in_the_segment_log(tmp_path) -> None:
    from mainspring.ledger.adapters.unread import unread

    log = SegmentLog(tmp_path)
    async with running(published(log=log)) as each:
        reply = (await each.infer(keyed_request("AA", "UA"))).json()
    log.close()
    assert [found.id for found in unread(tmp_path)] == reply["parameters"]["prediction_ids"]


@on_a_loop
async def test_bodies_that_find_no_room_are_refused_and_counted() -> None:
    async with running(published(limits=Limits(receiving_bytes=400_000))) as each:
        head = _head(each.kit.key(), "Content-Length: 300000")
        _, first = await asyncio.open_connection("127.0.0.1", each.port)
        first.write(head)
        await wait_until_async(lambda: each.gateway.in_flight == 1)
        told = await each.raw(head, b" " * 1000)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in told
        assert each.gateway.metrics.of("late-arrival").rejections["no_room"] == 1
        text = (await each.client.get("/metrics")).text
        assert "mainspring_receiving_bytes 300000.0" in text
        assert (await each.infer(full_request())).status_code == 200  # what comes at once needs no room
        first.close()
        await first.wait_closed()
        await wait_until_async(lambda: not each.gateway.in_flight)
        assert "mainspring_receiving_bytes 0.0" in (await each.client.get("/metrics")).text


def _head(key: str, framing: str) -> bytes:
    return f"POST {INFER} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {key}\r\n{framing}\r\n\r\n".encode()


def _talk(port: int, parts: list[bytes], *, reset: bool, half: bool) -> None:
    with socket.create_connection(("127.0.0.1", port)) as peer:
        for part in parts:
            peer.sendall(part)
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if half:
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(20)
            while peer.recv(65_536):
                pass


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        ("Content-Length: 1000", b""),
        ("Content-Length: 1000", b'{"inputs": ['),
        ("Content-Length: 500000", b'{"inputs": ['),  # received where it belongs
        ("Content-Length: 500000", b" " * 200_000),
        ("Transfer-Encoding: chunked", b"5\r\n12345\r\n"),
        ("Content-Length: 1000\r\nExpect: 100-continue", b""),
        ("Content-Length: 1000\r\nContent-Encoding: gzip", b"\x1f\x8b"),
    ],
)
@on_a_loop
async def test_nothing_is_left_of_who_hangs_up_in_a_body(framing: str, sent: bytes, reset: bool, caplog: Any) -> None:
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with running(published()) as each:
        for half in (False, True):
            parts = [_head(each.kit.key(), framing), sent]
            await asyncio.to_thread(_talk, each.port, parts, reset=reset and not half, half=half)
            assert not half or each.gateway.metrics.connections()["connections"] == 0  # closed when it was told
            await wait_until_async(lambda: not each.gateway.in_flight)
            await wait_until_async(lambda: each.gateway.metrics.connections()["connections"] == 0)
        assert (await each.infer(full_request())).status_code == 200
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 9  # a stop that waits for nobody
    assert failures == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class AbsentStore:
    """An online store that can be away; it has never seen anybody."""

    remote = False

    def __init__(self) -> None:
        self.away = True

    def payloads(self, wanted: Any) -> list[None]:
        self.ping()
        return [None] * len(wanted)

    def ping(self) -> None:
        if self.away:
            raise Unavailable("The store did not answer.")


@on_a_loop
async def test_an_endpoint_that_chose_so_answers_by_default_and_says_so() -> None:
    store, asked = AbsentStore(), {"parameters": {"feature_statuses": True}}
    kit, stored = published(online=store), ("Carrier.flights_1h", "Carrier.delay_1h")
    kit.routes.publish([msgspec.structs.replace(route(Arm("1", bundle().digest)), without_store=DEFAULTS)])
    async with running(kit) as each:
        reply = await each.infer(keyed_request("AA", None, **asked))
        assert reply.status_code == 200
        told = reply.json()
        columns = {
            "Carrier.flights_1h": [0, 0],
            "Carrier.delay_1h": [float("nan")] * 2,
            "Schedule.thousands": [0.5, 0.5],
            "Schedule.hour": [2, 2],
        }
        assert told["outputs"][0]["data"] == pytest.approx(expected(columns), abs=1e-6)
        assert told["parameters"]["feature_statuses"] == {name: ["UNAVAILABLE"] * 2 for name in stored}
        assert {logged.statuses[name] for logged in kit.log.recent() for name in stored} == {"UNAVAILABLE"}
        assert (await each.client.get("/v2/health/ready")).status_code == 200
        assert (await each.client.get("/v2/models/late-arrival/ready")).status_code == 200
        store.away = False
        told = (await each.infer(keyed_request("AA", **asked))).json()
        assert told["parameters"]["feature_statuses"] == {name: ["MISSING"] for name in stored}
