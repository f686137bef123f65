"""Two workers of shards that were split and merged: run by test_reshard_kill.py, not a test itself.

`reshard_victim.py land|score ADDRESS TOPIC MESSAGES FOLDER STEP` lands a topic in a lake, or processes it by a stream
endpoint, with two processes of which one kills itself at its STEP-th read, and prints as one line of JSON the numbers
of each key's messages in the order in which they came out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from death.streaming_victim import begun
from kit.stream_endpoints import START, Stage, endpoint
from kit.stream_log import all_messages
from kit.streamed import VISITS, lander
from kit.visits import NOW
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Url
from mainspring.core.time import MINUTE, SECOND, ManualClock, SystemClock, parse_instant
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.log_kinesis import KinesisLog
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.streams.declaring import Stream
from mainspring.operations.stream_endpoints.sharing import Leases
from mainspring.project.catalog import open_catalog
from mainspring.serving.streaming.declaring import to_topic

AT_ONCE = 6


class Hasty:
    """A clock of ten seconds a second, so that leases end soon."""

    def now(self) -> int:
        return NOW + 10 * (time.monotonic_ns() // 1000)


class DyingLog(KinesisLog):
    """A log whose reader kills itself with the messages of one of its reads."""

    def __init__(self, address: str, step: int) -> None:
        super().__init__(Url(address))
        self._left = step

    def read(self, *arguments: Any, **options: Any) -> Any:
        found = super().read(*arguments, **options)
        self._left -= bool(found)
        if found and self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def store(folder: Path) -> tuple[CatalogStreams, FileLocks]:
    locks = FileLocks(folder / "locks")
    return CatalogStreams(open_catalog(Url(f"sqlite:///{folder / 'catalog.db'}"), locks), "lake"), locks


def both(streams: CatalogStreams, name: str) -> None:
    """Wait until the other process is there, so that it has its share."""
    while len(streams.members(name)) < 2:
        time.sleep(0.01)


def land(address: str, topic: str, messages: int, folder: Path, step: int) -> None:
    streams, locks = store(folder)
    lake = DeltaLake(folder / "lake")
    stream = Stream(VISITS, topic=topic, batch_rows=AT_ONCE)
    owner, clock = str(os.getpid()), ManualClock(NOW)
    streams.claim(stream.name, owner, [], Hasty().now(), Hasty().now() + 100 * SECOND)
    both(streams, stream.name)
    worker = lander(lake, locks, streams, DyingLog(address, step), clock, owner=owner, stream=stream, wall=Hasty())
    while lake.version(VISITS.name) is None or lake.describe(VISITS.name).rows < messages:
        if worker.step(wait_s=0.1) is None:
            time.sleep(0.02)


def landed(folder: Path) -> dict[str, list[int]]:
    with duck.connect() as con:
        duck.register(con, "read", DeltaLake(folder / "lake").scan(VISITS.name))
        rows = con.execute("SELECT shop, list(visit ORDER BY _seq) FROM read GROUP BY shop").fetchall()
    return dict(rows)


def stage(log: KinesisLog, topic: str, folder: Path) -> Stage:
    return Stage(folder / "states", log=log, of=endpoint(topic=topic, to=[to_topic(f"{topic}-out")]))


def score(address: str, topic: str, messages: int, folder: Path, step: int) -> None:
    streams, locks = store(folder)
    made = stage(DyingLog(address, step), topic, folder)
    made.share = leases = Leases("checks", str(os.getpid()), streams, locks, SystemClock(), lease_us=SECOND)
    runner = made.runner(at_once=AT_ONCE)
    leases.renew()
    both(streams, "checks")
    while delivered(made) < messages:
        leases.renew()
        runner.step(wait_s=0.02)
        runner.deliver()


def delivered(made: Stage) -> int:
    """Return the number of processed messages in partitions whose outputs are delivered."""
    total = 0
    for number in made.states.partitions():
        state = made.states.open(number)
        progress = state.progress()
        total += 0 if progress is None or state.undelivered() else progress.processed
        state.close()
    return total


def scored(log: KinesisLog, topic: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for each in all_messages(log, f"{topic}-out"):
        document = json.loads(each.value or b"")
        number = round((parse_instant(document["at"]) - START) / MINUTE)
        found.setdefault(document["key"]["card"], []).append(number)
    return found


def main() -> None:
    what, address, topic, messages, place, step = sys.argv[1:]
    folder = Path(place)
    work: Callable[[int], None] = lambda step: (land if what == "land" else score)(  # noqa: E731
        address, topic, int(messages), folder, step
    )
    children = [begun(lambda: work(int(step))), begun(lambda: work(-1))]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    found = landed(folder) if what == "land" else scored(KinesisLog(Url(address)), topic)
    print(json.dumps({"statuses": statuses, "found": found}), flush=True)


if __name__ == "__main__":
    main()
