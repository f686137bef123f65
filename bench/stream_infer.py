"""Predictions on a stream: events a second against a bare loop with the same model over the same log, and latency.

The model is a network of ten stored features (`keyed`). A message names a user. The bare loop reads the log, decodes
JSON, looks the features up in a dict, runs ONNX Runtime on the batch, and produces the outputs: no state, no offsets,
no commit, no store. Ours reads the online store as of each event, keeps a window, a session and a state by user,
commits each batch, and sends to a topic. `without state` leaves windows, state and the prediction log out.

Run: python bench/stream_infer.py [EVENTS]
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import keyed
from answering import mlp
from networks import onnx_mlp
from report import Case, report

EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
TOPIC, OUT = "asked", "scores"
_AT_ONCE = 512


def produce(project: Any, topic: str, count: int) -> None:
    """Write messages of random users, in order of time."""
    from mainspring.core.time import format_instant
    from mainspring.data.streams.model import NewMessage

    project.streams.create(topic, 1)
    chance, now = random.Random(3), project.wall.now()
    for start in range(0, count, 5_000):
        messages = []
        for number in range(start, min(start + 5_000, count)):
            user = f"user-{chance.randrange(keyed.USERS):06d}"
            row = {"user": user, "asked_at": format_instant(now + number * 10)}
            messages.append(NewMessage(json.dumps(row).encode(), key=user.encode()))
        project.streams.produce(topic, messages)


class Seen(msgspec.Struct, frozen=True):
    """State of a user: how often they were seen."""

    events: int = 0


def judge(event: Any, seen: Seen) -> tuple[dict[str, Any], Seen]:
    """Alert on a high value or many events."""
    alert = event.outputs["value"] > 0.5 or event.windows["recent"] > 3
    return {"alert": alert, "events": seen.events + 1}, Seen(seen.events + 1)


def endpoint(project: Any, topic: str, *, state: bool) -> Any:
    """Return a stream endpoint over the topic."""
    import mainspring as ms

    more = (
        {
            "windows": {"recent": ms.count(window="10m"), "visit": ms.session(gap="1m")},
            "state": Seen,
            "rule": judge,
        }
        if state
        else {}
    )
    return ms.StreamEndpoint(
        keyed.ENDPOINT,
        model=f"{keyed.ENDPOINT}@champion",
        topic=topic,
        source=project.definitions.source("asked"),
        key="user",
        ahead="1d",
        to=[ms.to_topic(OUT)],
        **more,
    )


def ours(project: Any, topic: str, *, state: bool) -> float:
    """Return events a second of one process, delivered and logged."""
    from mainspring.operations.stream_endpoints.running import running

    forget(project)
    with running(project, endpoint(project, topic, state=state)) as runner:
        if not state:  # the prediction log is a part of what is compared with nothing
            runner._sinks = [sink for sink in runner._sinks if sink.id != "predictions"]
        runner.step(wait_s=0.0)  # opens the files, loads the model
        begun = time.perf_counter()
        done = 0
        delivered = threading.Event()
        with runner.delivering(delivered):
            while done < EVENTS - _AT_ONCE:
                done += runner.step(wait_s=0.1)
        return done / (time.perf_counter() - begun)  # to the last delivery, as the threads end then


def forget(project: Any) -> None:
    shutil.rmtree(project.settings.state / "streams" / keyed.ENDPOINT, ignore_errors=True)


def bare(project: Any, topic: str, facts: Mapping[str, Sequence[float]], model: Path) -> float:
    """Return events a second of the bare loop."""
    from mainspring.data.streams.model import NewMessage

    run, decode, encode = mlp(str(model)), msgspec.json.Decoder(dict[str, str]).decode, msgspec.json.encode
    log, offset, done = project.streams, 0, 0
    begun = time.perf_counter()
    while messages := log.read(topic, {0: offset}, limit=_AT_ONCE):
        users = [decode(each.value)["user"] for each in messages]
        values = run([facts[user] for user in users])[:, 0].tolist()
        made = [
            NewMessage(encode({"user": user, "value": value}), key=user.encode())
            for user, value in zip(users, values, strict=True)
        ]
        log.produce(OUT, made)
        offset, done = messages[-1].offset + 1, done + len(messages)
    return done / (time.perf_counter() - begun)


def latency(project: Any, rate: float, seconds: float = 15.0) -> list[float]:
    """Return ms from a message's acceptance to its output in the topic, at a rate, one message at a time."""
    from mainspring.core.time import format_instant
    from mainspring.data.streams.model import NewMessage
    from mainspring.operations.stream_endpoints.running import running

    topic = "paced"
    project.streams.create(topic, 1)
    forget(project)
    log = project.streams
    first = log.spans(OUT, [0])[0].next
    ready, stop, chance = threading.Event(), threading.Event(), random.Random(5)

    def run() -> None:
        with running(project, endpoint(project, topic, state=True)) as runner:
            runner.step(wait_s=0.0)  # opens the files, loads the model
            ready.set()
            runner.run(stop)

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(60.0)
    sent: dict[int, float] = {}
    begun, number = time.perf_counter(), 0
    while (now := time.perf_counter() - begun) < seconds:
        if number > now * rate:
            time.sleep(0.0005)
            continue
        user = f"user-{chance.randrange(keyed.USERS):06d}"
        row = {"user": user, "asked_at": format_instant(project.wall.now())}
        ((_, offset),) = log.produce(topic, [NewMessage(json.dumps(row).encode(), key=user.encode())])
        sent[offset] = project.wall.now()
        number += 1
    time.sleep(2.0)
    stop.set()
    thread.join()
    took, offset = [], first
    end = log.spans(OUT, [0])[0].next
    while offset < end:
        for each in log.read(OUT, {0: offset}, limit=5_000):
            offset = each.offset + 1
            place = int(json.loads(each.value)["event_id"].rpartition("-")[2])
            took.append((each.at - sent[place]) / 1e3)
    assert len(took) == len(sent), (len(took), len(sent))
    return took


