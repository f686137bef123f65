"""A real gateway and its log on a disk: what an endpoint's policy makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from kit.serving import Kit, full_request, keyed_request
from kit.waiting import free_port, wait_until_async
from mainspring.core.errors import MainspringError, StorageFull
from mainspring.core.settings import Address
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.adapters.unread import unread
from mainspring.ledger.model import Log, Prediction
from mainspring.ledger.sealing import Sealer
from mainspring.security.data_keys import OneKey
from mainspring.security.model import KeyScope
from mainspring.serving.http.server import serve

SEALER = Sealer(OneKey())


def publish(kit: Kit, log: Log) -> None:
    kit.routes.publish([msgspec.structs.replace(each, log=log) for each in kit.routes.current().values()])


@asynccontextmanager
async def serving(log: SegmentLog, policy: Log) -> AsyncIterator[tuple[Kit, httpx.AsyncClient]]:
    kit = Kit(log=log)
    kit.publish("1")
    publish(kit, policy)
    port = free_port()
    gateway, stop, started = kit.gateway(), asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(gateway, Address("127.0.0.1", port), stop=stop, started=started.set))
    try:
        await asyncio.wait((task, asyncio.create_task(started.wait())), return_when=asyncio.FIRST_COMPLETED)
        headers = {"authorization": kit.key(KeyScope.PREDICT, KeyScope.SCRAPE), "content-type": "application/json"}
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
            await wait_until_async(lambda: gateway.unready() is None, "the gateway to be ready")
            yield kit, client
    finally:
        stop.set()
        await task
        log.close()


async def infer(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post("/v2/models/late-arrival/infer", content=json.dumps(body).encode())


async def unlogged(client: httpx.AsyncClient) -> dict[str, float]:
    """Return cause -> rows that were not logged."""
    lines = (await client.get("/metrics")).text.splitlines()
    name = "mainspring_unlogged_predictions_total"
    found = [line.removeprefix(name) for line in lines if line.startswith(name)]
    return {line.partition('cause="')[2].partition('"')[0]: float(line.split()[-1]) for line in found}


def logged(folder: Path) -> dict[str, Prediction]:
    return {each.id: each for each in unread(folder)}


def ids(reply: httpx.Response) -> list[str]:
    assert reply.status_code == 200, reply.text
    return list(reply.json()["parameters"]["prediction_ids"])


def test_in_sync_an_answer_is_in_the_log_before_its_caller_has_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(SegmentLog(tmp_path, SEALER), Log(sync=True)) as (_, client):
            replies = await asyncio.gather(*(infer(client, keyed_request("AA", "UA", id=f"r{n}")) for n in range(20)))
            found = logged(tmp_path)
            for number, reply in enumerate(replies):
                assert {found[each].request_id for each in ids(reply)} == {f"r{number}"}

    asyncio.run(run())


def test_otherwise_it_is_there_soon_after(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(SegmentLog(tmp_path, SEALER), Log()) as (_, client):
            told = ids(await infer(client, full_request()))
            await wait_until_async(lambda: set(told) <= logged(tmp_path).keys(), "the answers in the log")

    asyncio.run(run())


def test_a_share_of_requests_is_logged_the_rest_counted_and_a_retry_alike(tmp_path: Path) -> None:
    async def run() -> list[dict[str, bool]]:
        names = [f"request-{number}" for number in range(60)]
        rounds = []
        async with serving(SegmentLog(tmp_path, SEALER), Log(share=0.4)) as (_, client):
            for _ in range(2):
                rounds.append({name: ids(await infer(client, full_request(id=name))) for name in names})
            counted = await unlogged(client)
        found = logged(tmp_path)
        assert {each.share for each in found.values()} == {0.4}
        assert counted == {"sampled": 2 * 60 * 2 - len(found)}
        return [{name: told[0] in found for name, told in each.items()} for each in rounds]

    first, second = asyncio.run(run())
    assert first == second
    assert 0 < sum(first.values()) < 60


class FullDisk(SegmentLog):
    """A log on a disk that is full, as far as its syncs say."""

    full = True

    def _sync(self, descriptors: Sequence[int]) -> MainspringError | None:
        return StorageFull("No space left for /secret/place.") if self.full else super()._sync(descriptors)


def test_a_policy_that_changes_reaches_requests_and_a_full_disk_refuses_only_in_sync(tmp_path: Path) -> None:
    async def run() -> None:
        log = FullDisk(tmp_path, SEALER)
        async with serving(log, Log()) as (kit, client):
            assert (await infer(client, full_request())).status_code == 200
            publish(kit, Log(sync=True))
            async with asyncio.timeout(60):
                while (refused := await infer(client, full_request())).status_code == 200:
                    await asyncio.sleep(0.01)
            assert refused.status_code == 507
            assert "secret" not in refused.text
            log.full = False
            assert (await infer(client, full_request())).status_code == 200

    asyncio.run(run())
