"""Messages of each log with a server are rows once each, though workers die between a batch's record and its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from kit.object_store import ENVIRONMENT
from kit.streamed import CORRECTED, lander, values
from kit.visits import NOW
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.log_kafka import KafkaLog
from mainspring.data.adapters.log_kinesis import KinesisLog
from mainspring.data.adapters.log_nats import NatsLog
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.model import NewMessage
from mainspring.data.streams.ports import EventLog
from mainspring.project.catalog import memory_catalog

LOGS: dict[str, Callable[[Any], EventLog]] = {
    "kafka_broker": KafkaLog,
    "nats_server": NatsLog,
    "kinesis_server": KinesisLog,
}


@pytest.fixture(params=[*LOGS])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], EventLog]]:
    """Opens the log anew, as another process would."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    url, made = request.getfixturevalue(request.param).url, list[EventLog]()

    def open_again() -> EventLog:
        made.append(LOGS[request.param](url))
        return made[-1]

    yield open_again
    for log in made:
        log.close()


class _Dead(Exception): ...


class _Dying:
    """A lake to which nothing is written."""

    def __init__(self, lake: MemoryLake) -> None:
        self.lake = lake

    def __getattr__(self, name: str) -> Any:
        if name in ("append", "rewrite"):
            raise _Dead
        return getattr(self.lake, name)


def test_what_a_dead_worker_recorded_is_landed_by_the_next(opened: Callable[[], EventLog]) -> None:
    lake, locks, store, clock = MemoryLake(), MemoryLocks(), CatalogStreams(memory_catalog(), "lake"), ManualClock(NOW)
    topic = f"visits-{uuid4().hex}"
    stream = Stream(CORRECTED, topic=topic, batch_rows=50)
    log = opened()
    log.create(topic, 2)
    log.produce(topic, [NewMessage(value, f"{number % 7}".encode()) for number, value in enumerate(values(3, 120))])
    deaths = 0
    for number in range(20):
        dying = lander(_Dying(lake), locks, store, opened(), clock, owner=f"dying-{number}", stream=stream)  # type: ignore[arg-type]
        with pytest.raises(_Dead):
            dying.step(wait_s=5)
        deaths += 1
        dying.release()
        next_ = lander(lake, locks, store, opened(), clock, owner=f"next-{number}", stream=stream)
        landed = next_.step(wait_s=1)
        next_.release()
        if sum(_counts(lake)) == 120:
            break
        assert landed is not None
    assert deaths > 1
    assert sum(_counts(lake)) == 120
    letters = lake.scan(f"{CORRECTED.name}__dead_letters").rows
    assert letters is not None
    assert len(set(zip(letters["partition"].to_pylist(), letters["offset"].to_pylist(), strict=True))) == len(letters)


def _counts(lake: MemoryLake) -> list[int]:
    tables = (CORRECTED.name, f"{CORRECTED.name}__quarantine", f"{CORRECTED.name}__dead_letters")
    return [0 if lake.version(name) is None else lake.describe(name).rows for name in tables]
