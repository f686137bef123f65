"""What death costs the prediction log.

A kill -9 loses nothing that somebody was told is written or durable, of the rest only what was added last, and doubles
nothing. A power cut loses nothing that somebody was told is durable. It is played here by cutting the files back to
what the last sync covered, which is all that a disk promises.
"""

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from kit.depth import examples
from kit.waiting import wait_until
from mainspring.core.locks import FileLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.ledger import frames
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.unread import segments, unread
from mainspring.ledger.model import PREDICTIONS

BEGIN = """
import itertools, os, sys, threading, time
from pathlib import Path
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.conformance import batch, prediction

def say(*words):  # one write a line: threads do not mix them
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""
APPENDING = (
    BEGIN
    + """
log = SegmentLog(Path(sys.argv[1]), max_bytes=200_000)
number = int(sys.argv[2])
while True:
    made = [prediction(number + each) for each in range(1 + number % 7)]
    log.append(made)
    number += len(made)
    say(number)  # every number below it is acknowledged
"""
)
ADDING = (
    BEGIN
    + """
log = SegmentLog(Path(sys.argv[1]), max_bytes=200_000)
for number in itertools.count(int(sys.argv[2])):
    log.add(batch(number, 1))
    say(number)
    time.sleep(0.0005)
"""
)
ADDING_ONE = (
    BEGIN
    + """
log = SegmentLog(Path(sys.argv[1]))
log.add(batch(1, 2))
say("added")
time.sleep(600)
"""
)
IN_SYNC = (
    BEGIN
    + """
class Watched(SegmentLog):
    def _sync(self, descriptors):
        covered = [os.fstat(each) for each in descriptors]
        error = super()._sync(descriptors)
        for each in covered:
            say("synced", each.st_ino, each.st_size)
        return error

log = Watched(Path(sys.argv[1]), max_bytes=60_000, sync_within_s=0.05)

def call(first):
    for number in range(first, first + 100_000):
        log.add(batch(number, 1), sync=True).result()
        say("told", number)

def add(first):
    for number in range(first, first + 100_000):
        log.add(batch(number, 1))
        time.sleep(0.0002)

for each in range(8):
    threading.Thread(target=add if each == 7 else call, args=(int(sys.argv[2]) + each * 100_000,)).start()
"""
)
COMPACTING = """
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
    store.tidy(made_before=int(sys.argv[2]), replaced_before=2**62, entries=1)
"""
ROUNDS, KEPT_FROM = examples(gate=3, deep=6), 2  # the predictions of the first two rounds are removed


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Kill the process and return the whole lines that it printed since."""
    process.send_signal(signal.SIGKILL)
    with process:
        # Through the same buffer that `readline` filled: `communicate` would pass by what lies in it.
        rest = process.stdout.read()
    return rest.rpartition("\n")[0].splitlines()


def killed_at_random(program: str, folder: Path, first: int, chance: random.Random) -> list[str]:
    """Run a program until it has said some lines and some of it is written, kill it, and return all lines."""
    writer = start(program, str(folder), str(first))
    lines = [writer.stdout.readline().strip() for _ in range(chance.randrange(20, 600))]
    wait_until(lambda: any(int(each.id[1:]) >= first for each in unread(folder)), "something to be written")
    return lines + kill(writer)


def lake_ids(root: Path) -> Counter[str]:
    import pyarrow.parquet as pq

    files = DeltaLake(root / "lake").scan(PREDICTIONS).files
    return Counter(each for file in files for each in pq.read_table(file, columns=["id"])["id"].to_pylist())


def compacted(folder: Path) -> tuple[LakePredictions, list[str]]:
    lake = MemoryLake()
    store = LakePredictions(folder, lake, FileLocks(folder.parent / "locks"))
    store.compact()
    return store, lake.scan(PREDICTIONS).rows["id"].to_pylist()


