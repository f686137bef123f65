"""Kinesis Data Streams: a topic is a stream, a partition a shard, and an offset the sequence number of its record.

Shards that were split or merged stay partitions until the retention removes them, and are read to their end before
those that follow them, by whichever workers (`streams.succession`). Kinesis does not tell the first and the last number
of a shard: both are found by reading. A shard that holds nothing begins and ends at offset 0.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from mainspring.core.errors import Denied, Invalid, MainspringError, Unavailable
from mainspring.core.object_store_url import IN_CLEAR, check_encrypted
from mainspring.core.settings import Url
from mainspring.core.time import from_datetime
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
from mainspring.data.streams.model import Message, NewMessage, OffsetGone, Span

_LARGEST_BYTES = 1 << 20  # of a record with its key, unless its stream allows more
_PUT_RECORDS, _PUT_BYTES = 500, 5 << 20  # of one call
_GET_RECORDS = 10_000  # of one call
_READS_AT_ONCE = 16
_END_CALLS = 3  # of a look whether a closed shard ends; it does where its iterator ends, which may be a few calls on
_PACE_S = 0.2  # a shard may be asked five times a second
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_MAKING_S = 120.0  # after which a stream that is made or split is given up
_LATE_MS = 23 * 3_600_000  # an hour less than the shortest retention: what is read next may be gone by then
_NEAR_S = 60.0  # before a shard's newest time: where its last record is looked for first
_OLDEST: tuple[str, dict[str, str]] = ("TRIM_HORIZON", {})
_KEYLESS = "-"  # partition key of messages without a key, whose shard is chosen by us
_OWN = b"\0mainspring\0"  # begins the data of messages for which Kinesis lacks a place
_REGION = re.compile(r"[a-z0-9-]+")
_BUSY = frozenset({
    "ProvisionedThroughputExceededException", "LimitExceededException", "ThrottlingException", "Throttling",
    "RequestLimitExceeded", "KMSThrottlingException",
})  # fmt: skip
_DENIED = frozenset({
    "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException",
    "InvalidClientTokenId", "MissingAuthenticationToken", "IncompleteSignature", "KMSAccessDeniedException",
})  # fmt: skip

_Packed = tuple[bytes | None, tuple[tuple[str, bytes], ...], int | None, bytes | None]  # key, headers, time, value
_packed = msgspec.msgpack.Encoder().encode
_unpacked = msgspec.msgpack.Decoder(_Packed).decode


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard: the first hash of its keys, and those that it followed. A closed one takes no more records."""

    id: str
    hash: str
    parents: tuple[int, ...]
    open: bool


@dataclass
class _Reader:
    """A shard that is read: its next offset, records that came and were not yet returned, where more are asked for."""

    next: int
    came: deque[Message] = field(default_factory=deque)
    iterator: str | None = None
    ended: bool = False
    idle: bool = False  # whether it had nothing more when it was last asked
    asked: float = 0.0

    def wants(self, limit: int, max_bytes: int, pace_s: float) -> bool:
        """Return whether more should be asked for: of an idle shard not again within `pace_s`."""
        if self.ended or (self.idle and time.monotonic() - self.asked < pace_s):
            return False
        return len(self.came) < limit and sum(len(each.value or b"") for each in self.came) < max_bytes


@dataclass(frozen=True, slots=True)
class _Page:
    """Records of a shard, the iterator after them, and how far the shard's newest time is away, ms."""

    records: Sequence[Mapping[str, Any]]
    iterator: str | None
    behind_ms: int


