"""Producers of the embedded log are killed at random: acknowledged messages are there once, in their order.

Run with `LOG_KILLS=200` for more kills; the counts of all of them are printed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from kit.depth import examples
from mainspring.data.adapters.log_sqlite import SqliteLog
from mainspring.data.streams.model import Message

KILLS = int(os.environ.get("LOG_KILLS", examples(gate=4, deep=60)))
VICTIM = Path(__file__).parent / "event_log_victim.py"
NAMES = ("a", "b")


def _read(log: SqliteLog, stop: threading.Event, found: list[Message]) -> None:
    """Read as a consumer does, while producers are killed."""
    wanted = dict.fromkeys(range(3), 0)
    while True:
        over = stop.is_set()
        messages = log.read("clicks", wanted, limit=1_000, wait_s=0.05)
        for message in messages:
            assert message.offset == wanted[message.partition]
            wanted[message.partition] += 1
        found += messages
        if over and not messages:
            return


def _kill_one(path: Path, name: str, first: int, delay_s: float) -> int:
    """Start a producer, kill it, and return the number up to which it was told that messages are durable."""
    command = [sys.executable, str(VICTIM), str(path), name, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        told = int(victim.stdout.readline())
        time.sleep(delay_s)
        victim.send_signal(signal.SIGKILL)
        return max([told, *(int(line) for line in victim.stdout if line.endswith("\n"))])


def test_what_was_acknowledged_is_there_once_and_in_order(tmp_path: Path) -> None:
    path, chance = tmp_path / "streams.db", random.Random(20)
    log = SqliteLog(path)
    log.create("clicks", 3)
    stop, found = threading.Event(), list[Message]()
    reader = threading.Thread(target=_read, args=(SqliteLog(path), stop, found))
    reader.start()
    acknowledged: dict[str, list[range]] = {name: [] for name in NAMES}

    def kill(name: str) -> None:
        first = 0
        for _ in range(KILLS // 2):
            told = _kill_one(path, name, first, chance.random() * 0.2)
            acknowledged[name].append(range(first, told))
            first = told + 1_000  # what was written without being acknowledged may be there

    threads = [threading.Thread(target=kill, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reader.join()

    for name in NAMES:
        mine = [message for message in found if message.key == name.encode()]
        numbers = [int((message.value or b"").partition(b":")[2]) for message in mine]
        assert max(Counter(numbers).values()) == 1
        for partition in range(3):
            order = [number for message, number in zip(mine, numbers, strict=True) if message.partition == partition]
            assert order == sorted(order)
        for numbers_told in acknowledged[name]:
            assert set(numbers_told) <= set(numbers)
    for partition, span in log.spans("clicks", range(3)).items():
        assert span.next == sum(message.partition == partition for message in found)
    told = sum(len(numbers_told) for name in NAMES for numbers_told in acknowledged[name])
    print(f"{KILLS} kills: {told} messages acknowledged, {len(found)} there, each once")