def test_killed_writers_and_compactors_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: set[str] = set()
    made_before = KEPT_FROM * 1_000_000 * 1_000  # prediction n is made at n milliseconds
    compactor = start(COMPACTING, str(tmp_path), str(made_before))
    compactor.stdout.readline()
    for each in range(ROUNDS):
        first = each * 1_000_000
        writer = start(APPENDING, str(tmp_path / "ledger"), str(first))
        lines = [writer.stdout.readline() for _ in range(chance.randrange(20, 400))]
        kill(compactor)
        compactor = start(COMPACTING, str(tmp_path), str(made_before))
        lines += kill(writer)
        if each >= KEPT_FROM:
            acknowledged.update(f"p{number}" for number in range(first, int(lines[-1])))
    kill(compactor)

    store = LakePredictions(tmp_path / "ledger", DeltaLake(tmp_path / "lake"), FileLocks(tmp_path / "locks"))
    some = chance.sample(sorted(acknowledged), 5)
    assert [store.find(each).id for each in some] == some  # also before the dead are compacted
    store.compact()
    store.tidy(made_before=made_before, replaced_before=0)
    found = lake_ids(tmp_path)
    assert acknowledged <= found.keys()
    assert min(int(each[1:]) for each in found) >= KEPT_FROM * 1_000_000
    assert set(found.values()) == {1}
    # At most the batch that each writer was in the middle of telling about is there unacknowledged.
    assert len(found) - len(acknowledged) <= 7 * ROUNDS
    assert list((tmp_path / "ledger").iterdir()) == []
    assert [store.find(each).id for each in some] == some


def test_what_was_added_is_written_without_anybody_asking_for_it(tmp_path: Path) -> None:
    writer = start(ADDING_ONE, str(tmp_path))
    writer.stdout.readline()
    wait_until(lambda: [each.id for each in unread(tmp_path)] == ["p1", "p2"], "what was added")
    kill(writer)
    assert [each.id for each in unread(tmp_path)] == ["p1", "p2"]


def test_a_kill_loses_of_what_nobody_waits_for_only_the_newest(tmp_path: Path) -> None:
    chance = random.Random(11)
    for each in range(ROUNDS):
        first = each * 1_000_000
        added = [int(line) for line in killed_at_random(ADDING, tmp_path / "ledger", first, chance)]
        found = {int(prediction.id[1:]) for prediction in unread(tmp_path / "ledger")}
        kept = [number for number in added if number in found]
        assert kept == added[: len(kept)]  # nothing but a tail is missing
        assert kept
    _, ids = compacted(tmp_path / "ledger")
    assert len(ids) == len(set(ids)) > 0


@pytest.mark.parametrize("power", [True, False])
def test_what_somebody_was_told_is_durable_survives_a_kill_and_a_power_cut(tmp_path: Path, power: bool) -> None:
    chance, told = random.Random(13), set()
    folder = tmp_path / "ledger"
    torn = each = 0
    while each < (3 if power else ROUNDS) or (power and not torn):
        each += 1
        lines = killed_at_random(IN_SYNC, folder, each * 1_000_000, chance)
        told |= {f"p{number}" for kind, number, *_ in map(str.split, lines) if kind == "told"}
        if power:
            torn += cut_power(folder, lines, chance)
    assert len(told) > 20
    assert told <= {prediction.id for prediction in unread(folder)}
    store, ids = compacted(folder)
    assert told <= set(ids)
    assert len(ids) == len(set(ids))
    assert not power or store.torn_bytes >= torn > 0
    assert [path.suffix for path in folder.iterdir()] == []


def cut_power(folder: Path, lines: Sequence[str], chance: random.Random) -> int:
    """Leave of the segments that were just written what their last sync covered, and behind it what a disk may have
    there: nothing, a part of a frame, or pages of zeros. Returns the bytes of it."""
    covered = {int(inode): int(size) for kind, inode, size in (line.split() for line in lines if "synced" in line)}
    torn = 0
    for segment in segments(folder):
        size = covered.get(segment.path.stat().st_ino)
        if size is None:
            continue
        content = segment.path.read_bytes()
        rest = len(content) - size
        tails = [b"", bytes(4096), content[size : size + rest // 2] + bytes(rest - rest // 2), bytes(rest)]
        whole = frames.scan(content[size:], 0)
        tail = chance.choice(tails) if whole.payloads else bytes(4096)
        segment.path.write_bytes(content[:size] + tail)
        torn += frames.scan(tail, 0).torn
    return torn
