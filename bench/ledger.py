"""What does logging cost? The event loop's share of it, how much a process can log, how soon it is on the disk.

A prediction has 30 features. Ours is `Recorder.record` over `SegmentLog`: ids, names, statuses, callers and all. The
floor on the loop is one MessagePack encoding of the row's id and values and one append to a list; on the disk, the same
bytes by plain `write` and `fsync`. "handed over" is the design that was not taken: the loop appends the batch's objects
and a thread encodes them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.ids import PredictionIds
from mainspring.core.locks import FileLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.ledger import batches
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.model import Asked, Batch, Log
from mainspring.ledger.recording import Recorder
from mainspring.ledger.sealing import Opener, Sealer
from mainspring.security.data_keys import OneKey
from report import Case, report

NAMES = [f"Traffic.departures_{number}" for number in range(30)]
TURNS = 5
KEY = OneKey()
IDS = PredictionIds()
_encoder = msgspec.msgpack.Encoder()


def fastest(do: Callable[[], object], calls: int) -> float:
    """Return the microseconds of this thread's computing in one call, of the fastest of some turns."""
    turns = []
    for _ in range(TURNS):
        began = time.thread_time()
        for _ in range(calls):
            do()
        turns.append((time.thread_time() - began) / calls * 1e6)
    return min(turns)


class Traffic:
    """Batches of requests with one row each, as a lane hands them over."""

    def __init__(self, log: Any, rows: int, *, keyed: bool = True, personal: bool = False, policy: Log | None = None):
        self.rows = rows
        self._features = {name: [random.random() for _ in range(rows)] for name in NAMES}
        self._sent = {"carrier": ["AA"] * rows, "flight": list(range(rows))} if keyed else {}
        self._statuses = {name: ["PRESENT"] * rows for name in NAMES} if keyed else {}
        self._outputs = {"probability": [0.25] * rows}
        self._recorder = Recorder(
            log, endpoint="late", model="late", version="3", digest="d" * 64, keys=("carrier", "flight"),
            personal=("flight",) if personal else (), policy=policy,
        )  # fmt: skip

    def record(self) -> Any:
        return self._recorder.record(
            at=1_372_636_800_000_000,
            ids=IDS.take(self.rows),
            asked=[Asked("key-1", 700, 1, "") for _ in range(self.rows)],
            features=self._features,
            outputs=self._outputs,
            sent=self._sent,
            statuses=self._statuses,
        )

    def bare(self, buffer: list[bytes]) -> None:
        for row in zip(*self._features.values(), strict=True):
            encoded = _encoder.encode(("01jq0000000000000000000000", row, 0.25))
            buffer.append(encoded)


