"""Kafka, and brokers that speak its protocol, through librdkafka.

Partitions are assigned, never subscribed to: offsets and rebalancing are the reader's own. Topics are only asked for by
listing all of them, because a broker may create a topic that is asked for by its name.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

from mainspring.core.errors import Denied, Invalid, TooLarge, Unavailable
from mainspring.core.settings import Url
from mainspring.data.streams.addresses import options_of, timeout_of, whole_option
from mainspring.data.streams.limits import (
    check_offset,
    check_sizes,
    check_topic,
    fewer_partitions,
    take_in_turns,
    unknown_partition,
    unknown_topic,
)
from mainspring.data.streams.model import Message, NewMessage, Span

_PASSED_ON = (
    "security.protocol", "sasl.mechanism", "ssl.ca.location", "ssl.certificate.location", "ssl.key.location",
    "client.id", "compression.type", "linger.ms", "batch.num.messages",
)  # fmt: skip
_OWN = ("largest_bytes", "replicas")
_LARGEST_BYTES = 1_000_000  # a broker's default, less its overhead
_OVERHEAD_BYTES = 1 << 10  # of a message in its batch
_AT_ONCE = 500  # messages taken from librdkafka's queue
_LOOK_S = 2.0  # between two looks at whether an idle log is there, and as long as it was
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_DENIED = (
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
)  # fmt: skip
_OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


@dataclass
class _Reader:
    """A topic's consumer: what it was told to read next, and messages that were fetched and not yet returned."""

    consumer: Consumer
    nexts: dict[int, int] = field(default_factory=dict)
    fetched: dict[int, deque[Message]] = field(default_factory=dict)
    turn: int = 0
    looked: float = 0.0


