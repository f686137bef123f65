"""A gateway over a damaged online store refuses what needs it, says why, and is not ready; the rest is answered."""

from __future__ import annotations

from pathlib import Path

from integration.test_gateway import full_request, keyed_request, on_a_loop, published, running
from kit.serving import NOW, Carrier, carrier, departures
from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock, to_datetime
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.materialise import Materialiser
from mainspring.features.state.blobs import DamagedState
from mainspring.serving.plane.watch import StoreDamaged, StoreWatch

CARRIERS = [f"carrier {number}" for number in range(600)]


def materialised(path: Path) -> SqliteOnlineStore:
    store, lake, clock = SqliteOnlineStore(path), MemoryLake(), ManualClock(NOW)
    at = to_datetime(NOW - 600_000_000)
    rows = [{"carrier": each, "delay": 1.0, "departed_at": at} for each in CARRIERS]
    Ingestor(lake, MemoryLocks(), clock).ingest(departures, rows, keyings={carrier.name: tuple(carrier.keys)})
    Materialiser(lake.scan, store, clock).run(Carrier)
    return store


@on_a_loop
async def test_a_damaged_store_is_a_503_that_names_it_and_the_gateway_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    materialised(path).close()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff" * (len(content) - len(content) // 2))
    store = SqliteOnlineStore(path)
    store.ping()  # most of it still answers
    async with running(published(online=store)) as each:
        reply = await each.infer(keyed_request(*CARRIERS))
        assert (reply.status_code, reply.json()["error"]) == (503, "The online store is damaged.")
        assert (await each.infer(full_request())).status_code == 200
        ready = await each.client.get("/v2/health/ready")
        assert (ready.status_code, "online store" in ready.json()["error"]) == (503, True)
    store.close()


@on_a_loop
async def test_one_damaged_state_is_a_503_and_the_gateway_stays_ready(tmp_path: Path) -> None:
    store = materialised(tmp_path / "online.db")
    async with running(published(online=store)) as each:
        (view,) = store.views()
        key, state = next(store.entities(view))[0]
        store.write(view, [(key, type(state)(state.position, b"no state", state.landed))])
        replies = [await each.infer(keyed_request(name)) for name in CARRIERS[:3]]
        wrong = [reply for reply in replies if reply.status_code != 200]
        assert [(reply.status_code, reply.json()["error"]) for reply in wrong] == [
            (503, "The online store contains a damaged state.")
        ]
        assert (await each.client.get("/v2/health/ready")).status_code == 200
    store.close()


@on_a_loop
async def test_a_store_is_away_until_the_read_that_found_damage_goes_well() -> None:
    damaged = True

    def again() -> None:
        if damaged:
            raise Corrupt("still damaged")

    watch = StoreWatch(MemoryOnlineStore())
    watch.suspect(StoreDamaged("one state", None))
    assert not watch.away
    watch.suspect(StoreDamaged("damaged", again))
    assert watch.away
    await watch.look()
    assert watch.away
    damaged = False
    await watch.look()
    assert not watch.away
    await watch.stop()


@on_a_loop
async def test_a_store_that_can_be_read_is_not_away_whatever_becomes_of_the_request() -> None:
    for error in (Invalid("a value of the request"), DamagedState("one state"), ZeroDivisionError()):

        def again(error: Exception = error) -> None:
            raise error

        watch = StoreWatch(MemoryOnlineStore())
        watch.suspect(StoreDamaged("damaged", again))
        await watch.look()
        assert not watch.away
        await watch.stop()


class Broken(MemoryOnlineStore):
    """A store that fails in a way of its own."""

    broken = True

    def ping(self) -> None:
        if self.broken:
            raise OSError("no such host")


@on_a_loop
async def test_a_store_that_fails_in_a_way_of_its_own_is_away_until_it_answers() -> None:
    store = Broken()
    watch = StoreWatch(store)
    await watch.look()
    assert watch.away
    store.broken = False
    await watch.look()
    assert not watch.away
    await watch.stop()