class KinesisLog:
    """Streams of a region: `kinesis://eu-central-1`, with `?endpoint=http://127.0.0.1:5000` for another service.

    Credentials come from the environment, as for Amazon's own tools.

    Raises:
        Invalid: The address has no region, or an unknown option, or would send data in clear to another machine.
    """

    def __init__(self, url: Url) -> None:
        options = options_of(url, ("endpoint", "largest_bytes", IN_CLEAR))
        self._region = urlsplit(url.text).netloc
        if not _REGION.fullmatch(self._region):
            raise Invalid(f"{url.shown} names no region.", fix="write kinesis://eu-central-1.")
        self._endpoint = options.get("endpoint")
        check_encrypted(url.shown, self._endpoint or "", in_clear=options.get(IN_CLEAR) == "true")
        self._shown, self._timeout_s = url.shown, timeout_of(options)
        self._largest = whole_option(options, "largest_bytes", _LARGEST_BYTES)
        self._lock = threading.RLock()
        self._client: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._shards: dict[str, dict[int, _Shard]] = {}
        self._readers: dict[tuple[str, int], _Reader] = {}
        self._ends: dict[tuple[str, int], int] = {}  # of ended shards: an offset from which on they hold nothing
        self._turn = 0

    def create(self, topic: str, partitions: int = 1) -> None:
        check_topic(topic, partitions)
        has = len(self._open(topic)) if topic in self.topics() else 0
        if has > partitions:
            raise fewer_partitions(topic, partitions, has)
        if not has:
            with suppress(_Told):  # another was faster
                self._call("create_stream", topic, told=("ResourceInUseException",),
                           StreamName=topic, ShardCount=partitions)  # fmt: skip
            has = self._made(topic)
        while has < partitions:
            wanted = min(partitions, 2 * has)  # of one call
            self._call("update_shard_count", topic, StreamName=topic, TargetShardCount=wanted,
                       ScalingType="UNIFORM_SCALING")  # fmt: skip
            has = self._made(topic)

    def topics(self) -> list[str]:
        found: list[str] = []
        while True:
            since = {"ExclusiveStartStreamName": found[-1]} if found else {}
            page = self._call("list_streams", Limit=1_000, **since)
            found += page["StreamNames"]
            if not page["HasMoreStreams"]:
                return sorted(found)

    def partitions(self, topic: str) -> list[int]:
        return sorted(self._listed(topic))

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        wanted = list(partitions)
        self._check(topic, wanted)
        return dict(zip(wanted, self._threads().map(lambda number: self._span(topic, number), wanted), strict=True))

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        self._check(topic, after)
        readers = {number: self._reader(topic, number, offset) for number, offset in after.items()}
        end = time.monotonic() + wait_s
        while True:
            ready = [number for number in readers if not self._waits(topic, number, readers)]
            pace_s = _PACE_S if any(readers[number].came for number in ready) else 0.0
            short = [number for number in ready if readers[number].wants(limit, max_bytes, pace_s)]
            list(self._threads().map(lambda number: self._fetch(topic, number, readers[number], limit), short))
            self._turn += 1
            ways = [_drained(readers[number].came) for number in ready]
            found = take_in_turns(ways, self._turn, limit, max_bytes)
            for message in found:
                readers[message.partition].next = message.offset + 1
            left = end - time.monotonic()
            idle = all(reader.ended or reader.idle for reader in readers.values())
            if found or (idle and left <= 0):
                return found
            if idle:
                time.sleep(min(left, _PACE_S))

    def parents(self, topic: str) -> dict[int, tuple[int, ...]]:
        shards = self._shards.get(topic) or self._listed(topic)
        return {number: shard.parents for number, shard in shards.items() if shard.parents}

    def emptied(self, topic: str, positions: Mapping[int, int]) -> set[int]:
        self._check(topic, positions)
        found = self._threads().map(lambda number: self._is_emptied(topic, number, positions[number]), positions)
        return {number for number, emptied in zip(positions, found, strict=True) if emptied}

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        """Write messages. Records of a call that were refused for their number are written after the others of it."""
        check_sizes(topic, messages, self._largest)
        self._check(topic, {each.partition for each in messages if each.partition is not None})
        places, begun = self._open(topic), time.monotonic_ns()
        records = [self._record(topic, each, places, begun + i) for i, each in enumerate(messages)]
        check_sizes(topic, [NewMessage(each["Data"], each["PartitionKey"].encode()) for each in records], self._largest)
        written: dict[int, tuple[int, int]] = {}
        waiting, pause_s, end = deque(range(len(records))), _FIRST_PAUSE_S, time.monotonic() + self._timeout_s
        while waiting:
            part = _part(records, waiting)
            told = self._call("put_records", topic, StreamName=topic, Records=[records[each] for each in part])
            failed: list[int] = []
            for place, each in zip(part, told["Records"], strict=True):
                if each.get("ErrorCode"):
                    failed.append(place)
                else:
                    written[place] = _number(each["ShardId"]), int(each["SequenceNumber"])
            waiting.extendleft(reversed(failed))
            if len(failed) < len(part):
                end = time.monotonic() + self._timeout_s
            elif time.monotonic() + pause_s > end:
                raise Unavailable(f"The log {self._shown} took no message of topic {topic!r}: it has too many.")
            pause_s = self._pause(pause_s) if failed else _FIRST_PAUSE_S
        return [written[each] for each in range(len(records))]

    def committed(self, topic: str, group: str) -> dict[int, int]:  # noqa: ARG002
        return {}  # Kinesis has no groups

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        pass

    def retention(self, topic: str) -> str:
        told = self._call("describe_stream_summary", topic, StreamName=topic)["StreamDescriptionSummary"]
        return f"they stay for {told['RetentionPeriodHours']} hours"

    def close(self) -> None:
        with self._lock:
            client, pool, self._client, self._pool = self._client, self._pool, None, None
            self._readers.clear()
            self._shards.clear()
            self._ends.clear()
        if pool is not None:
            pool.shutdown()
        if client is not None:
            client.close()

    # Shards

    def _listed(self, topic: str) -> dict[int, _Shard]:
        asked: dict[str, Any] = {"StreamName": topic}
        shards: dict[int, _Shard] = {}
        while asked:
            page = self._call("list_shards", topic, **asked)
            for each in page["Shards"]:
                parents = (each.get("ParentShardId"), each.get("AdjacentParentShardId"))
                shards[_number(each["ShardId"])] = _Shard(
                    each["ShardId"],
                    each["HashKeyRange"]["StartingHashKey"],
                    tuple(_number(parent) for parent in parents if parent),
                    "EndingSequenceNumber" not in each["SequenceNumberRange"],
                )
            asked = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
        self._shards[topic] = shards
        return shards

    def _open(self, topic: str) -> list[int]:
        """Return the partitions that can be written to."""
        return sorted(number for number, each in self._listed(topic).items() if each.open)

    def _check(self, topic: str, partitions: Iterable[int]) -> None:
        """Raise `NotFound` unless the topic has these partitions."""
        shards, wanted = self._shards.get(topic), list(partitions)
        if shards is None or any(number not in shards for number in wanted):
            shards = self._listed(topic)
        for number in wanted:
            if number not in shards:
                raise unknown_partition(topic, number, len(shards))

    def _made(self, topic: str) -> int:
        """Wait until a stream is made or changed; return the number of its open shards."""
        end = time.monotonic() + _MAKING_S
        while True:
            told = self._call("describe_stream_summary", topic, StreamName=topic)["StreamDescriptionSummary"]
            if told["StreamStatus"] == "ACTIVE":
                return len(self._open(topic))
            if time.monotonic() > end:
                raise Unavailable(f"The log {self._shown} has not made topic {topic!r} within {_MAKING_S:g} s.")
            time.sleep(0.5)

    def _span(self, topic: str, number: int) -> Span:
        oldest = self._page(topic, self._iterator(topic, number, "TRIM_HORIZON"), 1)
        if not oldest.records:
            return Span(0, 0, counts=False)
        newest = self._newest(topic, number, oldest)
        return Span(int(oldest.records[0]["SequenceNumber"]), newest + 1, counts=False)

    def _newest(self, topic: str, number: int, oldest: _Page) -> int:
        """Return a shard's last sequence number: halve the time in which its record came, then read to the end."""
        newest = oldest.records[-1]
        begin = newest["ApproximateArrivalTimestamp"].timestamp()
        end = begin + oldest.behind_ms / 1_000 + 1
        at = max(begin, end - _NEAR_S)
        while end - begin > 2:
            page = self._page(topic, self._iterator(topic, number, "AT_TIMESTAMP", Timestamp=at))
            if page.records:
                newest = page.records[-1]
                begin = max(at, newest["ApproximateArrivalTimestamp"].timestamp())
                if not page.behind_ms:
                    break
            else:
                end = at
            at = (begin + end) / 2
        after: str | None = self._iterator(
            topic, number, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=newest["SequenceNumber"]
        )
        while (page := self._page(topic, after)).records:
            newest, after = page.records[-1], page.iterator
        return int(newest["SequenceNumber"])

    def _is_emptied(self, topic: str, number: int, offset: int) -> bool:
        known = self._ends.get((topic, number))
        if known is not None and offset >= known:
            return True
        try:
            asked = ("AFTER_SEQUENCE_NUMBER", {"StartingSequenceNumber": str(offset - 1)}) if offset else _OLDEST
            iterator: str | None = self._iterator(topic, number, asked[0], **asked[1])
        except _Told:  # no record ever had that number
            return offset >= self._span(topic, number).next
        for _ in range(_END_CALLS):
            page = self._page(topic, iterator, 1)
            if page.records:
                return False
            if page.iterator is None:
                self._ends[topic, number] = offset
                return True
            iterator = page.iterator
        return False

    # Reading

    def _reader(self, topic: str, number: int, offset: int) -> _Reader:
        reader = self._readers.get((topic, number))
        if reader is None or reader.next != offset:
            reader = self._readers[topic, number] = _Reader(offset)
        return reader

    def _waits(self, topic: str, number: int, readers: Mapping[int, _Reader]) -> bool:
        """Return whether a shard that is read along with this one comes before it, and is not read to its end."""
        parents = self._shards[topic][number].parents
        return any(each in readers and not (readers[each].ended and not readers[each].came) for each in parents)

    def _fetch(self, topic: str, number: int, reader: _Reader, limit: int) -> None:
        reader.asked = time.monotonic()
        if reader.iterator is None:
            page = self._begin(topic, number, reader.came[-1].offset + 1 if reader.came else reader.next)
        else:
            try:
                page = self._page(topic, reader.iterator, min(max(limit, _PUT_RECORDS), _GET_RECORDS))
            except _Told:  # no one read for five minutes
                reader.iterator, reader.idle = None, False
                return
            except MainspringError:
                reader.iterator = None  # the stream may be another by now
                raise
        reader.came.extend(_message(number, each) for each in page.records)
        reader.iterator, reader.ended = page.iterator, page.iterator is None
        reader.idle = not page.behind_ms
        if page.behind_ms > _LATE_MS and page.records:
            reader.iterator = None  # whether the next one is there is looked at each time

    def _begin(self, topic: str, number: int, offset: int) -> _Page:
        """Return the first records from an offset on, if the one before it is in the shard or it is itself.

        Kinesis goes on silently at the oldest record that it has.
        """
        if offset == 0:
            return self._page(topic, self._iterator(topic, number, "TRIM_HORIZON"))
        for start in (offset - 1, offset):
            with suppress(_Told):  # numbers that no record ever had are refused
                asked = {"StartingSequenceNumber": str(start)}
                page = self._page(topic, self._iterator(topic, number, "AT_SEQUENCE_NUMBER", **asked))
                found = [int(each["SequenceNumber"]) for each in page.records[:1]]
                if found in ([offset - 1], [offset]):
                    kept = page.records[found[0] < offset :]
                    return _Page(kept, page.iterator, page.behind_ms)
        span = self._span(topic, number)
        check_offset(topic, number, offset, span)
        raise OffsetGone(topic, number, offset, span.first)

    def _iterator(self, topic: str, number: int, kind: str, **more: Any) -> str:
        iterator: str = self._call(
            "get_shard_iterator", topic, told=("InvalidArgumentException",), StreamName=topic,
            ShardId=self._shards[topic][number].id, ShardIteratorType=kind, **more,
        )["ShardIterator"]  # fmt: skip
        return iterator

    def _page(self, topic: str, iterator: str | None, limit: int = _GET_RECORDS) -> _Page:
        """Return the next records; none only at the end that the shard has now."""
        while iterator is not None:
            found = self._call("get_records", topic, told=("ExpiredIteratorException",),
                               ShardIterator=iterator, Limit=limit)  # fmt: skip
            iterator = found.get("NextShardIterator")
            if found["Records"] or not found["MillisBehindLatest"]:
                return _Page(found["Records"], iterator, found["MillisBehindLatest"])
        return _Page((), None, 0)

    # Writing

    def _record(self, topic: str, message: NewMessage, places: Sequence[int], otherwise: int) -> dict[str, Any]:
        key, value = message.key, message.value
        text = _KEYLESS if key is None else _text(key)
        if value is None or text is None or message.headers or message.at is not None or value.startswith(_OWN):
            value = _OWN + _packed((key, message.headers, message.at, value))
        record: dict[str, Any] = {"Data": value, "PartitionKey": text or hashlib.sha256(key or b"").hexdigest()}
        if message.partition is not None or key is None:
            place = places[otherwise % len(places)] if message.partition is None else message.partition
            if place not in places:
                raise Invalid(
                    f"Partition {place} of topic {topic!r} is closed: its shard was split or merged.",
                    fix=f"write to one of {places}.",
                )
            record["ExplicitHashKey"] = self._shards[topic][place].hash
        return record

    # Calls

    def _call(self, name: str, topic: str = "", *, told: Sequence[str] = (), **given: Any) -> dict[str, Any]:
        """Call an operation of the service, again while it is busy or away.

        Raises:
            _Told: Its error's code is one of `told`.
        """
        end, pause_s = time.monotonic() + self._timeout_s, _FIRST_PAUSE_S
        while True:
            try:
                found: dict[str, Any] = getattr(self._connected(), name)(**given)
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if code in told:
                    raise _Told(f"The log {self._shown} failed: {error}.") from error
                fault = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
                if code not in _BUSY and not (fault and name != "put_records"):
                    raise self._failed(error, code, topic) from error
                failure: Exception = error
            except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
                raise Denied(
                    f"The log {self._shown} has no credentials: {error}.", fix="set AWS_ACCESS_KEY_ID and its secret."
                ) from error
            except BotoCoreError as error:
                failure = error
                if name == "put_records":  # it may have been written
                    end = 0.0
            else:
                return found
            if time.monotonic() + pause_s > end:
                raise Unavailable(f"The log {self._shown} failed: {failure}.") from failure
            pause_s = self._pause(pause_s)

    def _failed(self, error: ClientError, code: str, topic: str) -> MainspringError:
        said = error.response.get("Error", {}).get("Message") or code
        if code == "ResourceNotFoundException":
            return unknown_topic(topic)
        if code in _DENIED:
            return Denied(f"The log {self._shown} refused: {said}.", fix="correct the credentials or their rights.")
        if code in ("ValidationException", "InvalidArgumentException"):
            return Invalid(f"The log {self._shown} cannot do this: {said}.", fix="use Amazon's own tools.")
        return Unavailable(f"The log {self._shown} failed: {said}.")

    @staticmethod
    def _pause(pause_s: float) -> float:
        """Wait, and return how long to wait the next time."""
        time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  (a pause is no secret)
        return min(2 * pause_s, _LONGEST_PAUSE_S)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                config = Config(
                    connect_timeout=self._timeout_s, read_timeout=self._timeout_s, user_agent_extra="mainspring",
                    retries={"total_max_attempts": 1}, max_pool_connections=_READS_AT_ONCE,
                )  # fmt: skip
                self._client = boto3.session.Session().client(
                    "kinesis", region_name=self._region, endpoint_url=self._endpoint, config=config
                )
            return self._client

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_READS_AT_ONCE, "kinesis")
            return self._pool


