"""kill -9 of whoever writes or compacts the prediction log: nothing acknowledged is lost, nothing counts twice."""

import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mainspring.core.locks import FileLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.model import PREDICTIONS

WRITER = """
import sys
from pathlib import Path
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.conformance import prediction

log = SegmentLog(Path(sys.argv[1]), max_bytes=200_000)
number = int(sys.argv[2])
while True:
    batch = [prediction(number + each) for each in range(1 + number % 7)]
    log.append(batch)
    number += len(batch)
    print(number, flush=True)  # every number below it is acknowledged
"""
COMPACTOR = """
import sys
from pathlib import Path
from mainspring.core.locks import FileLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.ledger.adapters.lake import LakePredictions

root = Path(sys.argv[1])
store = LakePredictions(root / "ledger", DeltaLake(root / "lake"), FileLocks(root / "locks"))
print("ready", flush=True)
while True:
    store.compact()
"""
ROUNDS = 6


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Kill the process and return the whole lines that it printed since."""
    process.send_signal(signal.SIGKILL)
    with process:
        # Through the same buffer that `readline` filled: `communicate` would pass by what lies in it.
        rest = process.stdout.read()
    return rest.rpartition("\n")[0].splitlines()


def lake_ids(root: Path) -> Counter[str]:
    import pyarrow.parquet as pq

    files = DeltaLake(root / "lake").scan(PREDICTIONS).files
    return Counter(each for file in files for each in pq.read_table(file, columns=["id"])["id"].to_pylist())


def test_killed_writers_and_compactors_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: set[str] = set()
    compactor = start(COMPACTOR, str(tmp_path))
    compactor.stdout.readline()
    for each in range(ROUNDS):
        first = each * 1_000_000
        writer = start(WRITER, str(tmp_path / "ledger"), str(first))
        lines = [writer.stdout.readline() for _ in range(chance.randrange(20, 400))]
        kill(compactor)
        compactor = start(COMPACTOR, str(tmp_path))
        lines += kill(writer)
        acknowledged.update(f"p{number}" for number in range(first, int(lines[-1])))
    kill(compactor)

    store = LakePredictions(tmp_path / "ledger", DeltaLake(tmp_path / "lake"), FileLocks(tmp_path / "locks"))
    some = chance.sample(sorted(acknowledged), 5)
    assert [store.find(each).id for each in some] == some  # also before the dead are compacted
    store.compact()
    found = lake_ids(tmp_path)
    assert acknowledged <= found.keys()
    assert set(found.values()) == {1}
    # At most the batch that each writer was in the middle of telling about is there unacknowledged.
    assert len(found) - len(acknowledged) <= 7 * ROUNDS
    assert list((tmp_path / "ledger").iterdir()) == []
    assert [store.find(each).id for each in some] == some