def best(measure: Callable[[], float], rounds: int = 3) -> float:
    return round(max(measure() for _ in range(rounds)), 1)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, rows = folder / "model.onnx", folder / "facts.parquet"
        onnx_mlp(model, (len(keyed.FEATURES), 512, 512, 1))
        import pyarrow.parquet as pq

        table = keyed.facts()
        pq.write_table(table, rows)
        project = keyed.prepared(folder, rows, model)
        columns = list(zip(*(table[name].to_pylist() for name in keyed.FEATURES), strict=True))
        facts = dict(zip(table["user"].to_pylist(), columns, strict=True))
        project.streams.create(OUT, 1)
        produce(project, TOPIC, EVENTS)
        floor = best(lambda: bare(project, TOPIC, facts, model))
        whole = best(lambda: ours(project, TOPIC, state=True))
        plain = best(lambda: ours(project, TOPIC, state=False))
        took = latency(project, min(whole / 2, 1_000.0))
        project.close()
    centiles = statistics.quantiles(took, n=100)
    notes = {
        "ours": "features from the SQLite store, a window, a session, a state, a commit on the disk a batch, the log",
        "floor": "features from a dict; no state, no offsets",
        "latency": f"p50 {centiles[49]:.1f} ms, p99 {centiles[98]:.1f} ms at {len(took) / 15.0:,.0f} events/s",
    }
    report(
        "stream_infer",
        [
            Case("events with state, delivered and logged", "events/s", whole, floor, notes=notes, more_is_better=True),
            Case("events without state and log", "events/s", plain, floor, more_is_better=True),
            Case("accepted to output in the topic, p50", "ms", round(centiles[49], 2)),
            Case("accepted to output in the topic, p99", "ms", round(centiles[98], 2)),
        ],
    )


if __name__ == "__main__":
    main()
