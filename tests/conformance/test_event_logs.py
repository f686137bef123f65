"""Every log of messages does what the port says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kit.object_store import ENVIRONMENT
from kit.servers import KafkaBroker, KinesisServer, NatsServer
from mainspring.data.adapters.log_kafka import KafkaLog
from mainspring.data.adapters.log_kinesis import KinesisLog
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.data.adapters.log_nats import NatsLog
from mainspring.data.adapters.log_prefixed import PrefixedErasingLog
from mainspring.data.adapters.log_sqlite import SqliteLog
from mainspring.data.streams.conformance import EventLogConformance


@pytest.fixture(scope="module")
def kafka_log(kafka_broker: KafkaBroker) -> Iterator[KafkaLog]:
    log = KafkaLog(kafka_broker.url)
    yield log
    log.close()


@pytest.fixture(scope="module")
def nats_log(nats_server: NatsServer) -> Iterator[NatsLog]:
    log = NatsLog(nats_server.url)
    yield log
    log.close()


@pytest.fixture(scope="module")
def kinesis_log(kinesis_server: KinesisServer) -> Iterator[KinesisLog]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        log = KinesisLog(kinesis_server.url)
        yield log
        log.close()


class TestMemory(EventLogConformance):
    @pytest.fixture
    def log(self) -> MemoryLog:
        return MemoryLog()

    def forget(self, log: MemoryLog, topic: str, before: Mapping[int, int]) -> None:
        log.forget(topic, before)


class TestSqlite(EventLogConformance):
    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[SqliteLog]:
        log = SqliteLog(tmp_path / "state" / "streams.db")
        yield log
        log.close()

    def forget(self, log: SqliteLog, topic: str, before: Mapping[int, int]) -> None:
        left = sum(log.spans(topic, [number])[number].next - offset for number, offset in before.items())
        log.retain(most_bytes=left)  # each message has one byte


class TestPartOfATenant(EventLogConformance):
    @pytest.fixture
    def whole(self, tmp_path: Path) -> Iterator[SqliteLog]:
        whole = SqliteLog(tmp_path / "state" / "streams.db")
        yield whole
        whole.close()

    @pytest.fixture
    def log(self, whole: SqliteLog) -> PrefixedErasingLog:
        return PrefixedErasingLog(whole, "acme..shop..")

    @pytest.fixture(autouse=True)
    def kept(self, whole: SqliteLog) -> None:
        self._whole = whole

    def forget(self, log: PrefixedErasingLog, topic: str, before: Mapping[int, int]) -> None:
        left = sum(log.spans(topic, [number])[number].next - offset for number, offset in before.items())
        self._whole.retain(most_bytes=left)


class TestKafka(EventLogConformance):
    """The broker creates a topic that is asked for, gives none more partitions, and ends the connection of one who
    asks it to forget: the adapter's part in these is tested in `test_log_kafka.py`."""

    many = 300  # each in a batch of its own: see `KafkaBroker`
    grows = False

    @pytest.fixture
    def log(self, kafka_log: KafkaLog) -> KafkaLog:
        return kafka_log


class TestNats(EventLogConformance):
    @pytest.fixture
    def log(self, nats_log: NatsLog) -> NatsLog:
        return nats_log

    def forget(self, log: NatsLog, topic: str, before: Mapping[int, int]) -> None:
        log.forget(topic, before)


class TestKinesis(EventLogConformance):
    many = 600  # more than one call writes
    groups = False
    remembers_its_end = False

    @pytest.fixture
    def log(self, kinesis_log: KinesisLog) -> KinesisLog:
        return kinesis_log

    @pytest.fixture(autouse=True)
    def _server(self, kinesis_server: KinesisServer) -> None:
        self.server = kinesis_server

    def forget(self, log: KinesisLog, topic: str, before: Mapping[int, int]) -> None:
        for number, offset in before.items():
            self.server.tell("trim", [topic, number, offset])
