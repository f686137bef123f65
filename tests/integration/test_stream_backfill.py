"""A backfill beside a stream, case 14 of point in time: it swaps in, loses nothing, counts nothing twice, and no reader
sees two generations.

Each batch, of the stream or of the backfill, has one visit of every shop. So a read of all shops that holds two counts
is of two generations, and a count that falls is of an older one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

import mainspring as ms
from kit.streamed import VISITS, ListLog, lander
from kit.visits import KEYINGS, NOW, SHOPS, shop
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock, format_instant
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.ingest import Ingestor
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.model import NewMessage
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.materialise import Materialiser
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader
from mainspring.project.catalog import memory_catalog

ROUNDS, CHUNKS = 12, 2
FEW = SHOPS[:8]
STREAM = Stream(VISITS, topic="visits", batch_rows=len(FEW))


@ms.feature_view(entity=shop, source=VISITS)
class VISITED:
    visits_30d = ms.count(window="30d")
    newest = ms.last("visit", ttl="30d")


def batch(number: int, at: int) -> list[dict[str, object]]:
    """Return a visit of every shop."""
    instant = format_instant(at)
    return [{"shop": name, "spent": 1.0, "visit": number, "came_at": instant, "known_at": instant} for name in FEW]


def test_a_backfill_beside_a_stream_swaps_in(tmp_path: Path) -> None:
    lake, locks, clock = MemoryLake(), MemoryLocks(), ManualClock(NOW)
    log = ListLog("visits", [[]])
    failures: list[BaseException] = []
    done = threading.Event()

    def store() -> SqliteOnlineStore:
        return SqliteOnlineStore(tmp_path / "online.db")

    def stream() -> None:
        one = lander(lake, locks, CatalogStreams(memory_catalog(), "lake"), log, clock, stream=STREAM)
        materialiser = Materialiser(lake, store(), clock, locks=locks)
        for number in range(ROUNDS):
            rows = batch(number, NOW - 2 * HOUR + number * MINUTE)
            log.produce("visits", [NewMessage(json.dumps(row).encode()) for row in rows])
            landed = one.step()
            assert landed is not None
            assert landed.rows == len(FEW)
            materialiser.run(VISITED, horizon=HOUR)
            began.set()
        materialiser.close()

    def backfill() -> None:
        began.wait(60)
        ingestor, materialiser = Ingestor(lake, locks, clock), Materialiser(lake, store(), clock, locks=locks)
        for number in range(CHUNKS):
            ingestor.ingest(VISITS, batch(-number, NOW - 20 * DAY + number * DAY), keyings=KEYINGS)
            materialiser.rebuild(VISITED, horizon=HOUR)
        materialiser.close()

    def read() -> None:
        began.wait(60)
        online, seen = OnlineReader([VISITED], store()), 0
        while not done.is_set():
            found = online.read({"shop": FEW}, NOW).features["VISITED.visits_30d"]
            (count,) = {int(each) for each in found}
            assert count >= seen
            assert count * len(FEW) <= lake.describe(VISITS.name).rows
            seen = count
            reads.append(count)
            done.wait(0.005)

    def guarded(body: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                body()
            except BaseException as error:
                failures.append(error)

        return run

    began, reads = threading.Event(), list[int]()
    writers = [threading.Thread(target=guarded(body)) for body in (stream, backfill)]
    reader = threading.Thread(target=guarded(read))
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join(120)
    done.set()
    reader.join(60)
    assert failures == []
    assert len(set(reads)) > 2
    last = Materialiser(lake, store(), clock, locks=locks)
    last.run(VISITED, horizon=HOUR)
    asked = pa.table({"shop": FEW, "_at": pa.array([NOW] * len(FEW), pa.timestamp("us", tz="UTC"))})
    wanted = point_in_time(asked, [VISITED], lake.scan, schema={"shop": ms.String})
    found = OnlineReader([VISITED], store()).read({"shop": FEW}, NOW).features
    for name, values in found.items():
        assert list(values) == wanted.column(name).to_pylist()
    assert set(found["VISITED.visits_30d"]) == {ROUNDS + CHUNKS}
    last.close()
