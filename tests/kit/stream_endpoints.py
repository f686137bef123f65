"""A stream endpoint over payments, with every kind of window, a state and a rule; and its oracle's `Spec`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import mainspring as ms
from kit.stream_log import all_messages
from kit.stream_oracle import MINUTE_US, Spec
from mainspring.core.time import ManualClock, format_instant
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.decoding import Decoding
from mainspring.data.streams.model import NewMessage
from mainspring.operations.stream_endpoints.payloads import DecodedRows
from mainspring.serving.model import Arm, Route
from mainspring.serving.streaming.arms import Arms
from mainspring.serving.streaming.declaring import StreamEndpoint, session, to_table, to_topic
from mainspring.serving.streaming.event import StreamEvent
from mainspring.serving.streaming.processor import DEAD_SINK, RowSource
from mainspring.serving.streaming.runner import Runner, Share
from mainspring.serving.streaming.scoring import Scored
from mainspring.serving.streaming.sinks import SinkWriter, TableSink, TopicSink, refusing
from mainspring.serving.streaming.state import StateStore
from mainspring.serving.streaming.state_file import StateFiles

START = 1_700_000_000_000_000
TOPIC, OUT = "payments", "scores"

payments = ms.Source(
    "stream_payments",
    schema={"card": ms.String, "amount": ms.Float64, "shop": ms.String, "id": ms.Int64},
    event_time="at",
)


JSON_ROWS = DecodedRows(Decoding(Stream(payments, topic=TOPIC), Path()))


class Seen(msgspec.Struct, frozen=True):
    """State of a card in the tests: a chain over all its events, so that any difference in their order shows."""

    events: int = 0
    chain: float = 0.0


def judge(event: StreamEvent, state: Seen) -> tuple[dict[str, Any], Seen]:
    if event.fields["shop"] == "poison":
        raise ValueError("no shop sells that")
    state = Seen(state.events + 1, state.chain * 0.5 + event.outputs["score"] + event.at % 1_000)
    return {**event.windows, "state": [state.events, state.chain]}, state


def fold(state: Any, event: Mapping[str, Any]) -> Any:
    events, chain = state
    return [events + 1, chain * 0.5 + event["score"] + event["t"] % 1_000]


SPEC = Spec(first=[0, 0.0], fold=fold)


class Doubling:
    """A predictor: twice the amount. `calls` are the numbers of rows of its calls."""

    model, version, digest = "doubling", "1", "d1"
    types = {"score": ms.Float64}

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.calls: list[int] = []

    def score(self, columns: Mapping[str, Sequence[Any]], at: Sequence[int]) -> Scored:
        features = {"amount": list(columns["amount"])}
        return Scored(features, self.again(features, len(at)))

    def again(self, features: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[float]]:
        self.calls.append(rows)
        return {"score": [(amount or 0.0) * 2.0 for amount in features["amount"]]}


def endpoint(**changes: Any) -> StreamEndpoint:
    given: dict[str, Any] = {
        "model": "doubling@champion",
        "topic": TOPIC,
        "source": payments,
        "key": "card",
        "windows": {
            "recent": ms.count(window="10m"),
            "spent": ms.sum("amount", window="30m"),
            "shops": ms.distinct("shop", window="30m"),
            "visit": session(gap="4m", longest="60m"),
        },
        "state": Seen,
        "rule": judge,
        "state_ttl": "2h",
        "unique": "id",
        "unique_for": "30m",
        "to": [to_topic(OUT), to_table("scored")],
    }
    return StreamEndpoint("checks", **{**given, **changes})


def rollout(share: float, assign: Any = "key") -> Route:
    """Return the route of a rollout of version 2, which has a share of the keys or of the requests."""
    arms = Arm("1", "d1", 1 - share), Arm("2", "d2", share)
    return Route(
        endpoint="checks", model="doubling", arms=arms, deadline_us=1, max_queue_rows=1, rollout="r1", salt="grain",
        assign=assign,
    )  # fmt: skip


def message(minutes: float, card: str | None = "a", amount: float | None = 1.0, **fields: Any) -> NewMessage:
    """Return a payment some minutes after the start; the log accepts it at once, or `accepted` minutes later."""
    accepted = fields.pop("accepted", 0.0)
    at = START + round(minutes * MINUTE_US)
    body = {"card": card, "amount": amount, "at": format_instant(at), **fields}
    return NewMessage(json.dumps(body).encode(), key=(card or "").encode(), at=at + round(accepted * MINUTE_US))


class Alone:
    """A share of all partitions."""

    def held(self, partitions: Collection[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, 1)

    def give_up(self, partition: int) -> None:
        pass


class Stage:
    """An endpoint over a log and a lake in memory, with its state files in a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        of: StreamEndpoint | None = None,
        partitions: int = 1,
        log: Any = None,
        lake: Any = None,
        outputs: int = 1,
    ) -> None:
        self.states: StateStore = StateFiles(folder)
        self.share: Share = Alone()
        self.endpoint = of or endpoint()
        self.log = MemoryLog(ManualClock()) if log is None else log
        self.log.create(TOPIC, partitions)
        self.log.create(OUT, outputs)
        self.lake = MemoryLake() if lake is None else lake
        self.wall = ManualClock(START)
        self.predictor = Doubling()
        self.arms: Arms | None = None  # by default `predictor` alone
        self.decoder: RowSource = JSON_ROWS
        self.sinks: list[SinkWriter] = []  # beside those of the endpoint

    def put(self, messages: Iterable[NewMessage]) -> None:
        self.log.produce(TOPIC, list(messages))

    def runner(self, *, at_once: int = 512, point: Callable[[str], None] = lambda _: None, **options: Any) -> Runner:
        refuse = refusing(self.lake, self.endpoint.dead_letters)
        dead = TableSink(DEAD_SINK, self.endpoint.dead_letters, self.lake, self.endpoint.name, dead=True)
        writers: list[Any] = [dead, *self.sinks]
        for sink in self.endpoint.to:
            if sink.kind == "topic":
                writers.append(TopicSink(sink.id, sink.name, self.log, refuse))
            elif sink.kind == "table":
                writers.append(TableSink(sink.id, sink.name, self.lake, f"{self.endpoint.name}/{sink.id}"))
        return Runner(
            self.endpoint,
            log=self.log,
            states=self.states,
            share=self.share,
            arms=lambda: self.arms or Arms([self.predictor]),
            sinks=writers,
            wall=self.wall,
            at_once=at_once,
            durable=False,
            rows=self.decoder,
            point=point,
            **options,
        )

    def run(self, **options: Any) -> Runner:
        """Process and deliver everything that is in the log."""
        runner = self.runner(**options)
        while runner.step():
            pass
        runner.deliver()
        runner.close()
        return runner

    def outputs(self) -> list[dict[str, Any]]:
        """Return the documents in the topic of outputs."""
        return [json.loads(each.value) for each in all_messages(self.log, OUT)]

    def rows(self, table: str) -> list[dict[str, Any]]:
        if self.lake.version(table) is None:
            return []
        scan = self.lake.scan(table)
        if scan.rows is not None:
            return scan.rows.to_pylist()
        import pyarrow.parquet as pq

        return [row for file in scan.files for row in pq.read_table(file).to_pylist()]


def told(outputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return outputs as the oracle tells them."""
    return [{"event_id": each["event_id"], **each["outputs"]} for each in outputs]
