"""How many messages a second does a stream land, with tiles and online states, and how soon can they be read?

Card payments in JSON lie in a log in a SQLite file, with four partitions. Ours lands them into Delta tables, tiles and
a SQLite online store, as the worker does: a view of a count, a sum and a last value by card. The floor is a bare
consumer: it reads the same log, parses the messages and adds up the same values in dictionaries, and stores nothing
but offsets. Rates are per second of processor time, user and system, of one process, so that a busy machine changes
them little. Freshness is from an event to its features being readable, in time of the clock, while another process
sends messages at a share of the capacity; it is measured for long enough that rows settle in tiles and files are
compacted. Catch-up is measured on the messages of an hour, which all lie in the log at its begin. A small batch is
measured in a young table, and again after as many versions as a stream makes in a quarter of an hour or more.

The peer is Quix Streams (`bench/peers.py quix`), which reads Kafka only: all sides read the same topic of a broker in
memory. It keeps count, sum and last of an hour by card in RocksDB, at least once, and lands nothing. The messages have
the card as key, by which it needs them to be partitioned; ours needs no key.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import Producer

from environments import PEERS, ROOT
from mainspring.core.time import format_instant
from mainspring.data.streams.model import NewMessage
from mainspring.data.streams.ports import EventLog
from mainspring.data.write_keys import numbered
from mainspring.operations.streams.running import StreamRun
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from report import Case, report

sys.path.insert(0, str(ROOT / "tests"))
from kit.servers import KafkaBroker, running

CARDS = 20_000
_WAIT_S = 1.0  # for messages of a broker
PARTITIONS = 4
MODULE = """
import mainspring as ms

card = ms.Entity("card", keys={"card": ms.String})
columns = {"payment": ms.String, "card": ms.String, "amount": ms.Float64}
payments = ms.Source("payments", schema=columns, event_time="at")
ms.Stream(payments, topic="payments")


@ms.feature_view(entity=card, source=payments)
class Spending:
    payments_1h = ms.count(window="1h")
    spent_24h = ms.sum("amount", window="24h")
    last = ms.last("amount")
"""


def opened(folder: Path, log: str = "") -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    streams = f'streams = "{log}"\n' if log else ""
    (folder / "mainspring.toml").write_text(f'name = "bench"\nmodules = ["shop"]\n\n[profiles.local]\n{streams}')
    (folder / "shop.py").write_text(MODULE)
    return open_project(load_settings(folder, environment={}))


def messages(first: int, count: int, now: int, step_us: float = 1.0) -> list[NewMessage]:
    """Return messages with the numbers from `first` on, whose events are `step_us` apart from `now` on."""
    rng = np.random.default_rng([7, first])
    cards, amounts = rng.integers(0, CARDS, count).tolist(), np.round(rng.gamma(2, 20, count), 2).tolist()
    return [
        NewMessage(
            json.dumps(
                {
                    "payment": f"p{first + place}",
                    "card": f"c{card}",
                    "amount": amount,
                    "at": format_instant(now + int(place * step_us)),
                }
            ).encode(),
            partition=(first + place) % PARTITIONS,
        )
        for place, (card, amount) in enumerate(zip(cards, amounts, strict=True))
    ]


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Payment(msgspec.Struct):
    card: str
    amount: float
    at: str


def bare(log: EventLog, limit: int) -> int:
    """Read and add up everything; return the number of messages."""
    decode = msgspec.json.Decoder(Payment).decode
    after = dict.fromkeys(log.partitions("payments"), 0)
    after = {partition: span.first for partition, span in log.spans("payments", after).items()}
    sums: dict[str, list[float]] = {}
    total = 0
    while found := log.read("payments", after, limit=limit, wait_s=_WAIT_S):
        for message in found:
            assert message.value is not None
            payment = decode(message.value)
            held = sums.setdefault(payment.card, [0.0, 0.0, 0.0])
            held[0] += 1
            held[1] += payment.amount
            held[2] = payment.amount
            after[message.partition] = message.offset + 1
        total += len(found)
    return total


def fill(project: Project, count: int, seconds: float = 0.0) -> None:
    """Send messages whose events fill the last seconds, or as many microseconds."""
    project.streams.create("payments", PARTITIONS)
    step_us = max(1.0, seconds * 1e6 / count)
    now = project.wall.now() - int(count * step_us)
    for first in range(0, count, 10_000):
        sent = messages(first, min(10_000, count - first), now + int(first * step_us), step_us)
        project.streams.produce("payments", sent)


def land(project: Project, count: int) -> tuple[float, float]:
    """Land everything; return messages a second of processor time, and seconds by the clock."""
    run = StreamRun(project, project.definitions.stream("payments"))
    begun, begun_s, landed = processor_s(), time.monotonic(), 0
    while (batch := run.step(_WAIT_S)) is not None:
        landed += batch.messages
    rate, took = count / (processor_s() - begun), time.monotonic() - begun_s - _WAIT_S
    run.close()
    assert landed == count
    return rate, took


def capacity(project: Project, count: int) -> tuple[float, float]:
    """Return messages a second of processor time: ours and the bare loop's."""
    begun = processor_s()
    assert bare(project.streams, project.definitions.stream("payments").batch_rows) == count
    floor = count / (processor_s() - begun)
    return land(project, count)[0], floor


