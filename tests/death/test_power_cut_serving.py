"""The power is cut while a gateway answers and a worker compacts its log: what was acknowledged is still there.

Run with `POWER_CUTS=20` for more cuts; the table of all of them is printed.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from death.test_ledger_kill import COMPACTING, lake_ids
from kit.depth import DEEP, examples
from kit.power_cut import Disk, disk
from kit.serving import keyed_request
from kit.waiting import free_port, wait_until
from mainspring.core.locks import FileLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.unread import unread

CUTS = int(os.environ.get("POWER_CUTS", examples(gate=2, deep=6)))
TESTS = str(Path(__file__).parent.parent)
UNWAITED, IN_SYNC = "unwaited", "in-sync"
SERVING = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from msgspec.structs import replace
from kit.serving import Kit
from mainspring.ledger.model import Log
from mainspring.core.settings import Address
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.serving.http.server import serve

kit = Kit(log=SegmentLog(Path(sys.argv[2]), max_bytes=100_000))
kit.publish("1")
(route,) = kit.routes.current().values()
kit.routes.publish([replace(route, endpoint=name, log=Log(sync=name == "in-sync")) for name in ("unwaited", "in-sync")])
key = kit.key()
asyncio.run(serve(kit.gateway(), Address("127.0.0.1", int(sys.argv[3])), started=lambda: print(key, flush=True)))
"""


@dataclass
class Caller(threading.Thread):
    """Asks one endpoint until nobody answers; `told` has each acknowledged prediction and when it was acknowledged."""

    endpoint: str
    port: int
    key: str
    told: list[tuple[str, float]] = field(default_factory=list)
    longest_s: float = 0.0  # between a request and its answer

    def __hash__(self) -> int:
        return id(self)

    def __post_init__(self) -> None:
        super().__init__()

    def run(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            try:
                while True:
                    asked = time.monotonic()
                    body, headers = json.dumps(keyed_request("AA", "UA")), {"Authorization": self.key}
                    connection.request("POST", f"/v2/models/{self.endpoint}/infer", body, headers)
                    reply = connection.getresponse()
                    answer = json.loads(reply.read())
                    if reply.status == 200:
                        now = time.monotonic()
                        self.told += [(each, now) for each in answer["parameters"]["prediction_ids"]]
                        self.longest_s = max(self.longest_s, now - asked)
            except (OSError, http.client.HTTPException):
                return


def serve_until_the_cut(power: Disk, chance: random.Random) -> tuple[list[Caller], float]:
    """Serve and compact on the disk until its power is cut; return the callers, and when that was."""
    port = free_port()
    programs = [(SERVING, TESTS, str(power.folder / "ledger"), str(port)), (COMPACTING, str(power.folder))]
    running = [
        subprocess.Popen([sys.executable, "-c", *program], stdout=subprocess.PIPE, text=True) for program in programs
    ]
    try:
        key, _ = [process.stdout.readline().strip() for process in running]
        callers = [Caller(endpoint, port, key) for endpoint in (UNWAITED, IN_SYNC, IN_SYNC)]
        for caller in callers:
            caller.start()
        wait_until(lambda: min(len(caller.told) for caller in callers) >= 40, "40 answers to each caller")
        time.sleep(chance.uniform(0.0, 3.0 if DEEP else 1.0))
        at = time.monotonic()
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.communicate()
    for caller in callers:
        caller.join()
    power.cut()
    return callers, at


def test_a_power_cut_loses_no_answer_of_an_endpoint_in_sync(tmp_path: Path) -> None:
    chance = random.Random(17)
    acknowledged: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    print(f"{'cut':>4} {'endpoint':>9} {'acknowledged':>12} {'lost':>5} {'oldest lost, s':>14}")
    with disk(tmp_path, megabytes=256) as power:
        for cut in range(CUTS):
            callers, at = serve_until_the_cut(power, chance)
            folder = power.folder / "ledger"
            store = LakePredictions(folder, DeltaLake(power.folder / "lake"), FileLocks(power.folder / "locks"))
            readable = {each.id for each in unread(folder)}
            for endpoint in (UNWAITED, IN_SYNC):
                readable.update(store.read(endpoint, 0, 2**62)["id"].to_pylist())
            store.compact()
            found = lake_ids(power.folder)
            assert readable <= found.keys()
            assert set(found.values()) == {1}
            assert store.damaged() == 0
            for caller in callers:
                missing = [(each, told) for each, told in caller.told if each not in found]
                acknowledged[caller.endpoint] += len(caller.told)
                lost[caller.endpoint] += len(missing)
                oldest_s = at - missing[0][1] if missing else 0.0
                told, gone = len(caller.told), len(missing)
                print(f"{cut:>4} {caller.endpoint:>9} {told:>12} {gone:>5} {oldest_s:>14.2f}")
                # Only a tail is gone, of a second at most, and of what the disk took longer for than it should.
                assert missing == caller.told[told - gone :]
                assert oldest_s <= 1.0 + 4 * max(each.longest_s for each in callers)
    print(f"{CUTS} cuts; acknowledged {dict(acknowledged)}, lost {dict(lost)}")
    assert lost[IN_SYNC] == 0
    assert acknowledged[IN_SYNC] > 0