class _Told(Unavailable):
    """An error of the service that the caller expects."""


def _number(shard: str) -> int:
    return int(shard.rpartition("-")[2])


def _text(key: bytes) -> str | None:
    """Return a key as Kinesis takes it; None if it cannot."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return text if 0 < len(text) <= 256 and text != _KEYLESS else None


def _part(records: Sequence[Mapping[str, Any]], waiting: deque[int]) -> list[int]:
    """Take from the front what one call may write."""
    part: list[int] = []
    size = 0
    while waiting and len(part) < _PUT_RECORDS:
        record = records[waiting[0]]
        size += len(record["Data"]) + len(record["PartitionKey"].encode())
        if part and size > _PUT_BYTES:
            break
        part.append(waiting.popleft())
    return part


def _message(number: int, record: Mapping[str, Any]) -> Message:
    data, arrived = record["Data"], from_datetime(record["ApproximateArrivalTimestamp"])
    offset = int(record["SequenceNumber"])
    if data.startswith(_OWN):
        key, headers, at, value = _unpacked(data[len(_OWN) :])
        return Message(number, offset, key, value, arrived if at is None else at, headers)
    key = None if record["PartitionKey"] == _KEYLESS else record["PartitionKey"].encode()
    return Message(number, offset, key, data, arrived)


def _drained(waiting: deque[Message]) -> Iterator[Message]:
    while waiting:
        yield waiting.popleft()