class HandedOver:
    """A log whose thread encodes what the loop only appended."""

    sealer = None
    unlogged: dict[Any, int] = {}

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "handed-over").open("ab", buffering=0)
        self._batches: list[Batch] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def add(self, batch: Batch, **_: bool) -> None:
        self._batches.append(batch)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._file.close()

    def _write(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(0.02)
            found, self._batches = self._batches, []
            self._file.write(b"".join(batches.encode(each, 0) for each in found))


def on_the_loop(folder: Path, calls: int) -> list[Case]:
    cases = []
    for case, rows, options in (
        ("loop: full inputs, 1 row", 1, {"keyed": False}),
        ("loop: by key, with statuses, 1 row", 1, {}),
        ("loop: by key, with statuses, batch of 8", 8, {}),
        ("loop: by key, with statuses, batch of 64", 64, {}),
        ("loop: the same, a key encrypted, 1 row", 1, {"personal": True}),
        ("loop: the same, one request in ten, 1 row", 1, {"policy": Log(share=0.1)}),
    ):
        log = SegmentLog(folder / case, Sealer(KEY), max_buffer_bytes=1 << 40)
        traffic, buffer = Traffic(log, rows, **options), []
        ours = fastest(traffic.record, calls // rows) / rows
        log.close()
        floor = fastest(lambda traffic=traffic, buffer=buffer: traffic.bare(buffer), calls // rows) / rows
        cases.append(Case(case, "µs a prediction", round(ours, 2), round(floor, 2)))
    return cases


def lateness(make: Callable[[Path], Any], folder: Path, seconds: float) -> tuple[float, float]:
    """Return the p99 lateness of a timer on a loop that logs 8,000 predictions a second, ms, and the CPU used, %."""
    log = make(folder)
    traffic, late = Traffic(log, 1), []

    async def run() -> None:
        due = time.perf_counter()
        for _ in range(int(seconds * 1000)):
            due += 0.001
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            late.append(time.perf_counter() - due)
            for _ in range(8):
                traffic.record()

    began, used = time.perf_counter(), time.process_time()
    asyncio.run(run())
    share = (time.process_time() - used) / (time.perf_counter() - began)
    log.close()
    return round(statistics.quantiles(late, n=100)[98] * 1e3, 3), round(share * 100, 1)


def sustained(folder: Path, predictions: int) -> Case:
    """Log as fast as one thread can until all is synced, against the same bytes written plainly."""
    log = SegmentLog(folder / "sustained", Sealer(KEY), max_buffer_bytes=1 << 40)
    traffic = Traffic(log, 8)
    began = time.perf_counter()
    for _ in range(predictions // 8):
        traffic.record()
    log.close()
    ours = predictions / (time.perf_counter() - began)
    content = b"".join(path.read_bytes() for path in (folder / "sustained").glob("*.segment"))
    began = time.perf_counter()
    buffer: list[bytes] = []
    for _ in range(predictions // 8):
        traffic.bare(buffer)
    with (folder / "plain").open("wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
    floor = predictions / (time.perf_counter() - began)
    size = {"ours": f"{len(content) / predictions:.0f} bytes a prediction"}
    return Case("sustained, batches of 8", "predictions/s", round(ours), round(floor), notes=size, more_is_better=True)


def flushed(folder: Path, times: int) -> Case:
    """From `record` to the bytes being in the file."""
    log, waits = SegmentLog(folder / "flushed", Sealer(KEY)), []
    traffic, (path,) = Traffic(log, 1), (folder / "flushed").glob("*.segment")
    for _ in range(times):
        time.sleep(random.random() / 50)
        size, began = path.stat().st_size, time.perf_counter()
        traffic.record()
        while path.stat().st_size == size:
            time.sleep(0.0005)
        waits.append((time.perf_counter() - began) * 1e3)
    log.close()
    said = {"ours": f"p50 {statistics.median(waits):.1f}, largest {max(waits):.1f}; the bound is 50"}
    return Case("from record to write, p99", "ms", round(statistics.quantiles(waits, n=100)[98], 1), notes=said)


def in_sync(folder: Path, callers: int, seconds: float) -> Case:
    """`sync`: callers who each wait for their prediction to be durable, against one fsync a prediction."""
    log, waits = SegmentLog(folder / f"sync-{callers}", Sealer(KEY)), []
    traffic = Traffic(log, 1, policy=Log(sync=True))

    async def call(end: float) -> None:
        while (began := time.perf_counter()) < end:
            await asyncio.wrap_future(traffic.record())
            waits.append(time.perf_counter() - began)

    async def run() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(call(end) for _ in range(callers)))

    asyncio.run(run())
    log.close()
    single = []
    with (folder / "single").open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(bytes(600))
            os.fsync(file.fileno())
            single.append(time.perf_counter() - began)
    notes = {
        "ours": f"p50 {statistics.median(waits) * 1e3:.2f}, p99 {statistics.quantiles(waits, n=100)[98] * 1e3:.2f} ms",
        "floor": "one write and one fsync a prediction, one after another",
    }
    return Case(
        f"sync, {callers} callers", "predictions/s", round(len(waits) / seconds), round(1 / statistics.mean(single)),
        notes=notes, more_is_better=True,
    )  # fmt: skip


def compacted(folder: Path, predictions: int) -> Case:
    log = SegmentLog(folder / "compacted", Sealer(KEY))
    traffic = Traffic(log, 8)
    for _ in range(predictions // 8):
        traffic.record()
    log.close()
    store = LakePredictions(folder / "compacted", DeltaLake(folder / "lake"), FileLocks(folder / "locks"), Opener(KEY))
    began = time.perf_counter()
    moved = store.compact()
    return Case("into the lake", "predictions/s", round(moved / (time.perf_counter() - began)), more_is_better=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brief", action="store_true", help="a tenth of the calls")
    brief = parser.parse_args(arguments).brief
    scale = 1 if brief else 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = on_the_loop(folder, 2_000 * scale)
        ours, used = lateness(lambda at: SegmentLog(at / "late", Sealer(KEY)), folder, scale / 2)
        other, other_used = lateness(HandedOver, folder, scale / 2)
        notes = {"ours": f"{used}% of a core", "handed over": f"{other_used}% of a core"}
        cases.append(Case("a timer's p99 lateness at 8,000/s", "ms", ours, peers={"handed over": other}, notes=notes))
        cases += [sustained(folder, 20_000 * scale), flushed(folder, 30 * scale)]
        cases += [in_sync(folder, callers, scale / 5) for callers in (1, 64)]
        cases.append(compacted(folder, 4_000 * scale))
    report("ledger", cases)


if __name__ == "__main__":
    main()
