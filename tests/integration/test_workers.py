"""Several gateway processes on one port: slots, the scrape of all, death and the end of one, strangers."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from kit.depth import deep
from kit.fleet import BODY, INFER, Fleet
from kit.waiting import wait_until
from mainspring.core.errors import Conflict
from mainspring.core.listening import check_free
from mainspring.core.settings import Address
from mainspring.operations.doctor import examine
from mainspring.processes.supervisor import Supervisor
from mainspring.project.running import alive, read_running
from mainspring.serving.plane.slots import Slots, merged, ready

POST = f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(BODY)}\r\n".encode()
DEEP = "a-folder-so-deep-that-a-socket-has-no-room-for-its-name"  # the kernel allows a path of some 100 bytes


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet") / DEEP / "project", forked=True)
    fleet.publish("1")
    with fleet.up():
        yield fleet


def test_a_scrape_of_any_process_shows_every_slot(fleet: Fleet) -> None:
    with fleet.load() as load:
        load.until_answered(50)
    assert load.failures == []
    text = fleet.scrape()
    for slot in range(fleet.workers):
        assert f'mainspring_gateway_worker_up{{slot="{slot}"}} 1' in text
        assert f'mainspring_gateway_ready{{slot="{slot}"}} 1.0' in text
    assert sum(fleet.answered().values()) >= 2 * len(load.answered)
    families = re.findall(r"^# HELP (\S+)", text, re.M)
    assert len(families) == len(set(families))
    assert "pid" not in text


def test_connections_are_spread_over_the_processes(fleet: Fleet) -> None:
    before = fleet.answered()
    with fleet.load(threads=16) as load:
        load.until_answered(500)
    after = fleet.answered()
    assert all(after[slot] > before.get(slot, 0) for slot in after)
    assert len(after) == fleet.workers


def test_a_stranger_is_refused_or_gets_nothing(fleet: Fleet) -> None:
    with pytest.raises(Conflict, match=rf"127\.0\.0\.1:{fleet.port}.*--gateway"):
        check_free(Address("127.0.0.1", fleet.port), "gateway")
    with pytest.raises(Conflict, match="is already up"), Supervisor(fleet.project).running():
        pass
    with socket.socket() as stranger:  # the kernel lets it join, since it asks for that and is of the same user
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", fleet.port))
        stranger.listen()
        stranger.setblocking(False)
        assert all(fleet.ask("POST", INFER, BODY).status == 200 for _ in range(30))
        with pytest.raises(BlockingIOError):
            stranger.accept()


def test_a_killed_process_loses_what_it_was_answering_and_comes_back_in_its_slot(fleet: Fleet) -> None:
    names = set(fleet.pids)
    assert names == {"gateway", "gateway-1"}
    with fleet.load() as load:
        load.until_answered(100)
        old = fleet.kill("gateway-1")
        fleet.until_replaced("gateway-1", old)
        fleet.until_all_serve("1")
        load.until_answered(100)
    assert set(fleet.pids) == names
    assert len(load.failures) <= 4, load.failures  # what four callers had on their way
    assert len({each.thread for each in load.failures}) == len(load.failures)  # nobody failed twice


def test_a_process_that_lives_and_does_not_answer_is_replaced(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, settings={"gateway_liveness_timeout": "1s"})
    fleet.publish("1")
    with fleet.up():
        fleet.until_all_serve("1")
        old = fleet.kill("gateway-1", signal.SIGSTOP)
        fleet.until_replaced("gateway-1", old)
        fleet.until_all_serve("1")
        running = read_running(fleet.project.settings.state)
        assert running is not None
        assert running.silenced == {"gateway-1": 1}
        assert not alive(old)
        told = [each.detail for each in examine(fleet.project) if each.check == "processes"]
        assert told == ["gateway-1 stopped responding and was replaced, 1 time since the start"]


def test_a_process_told_to_end_loses_nothing_and_is_replaced(fleet: Fleet) -> None:
    with fleet.load() as load:
        for name in ("gateway", "gateway-1"):
            load.until_answered(100)
            old = fleet.kill(name, signal.SIGTERM)
            fleet.until_replaced(name, old)
            fleet.until_all_serve("1")
        load.until_answered(100)
    assert load.failures == []


@deep
def test_who_connects_while_the_only_process_is_away_waits_for_its_successor(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, workers=1, forked=True)
    fleet.publish("1")
    with fleet.up():
        fleet.kill("gateway")
        assert fleet.ask("POST", INFER, BODY).status == 200  # neither refused, nor told that nothing is loaded yet


def test_the_end_answers_what_is_in_flight_and_leaves_nobody(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.publish("1")
    with ExitStack() as stack:
        up = stack.enter_context(ExitStack())
        up.enter_context(fleet.up())
        pids = set(fleet.pids.values())
        idle = stack.enter_context(fleet.raw(b"GET /v2/health/live HTTP/1.1\r\n", b"\r\n"))
        assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        begun = [stack.enter_context(fleet.raw(POST, b"Expect: 100-continue\r\n\r\n")) for _ in range(8)]
        for each in begun:  # they are at a gateway, which waits for their bodies
            assert each.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
            each.sendall(BODY[:40])
        ending = threading.Thread(target=up.close)
        ending.start()
        wait_until(lambda: _refuses(fleet.port), "the port to be closed")
        for each in begun:
            each.sendall(BODY[40:])
            answer = each.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            assert b"connection: close" in answer.lower()
            assert each.recv(1) == b""
        assert idle.recv(1) == b""
        ending.join(60)
        assert not any(map(alive, pids))


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_an_end_does_not_wait_for_who_never_finishes(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, workers=1, settings={"gateway_drain_timeout": "1s"}, forked=True)
    fleet.publish("1")
    with fleet.up():
        slow = [
            fleet.raw(b"GET /v2/health/live HT"),
            fleet.raw(b"GET /v2/health/live HTTP/1.1\r\n"),
            fleet.raw(POST, b"\r\n{"),
        ]
        time.sleep(0.2)
        pid = fleet.kill("gateway", signal.SIGTERM)
        fleet.until_replaced("gateway", pid)
        log = (fleet.project.settings.state / "logs" / "gateway.log").read_text()
        assert "Connections were cut off" in log
        assert "gateway ended" in log
        for each in slow:
            each.close()


# Slots, in this process


def test_a_thousand_restarts_leave_no_more_than_the_slots(tmp_path: Path) -> None:
    async def scenario() -> None:
        lasting = Slots(tmp_path, 0, 2)
        await lasting.start(lambda: b"# HELP a A.\n# TYPE a counter\na_total 1.0\n", lambda: True)
        sizes = set()
        for number in range(1000):
            other = Slots(tmp_path, 1, 2)
            await other.start(lambda: b'# HELP a A.\n# TYPE a counter\na_total{b="x"} 7.0\n', lambda: True)
            if number % 100 == 0:
                sizes.add(len(await lasting.scrape()))
            await other.stop()
            if number % 2:  # as the killed leave it: the socket is still there when the successor comes
                with closing(socket.socket(socket.AF_UNIX)) as left:
                    left.bind(str(tmp_path / "gateway-1.sock"))
        assert len(sizes) == 1
        assert {path.name for path in tmp_path.iterdir()} <= {"gateway-0.sock", "gateway-1.sock"}
        await lasting.stop()

    asyncio.run(scenario())


def test_a_slot_that_does_not_answer_is_said_to_be_down(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        slots = Slots(tmp_path, 0, 3)
        await slots.start(lambda: b"# HELP a A.\n# TYPE a gauge\na 1.0\n", lambda: False)
        assert await asyncio.to_thread(ready, tmp_path, 0) is False
        with closing(socket.socket(socket.AF_UNIX)) as deaf:  # as a process that is stopped
            deaf.bind(str(tmp_path / "gateway-1.sock"))
            deaf.listen()
            text = await slots.scrape()
        await slots.stop()
        return text

    text = asyncio.run(scenario())
    assert b'mainspring_gateway_worker_up{slot="0"} 1\n' in text
    assert b'mainspring_gateway_worker_up{slot="1"} 0\n' in text
    assert b'mainspring_gateway_worker_up{slot="2"} 0\n' in text
    assert text.endswith(b'# TYPE a gauge\na{slot="0"} 1.0\n')
    assert ready(tmp_path, 0) is None


def test_a_slot_is_had_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = Slots(tmp_path), Slots(tmp_path)
        await first.start(lambda: b"# HELP a A.\na 1.0\n", lambda: True)
        with pytest.raises(Conflict, match="slot 0 is in use"):
            await second.start(bytes, lambda: True)
        await second.stop()
        assert await asyncio.to_thread(ready, tmp_path, 0)  # it is not thrown out
        await first.stop()
        await second.start(bytes, lambda: True)
        await second.stop()

    asyncio.run(scenario())


def test_families_stay_together_and_labels_are_kept() -> None:
    one = b'# HELP a A.\n# TYPE a gauge\na 1.0\n# HELP b B.\n# TYPE b counter\nb_total{x="}{ y"} 2.0\n'
    two = b'# HELP b B.\n# TYPE b counter\nb_total{x="z"} 3.0\n# HELP c C.\n# TYPE c gauge\nc 4.0\n'
    assert merged({0: one, 1: two}) == (
        b'# HELP a A.\n# TYPE a gauge\na{slot="0"} 1.0\n'
        b'# HELP b B.\n# TYPE b counter\nb_total{slot="0",x="}{ y"} 2.0\nb_total{slot="1",x="z"} 3.0\n'
        b'# HELP c C.\n# TYPE c gauge\nc{slot="1"} 4.0\n'
    )
