"""Answers in events: of a generator in a process of its own, over HTTP, read slowly, left, too late and cut off."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from integration.test_gateway import Running, running
from kit.models import function_bundle
from kit.serving import KEY, Kit, route
from kit.waiting import wait_until_async
from mainspring.client import AsyncClient, Client
from mainspring.client.failures import ServerFailed
from mainspring.core.errors import Invalid, NotFound
from mainspring.ledger.model import STREAMED, Log
from mainspring.project.definitions.functions import source_digest
from mainspring.registry.bundles import GOLDEN, seal
from mainspring.registry.model import Bundle, Code, TensorSpec
from mainspring.serving.adapters.apart import FunctionApart, LoadFunction
from mainspring.serving.adapters.function import FunctionExecutor
from mainspring.serving.adapters.sessions import CallLimits
from mainspring.serving.model import Arm
from mainspring.serving.plane.events import MOST_STREAMS

PATH = "/v2/models/late-arrival/generate_stream"
INFER = "/v2/models/late-arrival/infer"
MODULE = """
import time
import numpy as np

def summed(n):
    "Sums of the numbers up to n, one after another; below 0 it misbehaves."
    n = int(n[0])
    if n == -9:
        raise ValueError("at once")
    total = number = 0
    while n < 0 or number < n:
        if number == 2 and n == -2:
            raise ValueError("no third")
        if number == 1 and n == -3:
            time.sleep(60)
        if n == -4:
            yield {"y": np.array([0]), "word": np.array(["x" * (9 << 20)], object)}
        total += number
        yield {"y": np.array([total]), "word": np.array(["x" * (60_000 if n == -5 else 1)], object)}
        number += 1

def plain(n):
    return {"y": n, "word": np.array(["x"] * len(n), object)}
