"""What is particular to Kinesis: shards that are split, records that it refuses, empty pages, records that expire."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import boto3
import pytest

from kit.object_store import ENVIRONMENT
from kit.servers import KinesisServer
from kit.waiting import free_port
from mainspring.core.errors import Denied, Invalid, NotFound, TooLarge, Unavailable
from mainspring.core.settings import Url
from mainspring.data.adapters.log_kinesis import KinesisLog
from mainspring.data.streams.conformance import messages, read_all, starts
from mainspring.data.streams.model import Message, NewMessage, OffsetAhead, OffsetGone


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def _well_behaved(kinesis_server: KinesisServer) -> Iterator[None]:
    """Other tests of this process use the server, too."""
    yield
    for what, usual in (("refuse", []), ("busy", 0), ("linger", 0), ("pages", 10_000)):
        kinesis_server.tell(what, usual)


# A client takes half a second to make.
@pytest.fixture(scope="module")
def log(kinesis_server: KinesisServer) -> Iterator[KinesisLog]:
    log = KinesisLog(kinesis_server.url)
    yield log
    log.close()


@pytest.fixture(scope="module")
def hasty(kinesis_server: KinesisServer) -> Iterator[KinesisLog]:
    log = KinesisLog(Url(f"{kinesis_server.url.text}&timeout=1s"))
    yield log
    log.close()


@pytest.fixture(scope="module")
def client(kinesis_server: KinesisServer) -> Iterator[boto3.client]:
    address = f"http://127.0.0.1:{kinesis_server.port}"
    client = boto3.client("kinesis", region_name="eu-central-1", endpoint_url=address)
    yield client
    client.close()


def _each(log: KinesisLog, topic: str, after: Mapping[int, int], limit: int) -> Iterator[Message]:
    wanted = dict(after)
    while found := log.read(topic, wanted, limit=limit):
        for message in found:
            wanted[message.partition] = message.offset + 1
            yield message


def test_a_shard_is_read_to_its_end_before_those_that_follow_it(log: KinesisLog) -> None:
    log.create("split", 1)
    for number, shards in enumerate((2, 4, 4)):
        begin = 20 * number
        log.produce(
            "split", [NewMessage(str(each).encode(), f"key-{each % 9}".encode()) for each in range(begin, begin + 20)]
        )
        log.create("split", shards)
    assert log.partitions("split") == [0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(Invalid, match="Partition 0 of topic 'split' is closed"):
        log.produce("split", messages(1))
    for limit in (3, 500):
        found = list(_each(log, "split", starts(log, "split"), limit))
        assert sorted(int(each.value or b"") for each in found) == list(range(60))
        for key in {each.key for each in found}:
            numbers = [int(each.value or b"") for each in found if each.key == key]
            assert numbers == sorted(numbers)
    last = {number: span.next for number, span in log.spans("split", log.partitions("split")).items()}
    assert log.read("split", last, limit=5) == []
    assert log.parents("split") == {1: (0,), 2: (0,), 3: (1,), 4: (1,), 5: (2,), 6: (2,)}
    for _ in range(2):  # what is known is not asked for again
        assert log.emptied("split", last) == {0, 1, 2}  # the others are not closed
    assert log.emptied("split", {0: last[0] - 1, 1: 0, 2: last[2] + 5}) == {2}
    with pytest.raises(Invalid, match="4 partitions"):
        log.create("split", 3)


def test_a_closed_shard_ends_where_its_iterator_does(log: KinesisLog, kinesis_server: KinesisServer) -> None:
    log.create("closing", 1)
    ((_, offset),) = log.produce("closing", messages(1))
    log.create("closing", 2)
    kinesis_server.tell("linger", 100)  # as Amazon's before it shows the last records
    assert log.emptied("closing", {0: offset + 1}) == set()
    kinesis_server.tell("linger", 2)
    assert log.emptied("closing", {0: offset + 1}) == {0}


def test_records_that_are_refused_are_written_again(log: KinesisLog, kinesis_server: KinesisServer) -> None:
    log.create("refused", 2)
    first = starts(log, "refused")
    kinesis_server.tell("refuse", [7, 3, 0, 1])
    places = log.produce("refused", [NewMessage(str(each).encode()) for each in range(620)])
    found = read_all(log, "refused", first, 620)
    assert {(each.partition, each.offset): each.value for each in found} == {
        place: str(number).encode() for number, place in enumerate(places)
    }
    assert len(found) == len(set(places)) == 620


def test_a_stream_that_has_too_many_calls_is_asked_again(
    log: KinesisLog, hasty: KinesisLog, kinesis_server: KinesisServer
) -> None:
    log.create("busy")
    first = starts(log, "busy")
    kinesis_server.tell("busy", 3)
    log.produce("busy", messages(2))
    kinesis_server.tell("busy", 3)
    assert len(read_all(log, "busy", first, 2)) == 2
    kinesis_server.tell("busy", 1_000)
    for call in (lambda: hasty.produce("busy", messages(1)), lambda: hasty.read("busy", first, limit=1)):
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="Rate exceeded"):
            call()
        assert time.monotonic() - begun < 8
    kinesis_server.tell("busy", 0)
    kinesis_server.tell("refuse", [500] * 100)  # all but the first record of a call
    log.produce("busy", messages(3))
    kinesis_server.tell("refuse", [])
    assert len(read_all(log, "busy", first, 5)) == 5


def test_calls_keep_to_the_bytes_that_one_may_have(log: KinesisLog) -> None:
    log.create("large")
    first = starts(log, "large")
    log.produce("large", [NewMessage(bytes([each]) * 1_000_000, partition=0) for each in range(6)])
    found = read_all(log, "large", first, 6)
    assert [each.value for each in found] == [bytes([each]) * 1_000_000 for each in range(6)]
    largest = (1 << 20) - len("ana")
    log.produce("large", [NewMessage(b"x" * largest, b"ana")])
    with pytest.raises(TooLarge, match="1048577 bytes; its log allows 1048576"):
        log.produce("large", [NewMessage(b"x" * (largest + 1), b"ana")])
    with pytest.raises(TooLarge, match="its log allows 1048576"):  # with what Kinesis has no place for
        log.produce("large", [NewMessage(b"x" * largest, b"ana", at=1)])


def test_other_clients_see_plain_messages_and_theirs_are_read(log: KinesisLog, client: boto3.client) -> None:
    log.create("theirs")
    first = starts(log, "theirs")
    log.produce("theirs", [NewMessage(b"{}", b"ana"), NewMessage(b"{}"), NewMessage(b"{}", b"-")])
    client.put_record(StreamName="theirs", Data=b"plain", PartitionKey="bob")
    iterator = client.get_shard_iterator(
        StreamName="theirs", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    told = client.get_records(ShardIterator=iterator)["Records"]
    assert [(each["PartitionKey"], each["Data"]) for each in told[:2]] == [("ana", b"{}"), ("-", b"{}")]
    found = read_all(log, "theirs", first, 4)
    assert [(each.key, each.value) for each in found] == [
        (b"ana", b"{}"), (None, b"{}"), (b"-", b"{}"), (b"bob", b"plain")
    ]  # fmt: skip


def test_empty_pages_are_no_end(log: KinesisLog, kinesis_server: KinesisServer) -> None:
    log.create("pages", 2)
    first = starts(log, "pages")
    places = log.produce("pages", messages(20) + messages(20, partition=1))
    kinesis_server.tell("pages", 3)
    assert sorted(int(each.value or b"") for each in _each(log, "pages", first, 500)) == sorted([*range(20)] * 2)
    assert log.spans("pages", [0])[0].next == max(offset for place, offset in places if place == 0) + 1
    kinesis_server.tell("pages", 10_000)


@pytest.mark.parametrize("pages", [10_000, 4])
def test_the_end_of_a_shard_whose_records_are_old(pages: int, log: KinesisLog, kinesis_server: KinesisServer) -> None:
    topic = f"old-{pages}"
    log.create(topic)
    places = log.produce(topic, messages(60))
    kinesis_server.tell("age", [topic, 0, [36_000 + 700.0 * (60 - each) for each in range(60)]])
    kinesis_server.tell("pages", pages)
    span = log.spans(topic, [0])[0]
    assert (span.first, span.next) == (places[0][1], places[-1][1] + 1)
    assert (span.lag(span.next), span.lag(span.first)) == (0, 1)
    kinesis_server.tell("pages", 10_000)


def test_what_expires_is_told_to_a_reader_that_has_not_read_it(log: KinesisLog, kinesis_server: KinesisServer) -> None:
    log.create("expires")
    first = starts(log, "expires")
    places = log.produce("expires", messages(10))
    assert len(read_all(log, "expires", first, 10)) == 10
    after = {0: places[-1][1] + 1}
    assert log.read("expires", after, limit=5) == []
    kinesis_server.tell("trim", ["expires", 0, places[-1][1] + 1])
    [(_, offset)] = log.produce("expires", [NewMessage(b"new", partition=0)])
    found = log.read("expires", after, limit=5, wait_s=5)  # who was at the end has lost nothing
    assert [(each.offset, each.value) for each in found] == [(offset, b"new")]
    log.close()
    with pytest.raises(OffsetGone) as gone:  # who begins anew cannot know that nothing came in between
        log.read("expires", {0: places[-1][1] + 1}, limit=5)
    assert gone.value.first == offset
    assert [each.value for each in log.read("expires", {0: gone.value.first}, limit=5)] == [b"new"]


def test_a_reader_that_is_nearly_too_late_looks_whether_its_next_message_is_there(
    log: KinesisLog, kinesis_server: KinesisServer
) -> None:
    log.create("late")
    places = log.produce("late", messages(40))
    kinesis_server.tell("age", ["late", 0, [23.5 * 3_600] * 40])
    kinesis_server.tell("pages", 10)
    found = log.read("late", starts(log, "late"), limit=10)
    assert len(found) == 10
    kinesis_server.tell("trim", ["late", 0, places[20][1]])
    with pytest.raises(OffsetGone) as gone:
        log.read("late", {0: found[-1].offset + 1}, limit=10)
    assert gone.value.first == places[20][1]
    kinesis_server.tell("pages", 10_000)


def test_an_iterator_that_expired_is_replaced(log: KinesisLog, kinesis_server: KinesisServer) -> None:
    log.create("rests", 2)
    wanted = starts(log, "rests")
    for number in range(3):
        places = log.produce("rests", messages(3) + messages(3, partition=1))
        kinesis_server.tell("expire", None)
        found = []
        while part := log.read("rests", wanted, limit=4):  # without waiting: what is there is found
            found += [(each.partition, each.offset) for each in part]
            wanted |= {each.partition: each.offset + 1 for each in part}
            kinesis_server.tell("expire", None)
        assert sorted(found) == sorted(places), number


def test_a_topic_that_vanishes_and_comes_back_empty(log: KinesisLog, client: boto3.client) -> None:
    log.create("vanishes")
    places = log.produce("vanishes", messages(5))
    after = {0: places[-1][1] + 1}
    assert log.read("vanishes", after, limit=1) == []
    client.delete_stream(StreamName="vanishes")
    calls: list[Callable[[], object]] = [
        lambda: log.produce("vanishes", messages(1)),
        lambda: log.read("vanishes", after, limit=1),
        lambda: log.partitions("vanishes"),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="vanishes"):
            call()
    log.create("vanishes")
    log.close()
    with pytest.raises(OffsetAhead):
        log.read("vanishes", after, limit=1)


def test_a_service_that_hangs_or_is_away_is_told_within_the_timeout(
    log: KinesisLog, hasty: KinesisLog, kinesis_server: KinesisServer
) -> None:
    log.create("hangs")
    first = starts(log, "hangs")
    kinesis_server.pause()
    away = KinesisLog(Url(f"kinesis://eu-central-1?endpoint=http://127.0.0.1:{free_port()}&timeout=1s"))
    try:
        calls: list[Callable[[], object]] = [
            lambda: hasty.produce("hangs", messages(1)),
            lambda: hasty.read("hangs", first, limit=1, wait_s=20),
            away.topics,
        ]
        for call in calls:
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="kinesis://eu-central-1 failed"):
                call()
            assert time.monotonic() - begun < 8
    finally:
        kinesis_server.resume()
        away.close()
    log.close()
    log.produce("hangs", [NewMessage(b"after", partition=0)])
    assert b"after" in {each.value for each in read_all(log, "hangs", first, 1)}


def test_without_credentials(kinesis_server: KinesisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    log = KinesisLog(kinesis_server.url)
    with pytest.raises(Denied, match="no credentials"):
        log.topics()
    log.close()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("kinesis://", "names no region"),
        ("kinesis://user:secret@eu-central-1", "names no region"),
        ("kinesis://eu-central-1?plugin=x", "unknown"),
        ("kinesis://eu-central-1?largest_bytes=0", "largest_bytes"),
        ("kinesis://eu-central-1?endpoint=http://kinesis.internal", "without encryption"),
    ],
)
def test_a_wrong_address(address: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as refused:
        KinesisLog(Url(address))
    assert "secret" not in str(refused.value)
