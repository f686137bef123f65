"""What is particular to NATS: a server that hangs, is killed, or lost a stream; messages of other clients."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest

from kit.certificates import Authority
from kit.servers import NatsServer, running
from kit.waiting import free_port
from mainspring.core.errors import MainspringError, NotFound, Unavailable
from mainspring.core.settings import Url
from mainspring.data.adapters.log_nats import NatsLog
from mainspring.data.streams.conformance import messages, read_all, starts
from mainspring.data.streams.model import Message, NewMessage, OffsetAhead


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with running(NatsServer) as server:
        yield server


def _produce_soon(log: NatsLog, message: NewMessage) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            log.produce("clicks", [message])
        except Unavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


# nats-py leaves the transport of a reconnection that failed to the collector of garbage.
@pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")
def test_a_server_that_hangs_is_told_within_the_timeout(server: NatsServer) -> None:
    log = NatsLog(Url(f"{server.url.text}?timeout=1s"))
    log.create("clicks")
    first = starts(log, "clicks")
    log.produce("clicks", messages(1))
    assert len(read_all(log, "clicks", first, 1)) == 1
    server.pause()
    time.sleep(0.2)  # its threads stop one after the other
    calls: dict[str, Callable[[], object]] = {
        "produce": lambda: log.produce("clicks", messages(1)),
        "spans": lambda: log.spans("clicks", [0]),
        "topics": log.topics,
        "read": lambda: log.read("clicks", {0: 2}, limit=1, wait_s=20),
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
        assert time.monotonic() - begun < 10
    server.resume()
    _produce_soon(log, NewMessage(b"after", partition=0))
    assert b"after" in {each.value for each in read_all(log, "clicks", first, 2)}
    log.close()


def test_a_server_that_is_killed_has_what_it_acknowledged(server: NatsServer) -> None:
    log = NatsLog(Url(f"{server.url.text}?timeout=3s"))
    log.create("clicks")
    first = starts(log, "clicks")
    log.produce("clicks", messages(500))
    assert len(read_all(log, "clicks", first, 200, limit=100)) >= 200
    server.stop(signal.SIGKILL)
    server.start()
    found = list[Message]()
    end = time.monotonic() + 30
    while len(found) < 500 and time.monotonic() < end:
        try:
            found = read_all(log, "clicks", first, 500)
        except Unavailable:
            time.sleep(0.2)
    assert [each.value for each in found] == [str(number).encode() for number in range(500)]
    _produce_soon(log, NewMessage(b"after", partition=0))
    log.close()


def test_a_topic_that_vanishes_and_comes_back_empty(server: NatsServer) -> None:
    log = NatsLog(server.url)
    log.create("clicks")
    log.produce("clicks", messages(5))
    assert len(read_all(log, "clicks", starts(log, "clicks"), 5)) == 5

    async def remove() -> None:
        client = await nats.connect(server.url.text)
        await client.jetstream().delete_stream("clicks=0")
        await client.close()

    asyncio.run(remove())
    with pytest.raises(MainspringError):
        log.produce("clicks", messages(1))
    with pytest.raises(MainspringError):
        log.read("clicks", {0: 6}, limit=1, wait_s=20)
    with pytest.raises(NotFound):
        log.partitions("clicks")
    log.create("clicks")
    with pytest.raises(OffsetAhead):
        log.read("clicks", {0: 6}, limit=1, wait_s=20)
    log.close()


def test_messages_of_other_clients_are_read(nats_server: NatsServer) -> None:
    log = NatsLog(nats_server.url)
    log.create("theirs")

    async def publish() -> None:
        client = await nats.connect(nats_server.url.text)
        await client.jetstream().publish("theirs=0", b"plain", headers={"trace": "7"})
        await client.close()

    asyncio.run(publish())
    [message] = read_all(log, "theirs", {0: 1}, 1)
    assert (message.value, message.key, message.headers) == (b"plain", None, (("trace", b"7"),))
    log.close()


def test_nobody_there() -> None:
    log = NatsLog(Url(f"nats://ana:s3cret@127.0.0.1:{free_port()}?timeout=1s"))
    with pytest.raises(Unavailable, match="127") as refused:
        log.topics()
    assert "s3cret" not in str(refused.value)
    log.close()


def test_no_byte_of_an_erased_message_is_left_in_the_servers_files(server: NatsServer) -> None:
    log = NatsLog(server.url)
    log.create("clicks")
    places = log.produce("clicks", [NewMessage(b"of-%s" % name, name) for name in (b"ben", b"ana-7f3e9c21", b"eve")])
    log.produce("clicks", messages(100))
    log.erase("clicks", [places[1]])
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    assert any(b"of-ben" in path.read_bytes() for path in files)
    assert [path for path in files if b"of-ana" in path.read_bytes()] == []
    assert len(read_all(log, "clicks", {0: 1}, 102)) == 102
    log.close()
    server.stop(signal.SIGKILL)
    server.start()
    assert [path for path in server.folder.rglob("*") if path.is_file() and b"of-ana" in path.read_bytes()] == []


def test_mutual_tls_whose_files_are_renewed(tmp_path: Path) -> None:
    first, second = Authority(tmp_path, name="first"), Authority(tmp_path, name="second")
    accepted, mine, theirs = tmp_path / "ca.pem", first.issue("mine"), first.issue("server")
    accepted.write_bytes(first.certificate.read_bytes())

    class Secure(NatsServer):
        def command(self) -> list[str]:
            files = (f"--tlscert={theirs.cert}", f"--tlskey={theirs.key}", f"--tlscacert={accepted}")
            return [*super().command(), "--tlsverify", *files]

    with running(Secure) as server:
        address = server.url.text.replace("nats:", "tls:") + f"?timeout=2s&ca={accepted}"
        stranger = NatsLog(Url(address))
        with pytest.raises(Unavailable):
            stranger.topics()
        stranger.close()
        log = NatsLog(Url(f"{address}&cert={mine.cert}&key={mine.key}"))
        log.create("clicks")
        for name in ("mine", "server"):
            second.issue(name)
        accepted.write_bytes(second.certificate.read_bytes())
        server.stop(signal.SIGKILL)
        server.start()
        _produce_soon(log, NewMessage(b"a"))
        log.close()
