"""What is particular to Kafka: brokers that hang, end, or come back empty; addresses; the partition of a key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from kit.servers import KafkaBroker, running
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Invalid, NotFound, TooLarge, Unavailable
from mainspring.core.settings import Url
from mainspring.data.adapters.log_kafka import KafkaLog, kept_for
from mainspring.data.streams.conformance import messages, read_all, starts
from mainspring.data.streams.model import NewMessage, OffsetAhead


@pytest.fixture
def broker() -> Iterator[KafkaBroker]:
    with running(KafkaBroker) as server:
        yield server


def _murmur2(data: bytes) -> int:
    """MurmurHash2 as Kafka's own clients compute it (org.apache.kafka.common.utils.Utils)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    for i in range(0, len(data) - 3, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[len(data) & ~3 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def test_a_key_has_the_partition_that_kafkas_own_clients_give_it(kafka_broker: KafkaBroker) -> None:
    assert (_murmur2(b"21"), _murmur2(b"foobar")) == (-973932308 & 0xFFFFFFFF, -790332482 & 0xFFFFFFFF)  # theirs
    log = KafkaLog(kafka_broker.url)
    log.create("by-key", 5)
    keys = [f"key-{number}".encode() for number in range(40)]
    places = log.produce("by-key", [NewMessage(b"x", key) for key in keys])
    assert [partition for partition, _ in places] == [(_murmur2(key) & 0x7FFFFFFF) % 5 for key in keys]
    log.close()


def test_a_broker_that_hangs_is_told_within_the_timeout(broker: KafkaBroker) -> None:
    patient = KafkaLog(broker.url)
    patient.create("clicks")
    first = starts(patient, "clicks")
    patient.produce("clicks", messages(1))
    log = KafkaLog(Url(f"{broker.url.text}&timeout=1s"))
    wait_until(lambda: reads(log, first), "its connections")
    broker.pause()
    time.sleep(0.2)  # its threads stop one after the other
    calls: dict[str, Callable[[], object]] = {
        "produce": lambda: log.produce("clicks", messages(1)),
        "spans": lambda: log.spans("clicks", [0]),
        "topics": log.topics,
        "read": lambda: log.read("clicks", {0: 1}, limit=1, wait_s=20),
        "committed": lambda: log.committed("clicks", "loader"),
    }
    for name, call in calls.items():
        begun = time.monotonic()
        try:
            given = call()
        except Unavailable:
            pass
        else:
            pytest.fail(f"{name} gave {given}")
        assert time.monotonic() - begun < 15
    broker.resume()
    wait_until(lambda: produces(log, NewMessage(b"after", partition=0)), "it to go on")
    found = read_all(patient, "clicks", first, 2)
    assert (found[0].value, b"after" in {each.value for each in found}) == (b"0", True)
    log.close()
    patient.close()


def reads(log: KafkaLog, first: Mapping[int, int]) -> bool:
    try:
        return bool(log.read("clicks", first, limit=1, wait_s=1))
    except Unavailable:
        return False


def produces(log: KafkaLog, message: NewMessage) -> bool:
    try:
        log.produce("clicks", [message])
    except Unavailable:
        return False
    return True


def test_a_broker_that_lost_its_messages_is_told(broker: KafkaBroker) -> None:
    log = KafkaLog(Url(f"{broker.url.text}&timeout=3s"))
    log.create("clicks")
    first = starts(log, "clicks")
    log.produce("clicks", messages(5))
    assert len(read_all(log, "clicks", first, 5)) == 5
    broker.stop()
    with pytest.raises(Unavailable):
        log.produce("clicks", messages(1))
    broker.start()
    log.create("clicks")
    with pytest.raises(OffsetAhead, match="created anew"):
        log.read("clicks", {0: 5}, limit=1, wait_s=20)
    log.produce("clicks", messages(1))
    assert [each.offset for each in read_all(log, "clicks", {0: 0}, 1)] == [0]
    log.close()


def test_nobody_there() -> None:
    log = KafkaLog(Url(f"kafka://127.0.0.1:{free_port()}?timeout=1s"))
    with pytest.raises(Unavailable, match="127"):
        log.topics()
    log.close()


def test_a_limit_of_the_address_holds_before_anything_is_sent(kafka_broker: KafkaBroker) -> None:
    log = KafkaLog(Url(f"{kafka_broker.url.text}&largest_bytes=1000"))
    log.create("small")
    with pytest.raises(TooLarge, match="1001 bytes; its log allows 1000"):
        log.produce("small", [*messages(1), NewMessage(bytes(1_001), partition=0)])
    assert log.spans("small", [0])[0].next == 0
    log.close()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("kafka://h:9092?plugin.library.paths=/tmp/evil.so", "plugin.library.paths"),
        ("kafka://h:9092?sasl.password=s3cret", "sasl.password"),
        ("kafka://h:9092?largest_bytes=-1", "largest_bytes"),
        ("kafka://ana:s3cret@h:9092?linger.ms=1&linger.ms=2", "repeated"),
    ],
)
def test_a_wrong_address(address: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as refused:
        KafkaLog(Url(address))
    assert "s3cret" not in str(refused.value)


def test_a_user_means_tls_and_a_password() -> None:
    log = KafkaLog(Url("kafka://ana:s3%2Fcret@a:9092,b:9092?sasl.mechanism=PLAIN"))
    settings = log._common
    assert settings["bootstrap.servers"] == "a:9092,b:9092"
    assert (settings["security.protocol"], settings["sasl.mechanism"]) == ("SASL_SSL", "PLAIN")
    assert (settings["sasl.username"], settings["sasl.password"]) == ("ana", "s3/cret")
    assert "s3" not in log._shown


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, ""),
        (
            {"retention.ms": "604800000", "segment.ms": "86400000"},
            "they stay for 7 days, and until their segment is closed, up to 1 days more",
        ),
        ({"retention.ms": "-1", "retention.bytes": "-1"}, "they stay for ever"),
        (
            {"retention.ms": "-1", "retention.bytes": "1000"},
            "they stay until their partition has more than 1000 bytes",
        ),
        (
            {"retention.ms": "3600000", "cleanup.policy": "compact"},
            "the newest of each key stays until a tombstone is written for it",
        ),
    ],
)
def test_how_long_messages_stay_is_told(config: dict[str, str], told: str) -> None:
    assert kept_for(config) == told


def test_a_broker_that_does_not_say_how_long_messages_stay_is_no_error(kafka_broker: KafkaBroker) -> None:
    log = KafkaLog(kafka_broker.url)
    log.create("kept")
    assert log.retention("kept") == ""
    with pytest.raises(NotFound):
        log.retention("absent")
    log.close()
