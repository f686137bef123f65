"""A gateway over a real Redis: it answers from it, says when it is away, and goes on when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from integration.test_gateway import Running, full_request, keyed_request, on_a_loop, published, running
from kit.servers import RedisServer, Server
from kit.servers import running as server_running
from kit.serving import NOW, Carrier, carrier, departures, expected
from kit.waiting import wait_until_async
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock, to_datetime
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.redis import RedisOnlineStore
from mainspring.features.materialise import Materialiser

LATE = {"Carrier.flights_1h": [2], "Carrier.delay_1h": [20.0], "Schedule.thousands": [0.5], "Schedule.hour": [2]}


@pytest.fixture
def place() -> Iterator[tuple[Server, RedisOnlineStore]]:
    """A server of the test's own, with two departures of AA in the last hour materialised into it."""
    with server_running(RedisServer) as server:
        store = RedisOnlineStore(server.url, "flights")
        lake, clock = MemoryLake(), ManualClock(NOW)
        rows = [
            {"carrier": "AA", "delay": delay, "departed_at": to_datetime(NOW - minutes * 60_000_000)}
            for delay, minutes in ((10.0, 30), (30.0, 10))
        ]
        Ingestor(lake, MemoryLocks(), clock).ingest(departures, rows, keyings={carrier.name: tuple(carrier.keys)})
        Materialiser(lake.scan, store, clock).run(Carrier)
        yield server, store
        store.close()


async def by_key(each: Running) -> Any:
    return await each.infer(keyed_request("AA"))


async def until_it_answers(each: Running) -> None:
    async def answers() -> bool:
        return (await by_key(each)).status_code == 200

    await wait_until_async(answers, "an answer of the store")


@on_a_loop
async def test_a_store_that_goes_away_is_a_503_until_it_is_back(place: tuple[Server, RedisOnlineStore]) -> None:
    server, store = place
    async with running(published(online=store)) as each:
        reply = await by_key(each)
        assert reply.status_code == 200
        assert reply.json()["outputs"][0]["data"] == pytest.approx(expected(LATE), abs=1e-6)
        server.stop()
        for _ in range(3):
            reply = await by_key(each)
            assert (reply.status_code, int(reply.headers["retry-after"]) >= 1) == (503, True)
            assert str(server.port) not in reply.text
        assert (await each.infer(full_request())).status_code == 200
        await wait_until_async(lambda: each.gateway.unready() is not None)
        ready = await each.client.get("/v2/health/ready")
        assert (ready.status_code, "online store" in ready.json()["error"]) == (503, True)
        assert (await each.client.get("/v2/models/late-arrival/ready")).status_code == 503
        assert (await each.client.get("/v2/health/live")).status_code == 200
        server.start()
        await until_it_answers(each)
        reply = await by_key(each)
        assert reply.json()["outputs"][0]["data"] == pytest.approx(expected(LATE), abs=1e-6)
        await wait_until_async(lambda: each.gateway.unready() is None)
        assert (await each.client.get("/v2/models/late-arrival/ready")).status_code == 200


@on_a_loop
async def test_a_store_that_hangs_holds_up_nobody_else(place: tuple[Server, RedisOnlineStore]) -> None:
    server, store = place
    async with running(published(online=store)) as each:
        assert (await by_key(each)).status_code == 200
        server.pause()
        try:
            hanging = asyncio.create_task(by_key(each))
            await wait_until_async(lambda: each.gateway.in_flight == 1)
            live = await each.client.get("/v2/health/live")
            assert (live.status_code, hanging.done()) == (200, False)
            reply = await hanging
            assert (reply.status_code, "retry-after" in reply.headers) == (503, True)
        finally:
            server.resume()
        await until_it_answers(each)


@on_a_loop
async def test_a_gateway_starts_before_its_store(place: tuple[Server, RedisOnlineStore]) -> None:
    server, store = place
    server.stop()
    async with running(published(online=store), ready=False) as each:
        await wait_until_async(lambda: each.gateway.unready() == "The online store does not respond.")
        server.start()
        await until_it_answers(each)
        await wait_until_async(lambda: each.gateway.unready() is None)