def on_kafka(folder: Path, count: int) -> Case:
    """Return messages a second of processor time from one topic of a Kafka broker: ours, the bare loop's and Quix's."""
    with running(KafkaBroker) as broker:
        address = f"127.0.0.1:{broker.port}"
        project = opened(folder, f"kafka://{address}?batch.num.messages=1")
        project.streams.create("payments", PARTITIONS)
        producer, now = Producer({"bootstrap.servers": address}), project.wall.now() - count
        for place, message in enumerate(messages(0, count, now)):
            card = json.loads(message.value or b"")["card"]
            # The last of each partition comes alone: the broker tells the end of a batch as if it had one message.
            alone = place >= count - PARTITIONS
            if alone or place % 1_000 == 0:
                assert producer.flush(60.0) == 0
            producer.produce("payments", message.value, card, (place if alone else int(card[1:])) % PARTITIONS)
        assert producer.flush(60.0) == 0
        ours, floor = capacity(project, count)
        peers: dict[str, float | None] = {"quix": None}
        python, notes = PEERS / "quix" / "bin" / "python", {"quix": "not installed: python bench/peers.py quix"}
        if python.exists():
            command = [str(python), "-W", "ignore", str(ROOT / "bench" / "stream_quix.py"), address, str(count)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
            peers, notes = {"quix": json.loads(done.stdout.splitlines()[-1])["rate"]}, {}
    name = "the same from Kafka"
    return Case(name, "messages/s of a core", ours, floor, peers=peers, more_is_better=True, notes=notes)


@contextmanager
def sending(folder: Path, rate: float) -> Iterator[None]:
    """Send messages at a rate, in another process, inside the block."""
    command = [sys.executable, __file__, "--send", str(folder), "--rate", str(rate)]
    sender = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sender.stdin is not None
    assert sender.stdout is not None
    try:
        assert sender.stdout.readline() == b"sending\n"
        yield
    finally:
        sender.kill()
        sender.wait()
        sender.stdin.close()
        sender.stdout.close()


def send(folder: Path, rate: float) -> None:
    """Send messages at a rate until the process is killed."""
    project = open_project(load_settings(folder, environment={}))
    begun, sent = time.monotonic(), 0
    print("sending", flush=True)
    while True:
        due = int((time.monotonic() - begun) * rate) - sent
        if due:
            step_us = 1e6 / rate
            now = project.wall.now() - int(due * step_us)
            project.streams.produce("payments", messages(time.time_ns() // 1_000, due, now, step_us))
            sent += due
        time.sleep(0.02)


def freshness(project: Project, rate: float, seconds: float) -> tuple[float, float, int]:
    """Return the median and the 99th percentile of freshness, seconds, and the number of messages, at a rate."""
    run = StreamRun(project, project.definitions.stream("payments"))
    while run.step() is not None:  # it also opens what a process opens once
        pass
    ages = []
    with sending(project.settings.root, rate):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            batch = run.step(wait_s=0.5)
            if batch is not None:
                ages.append(project.wall.now() - batch.events)
    run.close()
    every = np.concatenate(ages) / 1e6
    return float(np.quantile(every, 0.5)), float(np.quantile(every, 0.99)), len(every)


def catch_up(folder: Path, rate: float) -> tuple[float, float]:
    """Land an hour's messages at a rate; return messages a second of processor time, and seconds by the clock."""
    project, count = opened(folder), int(3600 * rate)
    fill(project, count, 3600.0)
    return land(project, count)


def growth(folder: Path, versions: int) -> tuple[float, float]:
    """Return the processor time of a small batch, milliseconds, in a young table and in one of many more versions."""
    project = opened(folder)
    fill(project, CARDS)
    land(project, CARDS)
    run, count = StreamRun(project, project.definitions.stream("payments")), 100

    def small() -> float:
        costs = []
        for _ in range(15):
            sent = messages(time.time_ns() // 1_000, count, project.wall.now() - count)
            project.streams.produce("payments", sent)
            begun = processor_s()
            batch = run.step(_WAIT_S)
            costs.append(processor_s() - begun)
            assert batch is not None
            assert batch.messages == count
        return float(np.median(costs)) * 1e3

    small()  # opens what a process opens once
    young = small()
    schema = project.lake.scan("payments").schema
    assert schema is not None
    for number in range(versions):
        project.lake.append("payments", [], schema, key=numbered("bench", number + 1))
    old = small()
    run.close()
    return young, old


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=75.0, help="of each measurement of freshness")
    parser.add_argument("--versions", type=int, default=3_000, help="between two measurements of a small batch")
    parser.add_argument("--send", type=Path, help="only send messages to the project in this folder")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second, of --send and of the hour's stop")
    chosen = parser.parse_args()
    if chosen.send:
        send(chosen.send, chosen.rate)
    wishes: list[tuple[str, str, float, bool]] = []
    with tempfile.TemporaryDirectory() as folder:
        project = opened(Path(folder) / "project")
        fill(project, chosen.messages)
        ours, floor = capacity(project, chosen.messages)
        print(f"{ours:,.0f} messages/s of a core; a bare loop {floor:,.0f}", file=sys.stderr, flush=True)
        cases = [Case("landing, tiles and online states", "messages/s of a core", ours, floor, more_is_better=True)]
        for share in (0.5, 0.1):
            middle, high, count = freshness(project, ours * share, chosen.seconds)
            print(f"at {share:.0%}: median {middle:.2f} s, p99 {high:.2f} s", file=sys.stderr, flush=True)
            notes = {"ours": f"{ours * share:,.0f} messages/s, {count:,} measured; median {middle:.2f} s"}
            name = f"freshness p99 at {share:.0%} of the capacity"
            cases.append(Case(name, "s", high, notes=notes))
            wishes.append((f"{name}, s", "< 1", round(high, 2), high < 1))
        rate, took = catch_up(Path(folder) / "hour", chosen.rate)
        name = f"catch-up after an hour's stop at {chosen.rate:,.0f} messages/s"
        cases.append(Case(name, "s", took, notes={"ours": f"{rate:,.0f} messages/s of a core"}))
        # While messages go on to arrive at half the capacity, an hour's are caught up in an hour if the rate is this.
        wishes.append(("catch-up, of the capacity", ">= 1", round(rate / ours, 2), rate >= ours))
        young, old = growth(Path(folder) / "old", chosen.versions)
        name = f"a batch of 100 messages after {chosen.versions:,} versions"
        cases.append(Case(name, "ms of a core", old, notes={"ours": f"{young:,.0f} ms in a young table"}))
        wishes.append((f"{name}, of a young table", "<= 1.2", round(old / young, 2), old <= 1.2 * young))
        cases.append(on_kafka(Path(folder) / "kafka", chosen.messages // 2))
    for name, want, got, is_met in wishes:
        print(f"{name:60} wanted {want:8} got {got:8} {'met' if is_met else 'NOT MET'}")
    report("stream", cases)


if __name__ == "__main__":
    main()
