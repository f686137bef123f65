"""How many messages a second does a stream land, with tiles and online states, and how soon can they be read?

Card payments in JSON lie in a log in a SQLite file, with four partitions. Ours lands them into Delta tables, tiles and
a SQLite online store, as the worker does: a view of a count, a sum and a last value by card. The floor is a bare
consumer: it reads the same log, parses the messages and adds up the same values in dictionaries, and stores nothing
but offsets. Rates are per second of processor time, user and system, of one process, so that a busy machine changes
them little. Freshness is from an event to its features being readable, in time of the clock, at a rate of messages that
is a share of the capacity, in a process that also sends. Catch-up is the time until nothing is left after a stop, while
messages go on to arrive at half the capacity, measured after a short stop and given for an hour's.

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
import threading
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


def messages(first: int, count: int, now: int) -> list[NewMessage]:
    rng = np.random.default_rng([7, first])
    cards, amounts = rng.integers(0, CARDS, count).tolist(), np.round(rng.gamma(2, 20, count), 2).tolist()
    return [
        NewMessage(
            json.dumps(
                {
                    "payment": f"p{first + place}",
                    "card": f"c{card}",
                    "amount": amount,
                    "at": format_instant(now + place),
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


def fill(project: Project, count: int) -> None:
    project.streams.create("payments", PARTITIONS)
    now = project.wall.now() - count
    for first in range(0, count, 10_000):
        project.streams.produce("payments", messages(first, min(10_000, count - first), now + first))


def capacity(project: Project, count: int) -> tuple[float, float]:
    """Return messages a second of processor time: ours and the bare loop's."""
    stream = project.definitions.stream("payments")
    begun = processor_s()
    assert bare(project.streams, stream.batch_rows) == count
    floor = count / (processor_s() - begun)
    run = StreamRun(project, stream)
    begun, landed = processor_s(), 0
    while (batch := run.step(_WAIT_S)) is not None:
        landed += batch.messages
    ours = count / (processor_s() - begun)
    run.close()
    assert landed == count
    return ours, floor


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
def sending(project: Project, rate: float) -> Iterator[None]:
    """Send messages at a rate inside the block."""
    stop = threading.Event()

    def send() -> None:
        begun, sent = time.monotonic(), 0
        while not stop.is_set():
            due = int((time.monotonic() - begun) * rate) - sent
            if due:
                project.streams.produce("payments", messages(10_000_000 + sent, due, project.wall.now() - due))
                sent += due
            time.sleep(0.02)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def catch_up(project: Project, rate: float, stopped_s: float) -> float:
    """Return the time to catch up after a stop, seconds, while messages go on to arrive."""
    run = StreamRun(project, project.definitions.stream("payments"))
    with sending(project, rate):
        time.sleep(stopped_s)
        begun = time.monotonic()
        while (batch := run.step()) is not None and batch.messages > rate:  # more than a second's
            pass
        took = time.monotonic() - begun
    run.close()
    return took


def freshness(project: Project, rate: float, seconds: float) -> tuple[float, float, int]:
    """Return the median and the 99th percentile of freshness, seconds, and the number of messages, at a rate."""
    run = StreamRun(project, project.definitions.stream("payments"))
    run.step()  # opens what a process opens once
    end, ages = time.monotonic() + seconds, []
    with sending(project, rate):
        while time.monotonic() < end or len(ages) < 10:
            batch = run.step(wait_s=0.5)
            if batch is not None:
                ages.append(project.wall.now() - batch.events)
    run.close()
    every = np.concatenate(ages[2:]) / 1e6
    return float(np.quantile(every, 0.5)), float(np.quantile(every, 0.99)), len(every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = opened(Path(folder) / "project")
        fill(project, chosen.messages)
        ours, floor = capacity(project, chosen.messages)
        print(f"{ours:,.0f} messages/s of a core; a bare loop {floor:,.0f}", file=sys.stderr, flush=True)
        cases = [Case("landing, tiles and online states", "messages/s of a core", ours, floor, more_is_better=True)]
        for share in (0.5, 0.1):
            middle, high, count = freshness(project, ours * share, chosen.seconds)
            notes = {"ours": f"{ours * share:,.0f} messages/s, {count:,} measured; median {middle:.2f} s"}
            cases.append(Case(f"freshness p99 at {share:.0%} of the capacity", "s", high, notes=notes))
        cases.append(on_kafka(Path(folder) / "kafka", chosen.messages // 2))
        took = catch_up(project, ours / 2, chosen.seconds)
        notes = {"ours": f"{took:.1f} s after a stop of {chosen.seconds:.0f} s"}
        name = "catch-up after an hour's stop at half the capacity"
        cases.append(Case(name, "s", took * 3600 / chosen.seconds, notes=notes))
    report("stream", cases)


if __name__ == "__main__":
    main()