class KafkaLog:
    """Topics of a cluster: `kafka://user:password@host:9092,host:9092?security.protocol=SASL_SSL`.

    Raises:
        Invalid: The address has an unknown option.
    """

    def __init__(self, url: Url) -> None:
        options = options_of(url, (*_PASSED_ON, *_OWN))
        parts = urlsplit(url.text)
        self._shown = url.shown
        self._timeout_s = timeout_of(options)
        self._largest = whole_option(options, "largest_bytes", _LARGEST_BYTES)
        self._replicas = whole_option(options, "replicas", 1) if "replicas" in options else -1
        self._common: dict[str, Any] = {
            "bootstrap.servers": parts.netloc.rpartition("@")[2],
            "socket.timeout.ms": int(self._timeout_s * 1_000),
            "socket.connection.setup.timeout.ms": max(1_000, int(self._timeout_s * 1_000)),
            "client.id": "mainspring",
            "log_level": 2,  # what fails is raised
            **({"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"} if parts.username else {}),
            **{name: value for name, value in options.items() if name in _PASSED_ON[:6]},
        }
        if parts.username:
            self._common |= {"sasl.username": unquote(parts.username), "sasl.password": unquote(parts.password or "")}
        self._producing = {name: value for name, value in options.items() if name in _PASSED_ON[6:]}
        self._lock = threading.RLock()
        self._readers: dict[str, _Reader] = {}
        self._counts: dict[str, int] = {}  # topic -> number of partitions, as it was last seen
        self._producer: Producer | None = None
        self._admin: AdminClient | None = None
        self._said = ""  # the newest error of a connection

    def create(self, topic: str, partitions: int = 1) -> None:
        check_topic(topic, partitions)
        has = self._listed().get(topic, 0)
        if has > partitions:
            raise fewer_partitions(topic, partitions, has)
        if has == partitions:
            return
        admin = self._client()
        if has:
            asked = admin.create_partitions([NewPartitions(topic, partitions)], request_timeout=self._timeout_s)
        else:
            new = NewTopic(topic, partitions, self._replicas)
            asked = admin.create_topics([new], request_timeout=self._timeout_s)
        try:
            asked[topic].result(self._timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another was faster
                self._fail(error.args[0], topic)
        except TimeoutError as error:
            raise self._silent() from error
        self._await(lambda: self._listed().get(topic, 0) >= partitions)

    def topics(self) -> list[str]:
        return sorted(name for name in self._listed() if not name.startswith("__"))  # those are the broker's own

    def partitions(self, topic: str) -> list[int]:
        return list(range(self._count(topic, fresh=True)))

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        wanted = list(partitions)
        self._check(topic, wanted)
        edges = [
            self._client().list_offsets(
                {TopicPartition(topic, number): spec() for number in wanted}, request_timeout=self._timeout_s
            )
            for spec in (OffsetSpec.earliest, OffsetSpec.latest)
        ]
        try:
            first, next_ = (
                {place.partition: asked.result(self._timeout_s).offset for place, asked in edge.items()}
                for edge in edges
            )
        except KafkaException as error:
            self._fail(error.args[0], topic)
        except TimeoutError as error:
            raise self._silent() from error
        if any(
            offset < 0 for edge in (first, next_) for offset in edge.values()
        ):  # librdkafka gave up, and says so thus
            raise self._silent()
        return {number: Span(first[number], next_[number]) for number in wanted}

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        self._check(topic, after)
        reader = self._reader(topic)
        self._place(topic, reader, after)
        end = time.monotonic() + wait_s
        while True:
            self._take(topic, reader, limit, max_bytes, min(max(0.0, end - time.monotonic()), _LOOK_S))
            reader.turn += 1
            ways = [_drained(reader.fetched[number]) for number in after if reader.fetched.get(number)]
            found = take_in_turns(ways, reader.turn, limit, max_bytes)
            for message in found:
                reader.nexts[message.partition] = message.offset + 1
            if found:
                return found
            self._look(topic, reader)
            if time.monotonic() >= end:
                return []

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        check_sizes(topic, messages, self._largest)
        self._check(topic, {each.partition for each in messages if each.partition is not None})
        told: list[Any] = [None] * len(messages)
        producer = self._writer()

        def keep(place: int) -> Callable[[Any, Any], None]:
            def tell(error: Any, message: Any) -> None:
                told[place] = error or (message.partition(), message.offset())

            return tell

        try:
            for place, message in enumerate(messages):
                self._send(producer, topic, message, keep(place))
            producer.flush(self._timeout_s + 1)
        except KafkaException as error:
            self._forget_producer()
            self._fail(error.args[0], topic)
        for each in told:
            if isinstance(each, tuple):
                continue
            self._forget_producer()
            if each is None:
                raise self._silent()
            self._fail(each, topic)
        return told

    def committed(self, topic: str, group: str) -> dict[int, int]:
        with self._member(group) as consumer:
            places = [TopicPartition(topic, number) for number in self.partitions(topic)]
            found = consumer.committed(places, timeout=self._timeout_s)
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        places = [TopicPartition(topic, number, offset) for number, offset in offsets.items()]
        with self._member(group) as consumer:
            consumer.commit(offsets=places, asynchronous=False)

    def retention(self, topic: str) -> str:
        self._count(topic)
        asked = self._client().describe_configs(
            [ConfigResource(ResourceType.TOPIC, topic)], request_timeout=self._timeout_s
        )
        try:
            (found,) = (each.result(self._timeout_s) for each in asked.values())
        except KafkaException as error:
            self._fail(error.args[0], topic)
        except TimeoutError as error:
            raise self._silent() from error
        return kept_for({name: str(each.value) for name, each in found.items()})

    def close(self) -> None:
        with self._lock:
            for reader in self._readers.values():
                reader.consumer.close()
            self._readers.clear()
            self._counts.clear()
            self._producer = self._admin = None

    def _send(self, producer: Producer, topic: str, message: NewMessage, told: Callable[[Any, Any], None]) -> None:
        where = {} if message.partition is None else {"partition": message.partition}
        when = {} if message.at is None else {"timestamp": message.at // 1_000}
        end = time.monotonic() + self._timeout_s
        while True:
            try:
                producer.produce(
                    topic, message.value, message.key, on_delivery=told, headers=list(message.headers), **where, **when
                )
            except BufferError as error:  # its queue is full
                if time.monotonic() > end:
                    raise self._silent() from error
                producer.poll(0.1)
            else:
                return

    def _place(self, topic: str, reader: _Reader, after: Mapping[int, int]) -> None:
        """Let the consumer read the partitions of `after`, each from its offset."""
        moved = {number: offset for number, offset in after.items() if reader.nexts.get(number) != offset}
        if not moved and reader.nexts.keys() == after.keys():
            return
        for number, span in self.spans(topic, moved).items() if moved else ():
            check_offset(topic, number, moved[number], span)
        left = [number for number in reader.nexts if number not in after]
        known = [TopicPartition(topic, number) for number in (*left, *moved) if number in reader.nexts]
        try:
            if known:
                reader.consumer.incremental_unassign(known)
            if moved:
                reader.consumer.incremental_assign([TopicPartition(topic, *each) for each in moved.items()])
        except KafkaException as error:
            self._fail(error.args[0], topic)
        for number in left:
            del reader.nexts[number]
        reader.nexts |= moved
        for number in (*left, *moved):
            reader.fetched.pop(number, None)

    def _take(self, topic: str, reader: _Reader, limit: int, max_bytes: int, wait_s: float) -> None:
        """Take what librdkafka has fetched, until there is enough for one read."""
        count = sum(map(len, reader.fetched.values()))
        size = sum(len(each.value or b"") for waiting in reader.fetched.values() for each in waiting)
        if count >= max(limit, _AT_ONCE) or size >= max_bytes:
            return
        first = None if count else reader.consumer.poll(wait_s)
        found = [] if first is None else [first]
        found += reader.consumer.consume(_AT_ONCE, 0.0)
        while found:
            for each in found:
                if each.error() is not None:
                    self._failed_read(topic, reader, each.error())
                    continue
                message = _message(each)
                if message.partition in reader.nexts and message.offset >= reader.nexts[message.partition]:
                    reader.fetched.setdefault(message.partition, deque()).append(message)
                    count += 1
                    size += len(message.value or b"")
            found = [] if count >= limit or size >= max_bytes else reader.consumer.consume(_AT_ONCE, 0.0)

    def _failed_read(self, topic: str, reader: _Reader, error: KafkaError) -> None:
        if error.code() in _OUT_OF_RANGE:
            wanted = dict(reader.nexts)
            self._drop(topic)
            for number, span in self.spans(topic, wanted).items():
                check_offset(topic, number, wanted[number], span)
            raise Unavailable(f"The log {self._shown} lost offsets of topic {topic!r} while they were read.")
        if error.code() in _GONE or error.code() in _DENIED or error.fatal():
            self._drop(topic)
            self._fail(error, topic)
        self._said = error.str()  # librdkafka tries again; `_look` tells if it does so in vain

    def _look(self, topic: str, reader: _Reader) -> None:
        """Raise if an idle log does not answer, or no longer has what was to be read next."""
        if time.monotonic() - reader.looked < _LOOK_S:
            return
        reader.looked = time.monotonic()
        self._count(topic, fresh=True)
        for number, span in self.spans(topic, reader.nexts).items():
            check_offset(topic, number, reader.nexts[number], span)

    def _reader(self, topic: str) -> _Reader:
        with self._lock:
            if topic not in self._readers:
                self._readers[topic] = _Reader(Consumer(self._consuming("mainspring")), looked=time.monotonic())
            return self._readers[topic]

    def _drop(self, topic: str) -> None:
        with self._lock:
            self._counts.pop(topic, None)
            reader = self._readers.pop(topic, None)
        if reader is not None:
            reader.consumer.close()

    def _consuming(self, group: str) -> dict[str, Any]:
        return {
            **self._common, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "error",
            "enable.auto.offset.store": False, "fetch.wait.max.ms": 100, "fetch.error.backoff.ms": 100,
            "queued.max.messages.kbytes": 32 << 10, "isolation.level": "read_committed", "error_cb": self._hear,
            "fetch.message.max.bytes": max(1 << 20, self._largest + _OVERHEAD_BYTES),
        }  # fmt: skip

    def _writer(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer({
                    **self._common, "enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random",
                    "message.timeout.ms": int(self._timeout_s * 1_000), "linger.ms": 0, "error_cb": self._hear,
                    "message.max.bytes": self._largest + _OVERHEAD_BYTES, **self._producing,
                })  # fmt: skip
            return self._producer

    def _forget_producer(self) -> None:
        with self._lock:
            if self._producer is not None:
                self._producer.purge()
            self._producer = None

    def _client(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = AdminClient({**self._common, "error_cb": self._hear})
            return self._admin

    def _member(self, group: str) -> _Member:
        return _Member(self, Consumer(self._consuming(group)))

    def _hear(self, error: KafkaError) -> None:
        self._said = error.str()

    def _listed(self) -> dict[str, int]:
        """Return topic -> number of its partitions."""
        try:
            found = self._client().list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            self._fail(error.args[0], "")
        counts = {name: len(each.partitions) for name, each in found.items() if each.error is None}
        with self._lock:
            self._counts = counts
        return counts

    def _count(self, topic: str, *, fresh: bool = False) -> int:
        if not fresh and topic in self._counts:
            return self._counts[topic]
        found = self._listed()
        if topic not in found:
            raise unknown_topic(topic)
        return found[topic]

    def _check(self, topic: str, partitions: Iterable[int]) -> None:
        """Raise `NotFound` unless the topic has these partitions."""
        count, wanted = self._count(topic), list(partitions)
        if any(not 0 <= number < count for number in wanted):
            count = self._count(topic, fresh=True)  # it may have got more
        for number in wanted:
            if not 0 <= number < count:
                raise unknown_partition(topic, number, count)

    def _await(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + self._timeout_s
        while not done():
            if time.monotonic() > end:
                raise self._silent()
            time.sleep(0.05)

    def _silent(self) -> Unavailable:
        said = f" ({self._said})" if self._said else ""
        return Unavailable(f"The log {self._shown} did not answer within {self._timeout_s:g} s{said}.")

    def _fail(self, error: KafkaError, topic: str) -> NoReturn:
        """Raise the error of this package for one of librdkafka's."""
        code = error.code()
        if code in _GONE:
            self._counts.pop(topic, None)
            raise unknown_topic(topic)
        if code in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
            raise TooLarge(
                f"The log {self._shown} allows smaller messages than one for topic {topic!r}: {error.str()}.",
                fix="raise max.message.bytes of the topic, or lower largest_bytes in the address.",
            )
        if code in _DENIED:
            raise Denied(
                f"The log {self._shown} refused: {error.str()}.", fix="correct the user, the password or the rights."
            )
        if code in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
            raise Invalid(f"The log {self._shown} cannot do this: {error.str()}.", fix="use the broker's own tools.")
        said = f" ({self._said})" if self._said and code == KafkaError._TIMED_OUT else ""
        raise Unavailable(f"The log {self._shown} failed: {error.str()}{said}.", fix="check that the broker runs.")


def kept_for(config: Mapping[str, str]) -> str:
    """Return how long a topic with a configuration keeps messages; empty if that does not say so.

    A segment is deleted once its newest message is old enough, and only after it was closed.
    """
    if "retention.ms" not in config:
        return ""
    age, segment = int(config["retention.ms"]), int(config.get("segment.ms", 0))
    policy = config.get("cleanup.policy", "delete").split(",")
    told = ["the newest of each key stays until a tombstone is written for it"] if "compact" in policy else []
    if "delete" in policy and age >= 0:
        told.append(f"they stay for {_hours(age)}, and until their segment is closed, up to {_hours(segment)} more")
    elif "delete" in policy:
        size = int(config.get("retention.bytes", -1))
        told.append("they stay for ever" if size < 0 else f"they stay until their partition has more than {size} bytes")
    return "; ".join(told)


def _hours(ms: int) -> str:
    hours = ms / 3_600_000
    return f"{hours / 24:g} days" if hours >= 24 else f"{hours:g} hours"


@dataclass
class _Member:
    """Context of a consumer that only names its group."""

    log: KafkaLog
    consumer: Consumer

    def __enter__(self) -> Consumer:
        return self.consumer

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        self.consumer.close()
        if isinstance(error, KafkaException):
            self.log._fail(error.args[0], "")


def _drained(waiting: deque[Message]) -> Iterator[Message]:
    while waiting:
        yield waiting.popleft()


def _message(found: Any) -> Message:
    headers = tuple((name, value or b"") for name, value in found.headers() or ())
    return Message(found.partition(), found.offset(), found.key(), found.value(), found.timestamp()[1] * 1_000, headers)
