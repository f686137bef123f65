"""kill -9 of compactions: the sketches count each prediction of the lake once."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from mainspring.core.locks import FileLocks
from mainspring.core.schema import DType
from mainspring.data.adapters.delta import DeltaLake
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.monitoring.adapters.lake import LakeSketches
from mainspring.monitoring.conformance import comparable
from mainspring.monitoring.served import Served
from mainspring.monitoring.sketching import Sketching
from mainspring.stats.reference import profile

APPENDING = """
import sys, time
from pathlib import Path
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.conformance import prediction

log, number = SegmentLog(Path(sys.argv[1]) / "ledger", max_bytes=150_000), int(sys.argv[2])
while True:
    log.append([prediction(number + each) for each in range(1 + number % 7)])
    number += 1 + number % 7
    print(number, flush=True)
    time.sleep(0.01)
"""
COMPACTING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sketches_kill import store

compacting = store(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    compacting.compact()
    print("compacted", flush=True)
"""
ROUNDS = 3
REFERENCE = profile({"Traffic.departures_1h": [float(number) for number in range(0, 6_000_000, 9_000)]})


def sketching(lake: DeltaLake) -> Sketching:
    served = Served("binary", {"Traffic.departures_1h": DType.Float64}, "probability", REFERENCE)
    return Sketching(LakeSketches(lake), lambda _: served, lambda _: ["Traffic.departures_1h"])


def store(root: Path) -> LakePredictions:
    lake = DeltaLake(root / "lake")
    return LakePredictions(
        root / "ledger", lake, FileLocks(root / "locks"), at_once_bytes=50_000, observer=sketching(lake)
    )


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    with process:
        process.stdout.read()


def test_compactions_killed_at_any_moment_sketch_each_prediction_once(tmp_path: Path) -> None:
    chance = random.Random(11)
    for number in range(ROUNDS):
        writer = started(APPENDING, str(tmp_path), str(number * 1_000_000))
        compactor = started(COMPACTING, str(tmp_path), str(Path(__file__).parent))
        compactor.stdout.readline()
        for _ in range(chance.randrange(5, 40)):
            writer.stdout.readline()
        kill(compactor)
        if number % 2:  # the progress of some segments is lost, too
            for progress in (tmp_path / "ledger").glob("*.progress"):
                progress.write_bytes(b"{")
        kill(writer)
    last = store(tmp_path)
    last.compact()
    sketches, lake = LakeSketches(DeltaLake(tmp_path / "lake")), DeltaLake(tmp_path / "lake")
    found = sketches.hours("late", 0, 2**60, segment=None)
    counted = sketching(lake).sketches(last.between(0, 2**60))
    assert comparable(found) == comparable(sorted(counted, key=lambda each: each.key))
    assert sum(each.rows for each in found if not each.segment) == sum(last.hours().values()) > 100
    assert sketches.doubts() == []