"""
INPUTS = [TensorSpec("n", "INT64", (-1,))]
OUTPUTS = [TensorSpec("y", "INT64", (-1,)), TensorSpec("word", "BYTES", (-1,))]


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    (tmp_path / "models.py").write_text(MODULE)
    return made(tmp_path, Kit())


def made(root: Path, kit: Kit, *functions: str, seconds: float = 1.0, **changes: Any) -> Kit:
    def load(bundle: Bundle) -> FunctionExecutor:
        def apart(code: Code) -> FunctionApart:
            found = LoadFunction(code, str(root), 400 << 20)
            limits = CallLimits(seconds, 400 << 20)
            return FunctionApart("mainspring.project.function_process", found, limits, reads=[root])

        return FunctionExecutor(bundle, apart)

    kit.executors = load
    arms = []
    for number, function in enumerate(functions or ("summed",), 1):
        name = f"models:{function}"
        bundle = function_bundle(name, source_digest(root, name), INPUTS, OUTPUTS)
        golden = {"inputs": {"n": [3]}, "outputs": {"y": [3], "word": ["x"]}}
        sealed = seal(bundle.manifest, {**bundle.files, GOLDEN: json.dumps(golden).encode()}, KEY)
        kit.bundles.save(sealed)
        arms.append(Arm(str(number), sealed.digest))
    kit.routes.publish([msgspec.structs.replace(route(arms[-1]), **changes)])
    return kit


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


def logged(kit: Kit) -> list[dict[str, Any]]:
    kit.log.compact()
    return [json.loads(each.outputs[STREAMED]) for each in kit.log.recent() if STREAMED in each.outputs]


async def told(each: Running, n: int) -> list[tuple[str, dict[str, Any]]]:
    reply = await each.client.post(PATH, json={"n": n})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return events_of(reply.text)


def opened(each: Running, n: int, receive: int = 4096) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    found.connect(("127.0.0.1", each.port))
    body = json.dumps({"n": n})
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {each.client.headers['authorization']}\r\n"
    found.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    found.settimeout(20)
    return found


def lane(each: Running) -> Any:
    (found,) = each.gateway._plane.served["late-arrival"].lanes.values()
    return found


@on_a_loop
async def test_each_part_is_an_event_and_the_last_one_is_the_answer(kit: Kit) -> None:
    async with running(kit) as each:
        events = await told(each, 4)
        assert [data["y"] for _, data in events] == [0, 1, 3, 6]
        assert {data["model_version"] for _, data in events} == {"1"}
        (ids,) = {tuple(data["parameters"]["prediction_ids"]) for _, data in events}
        prediction = kit.log.find(ids[0])
        assert prediction.outputs["y"] == 6
        assert prediction.features["n"] == 4
        document = json.loads(prediction.outputs[STREAMED])
        assert (document["ended"], document["events"]) == ("whole", 4)
        assert [part["y"] for part in document["parts"]] == [0, 1, 3, 6]
        body = {"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [4]}], "id": "mine"}
        whole = (await each.client.post(INFER, json=body)).json()
        assert whole["outputs"][0]["data"] == [6]
        streamed = await each.client.post(INFER, json=body, headers={"accept": "text/event-stream"})
        assert [data["outputs"][0]["data"] for _, data in events_of(streamed.text)] == [[0], [1], [3], [6]]
        assert events_of(streamed.text)[0][1]["id"] == "mine"
        for wrong in ({}, {"n": 1, "m": 2}, {"n": "a"}, {"n": [1, 2]}, [], {"n": None}):
            assert (await each.client.post(PATH, json=wrong)).status_code == 400
        rows = {"inputs": [{"name": "n", "shape": [2], "datatype": "INT64", "data": [4, 5]}]}
        refused = await each.client.post(INFER, json=rows, headers={"accept": "text/event-stream"})
        assert refused.status_code == 400
        assert "2 rows" in refused.json()["error"]
        strange = await each.client.post(PATH, json={"n": 1}, headers={"authorization": "Bearer none"})
        assert strange.status_code == 401


@on_a_loop
async def test_an_error_before_the_first_event_has_a_status_and_one_after_it_is_an_event(kit: Kit) -> None:
    async with running(kit) as each:
        assert (await each.client.post(PATH, json={"n": -9})).status_code == 500
        events = await told(each, -2)
        assert [name for name, _ in events] == ["", "", "error"]
        assert "no third" not in events[-1][1]["error"]
        events = await told(each, -3)  # hangs: its process is ended
        assert [name for name, _ in events] == ["", "error"]
        assert (await each.client.post(PATH, json={"n": -4})).status_code == 500  # too large
        assert [data["y"] for _, data in await told(each, 3)] == [0, 1, 3]
        assert [(found["ended"], found["events"]) for found in logged(kit)] == [
            ("failed", 0), ("failed", 2), ("failed", 1), ("failed", 0), ("whole", 3),
        ]  # fmt: skip


@on_a_loop
async def test_an_endless_answer_ends_at_its_deadline_or_when_its_caller_leaves(kit: Kit, tmp_path: Path) -> None:
    made(tmp_path, kit, deadline_us=1_500_000)  # in which its process starts
    async with running(kit) as each:
        events = await told(each, -1)
        assert events[-1][0] == "error"
        assert "deadline" in events[-1][1]["error"]
        assert len(events) > 2
        made(tmp_path, kit, deadline_us=60_000_000)
        await wait_until_async(lambda: each.gateway._plane.served["late-arrival"].route.deadline_us == 60_000_000)
        async with each.client.stream("POST", PATH, json={"n": -1}) as reply:
            async for _ in reply.aiter_lines():
                break
        await wait_until_async(lambda: lane(each).streams == 0)
        assert [found["ended"] for found in logged(kit)] == ["late", "left"]
        assert [data["y"] for _, data in await told(each, 3)] == [0, 1, 3]


@on_a_loop
async def test_a_slow_reader_is_not_run_ahead_of_and_keeps_nobody_waiting(kit: Kit) -> None:
    async with running(kit) as each:
        slow = [await asyncio.to_thread(opened, each, -5) for _ in range(MOST_STREAMS)]
        try:
            await wait_until_async(lambda: lane(each).streams == MOST_STREAMS)
            refused = await each.client.post(PATH, json={"n": 1})
            assert refused.status_code == 429, refused.text
            await asyncio.sleep(0.5)
            body = {"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [4]}]}
            whole = await each.client.post(INFER, json=body)
            assert whole.json()["outputs"][0]["data"] == [6]
        finally:
            for one in slow:
                one.close()
        await wait_until_async(lambda: lane(each).streams == 0)
        found = logged(kit)
        assert {document["ended"] for document in found} == {"left"}
        assert max(document["events"] for document in found) < 120  # of 60 KB: what sockets hold
        assert all(document["cut"] for document in found if document["events"] > 2)


@on_a_loop
async def test_a_stream_stays_with_its_version_and_says_when_the_server_stops(kit: Kit, tmp_path: Path) -> None:
    async with running(kit) as each:
        async with each.client.stream("POST", PATH, json={"n": -1}) as reply:
            lines = reply.aiter_lines()
            await anext(lines)
            made(tmp_path, kit, "summed", "plain")
            await wait_until_async(lambda: set(each.gateway._plane.served["late-arrival"].lanes) == {"2"})
            for _ in range(20):
                line = await anext(lines)
                assert not line or json.loads(line.removeprefix("data: "))["model_version"] == "1"
            refused = await each.client.post(PATH, json={"n": 1})
            assert refused.status_code == 400
            assert "at once" in refused.json()["error"]
            each.gateway.drain(0.6)
            rest = [line async for line in lines]
        assert rest[-3] == "event: error"
        assert "stopping" in rest[-2]
        assert logged(kit)[0]["ended"] == "left"
        made(tmp_path, kit, "summed", log=Log(sync=True))
        await wait_until_async(lambda: set(each.gateway._plane.served["late-arrival"].lanes) == {"1"})
        assert (await each.client.post(PATH, json={"n": 1})).status_code == 400


@on_a_loop
async def test_the_client_iterates_and_raises_what_ends_an_answer(kit: Kit) -> None:
    async with running(kit) as each:
        key = each.client.headers["authorization"].removeprefix("Bearer ")
        async with AsyncClient(f"http://127.0.0.1:{each.port}", key) as client:
            assert [part["y"] async for part in client.stream("late-arrival", {"n": 4})] == [0, 1, 3, 6]
            seen: list[int] = []

            async def take() -> None:
                async for part in client.stream("late-arrival", {"n": -2}):
                    seen.append(part["y"])

            with pytest.raises(ServerFailed):
                await take()
            assert seen == [0, 1]
            with pytest.raises(Invalid, match="no input"):
                await anext(aiter(client.stream("late-arrival", {"m": 4})))

        def blocking() -> list[int]:
            with Client(f"http://127.0.0.1:{each.port}", key) as client:
                parts = client.stream("late-arrival", {"n": np.int64(-1)})
                found = [next(parts)["y"] for _ in range(3)]
                parts.close()  # type: ignore[attr-defined]
                with pytest.raises(NotFound):
                    next(client.stream("nothing", {"n": 1}))
                return found

        assert await asyncio.to_thread(blocking) == [0, 1, 3]
        await wait_until_async(lambda: lane(each).streams == 0)
