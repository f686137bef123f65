"""Machines that come to machine 0: who is let in, what is refused, and what a stranger can reach."""

from __future__ import annotations

import json
import os
import queue
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from kit.waiting import wait_until
from mainspring.core.errors import Conflict, Invalid, Unavailable
from mainspring.core.settings import Address
from mainspring.core.time import SystemClock
from mainspring.deploy.adapters.announced_machines import AnnouncedMachines, training_machines
from mainspring.deploy.meeting import certificates
from mainspring.deploy.meeting.guest import Guest
from mainspring.deploy.meeting.host import Host
from mainspring.deploy.meeting.lines import Line
from mainspring.deploy.meeting.model import MOST, Alike, Announced, Hello, Welcome, differences, listed
from mainspring.deploy.meeting.tunnel import connections
from mainspring.project.catalog import memory_catalog

pytestmark = pytest.mark.slow

_SHUT = r"alert|reset|EOF|closed|[Bb]roken|_ssl"
SAME = Alike({"shop/model.py": "1"}, "d", {"torch": "2"})
NOTHING = {"files": {}, "definitions": "", "versions": {}}
Deed = Callable[[Mapping[str, Any]], dict[str, Any]]


def made() -> certificates.Certificate:
    return certificates.make(SystemClock().now())


class Ranks:
    """Ranks that are none: they answer at once."""

    def __init__(self, differs: Sequence[str] = (), answer: Deed = lambda _: {}) -> None:
        self.differs, self._answer = differs, answer
        self.asked: list[Mapping[str, Any]] = []
        self.ended = 0

    def agrees(self, welcome: Welcome) -> Sequence[str]:
        assert welcome.run == "run"
        return self.differs

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        return self._answer(request)

    def end(self) -> None:
        self.ended += 1

    def close(self) -> None:
        self.end()


class Meeting:
    """A machine 0 of three, or of more, and the catalog in which they are announced."""

    def __init__(self, wait_s: float = 30.0, machines: int = 3, answer_s: float = 15.0) -> None:
        self.engine = memory_catalog()
        self.announced = AnnouncedMachines(self.engine, "late")
        self.certificate = made()
        self.own = Ranks(answer=lambda request: {"port": self.store} if request["do"] == "store" else {})
        self.store = 0
        self.stop = 0
        self.host = Host(
            Address("127.0.0.1", 0), self.certificate, self.announced.every, ("zero", SAME),
            model="late", machines=machines, wait_s=wait_s, answer_s=answer_s,
        )  # fmt: skip
        self.address = self.host.address
        self.host.open(Welcome(run="run"), self.own)  # type: ignore[arg-type]
        self.announced.announce(Announced(0, "zero", f"127.0.0.1:{self.address.port}", self.certificate.pem))

    def guest(self, number: int, alike: Alike = SAME, ranks: Ranks | None = None, wait_s: float = 10.0) -> Joined:
        return Joined(self, number, alike, ranks or Ranks(), wait_s)

    def dial(self, own: certificates.Certificate) -> ssl.SSLSocket:
        context = own.context([self.certificate.pem], server=False)
        return context.wrap_socket(socket.create_connection((self.address.host, self.address.port), 5))


class Joined:
    """A machine that comes, in a thread of its own, and how that ended."""

    def __init__(self, meeting: Meeting, number: int, alike: Alike, ranks: Ranks, wait_s: float) -> None:
        self.ranks, self.own, self.ended = ranks, made(), threading.Event()
        self.result: Any = None
        self.told: list[str] = []
        meeting.announced.announce(Announced(number, f"m{number}", "", self.own.pem))
        guest = Guest(
            self.own, meeting.announced.host, Hello(number, f"m{number}", alike), ranks,
            stop=lambda: meeting.stop, wait_s=wait_s, tell=self.told.append,
        )  # fmt: skip

        def take_part() -> None:
            try:
                self.result = guest.run()
            except BaseException as error:
                self.result = error
            self.ended.set()

        threading.Thread(target=take_part, daemon=True).start()

    def end(self) -> Any:
        assert self.ended.wait(10)
        return self.result


def received(end: socket.socket, size: int) -> bool:
    end.settimeout(10)
    while size and (piece := end.recv(size)):
        size -= len(piece)
    return not size


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    found = Meeting()
    try:
        yield found
    finally:
        found.host.close({"error": {}})


def places(meeting: Meeting, count: int) -> list[str]:
    return wait_until(
        lambda: len(found := [each.name for each in meeting.host.place(3)]) == count and found, "the machines", 10
    )


def test_machines_are_asked_by_number_and_told_the_end(meeting: Meeting) -> None:
    found = [meeting.guest(number, ranks=Ranks(answer=lambda request: {"got": request["do"]})) for number in (2, 1)]
    assert places(meeting, 3) == ["0, zero", "1, m1", "2, m2"]
    start = {"do": "start", "variables": {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1"}}
    answers = meeting.host.ask({0: {"do": "look"}, 1: start, 2: {"do": "look"}})
    assert answers == {0: {}, 1: {"got": "start", "leaving": 0}, 2: {"got": "look", "leaving": 0}}
    [started] = [each for each in found[1].ranks.asked if each["do"] == "start"]
    assert started["variables"]["MASTER_ADDR"] == "127.0.0.1"
    assert started["variables"]["MASTER_PORT"] != "1"
    meeting.stop = 15
    wait_until(lambda: meeting.host.ask({1: {"do": "look"}}) and meeting.host.leaving, "the signal to be heard")
    meeting.host.close({"report": 7})
    assert [each.end() for each in found] == [{"do": "closed", "report": 7}] * 2
    assert [each.ranks.ended for each in found] == [1, 1]
    assert meeting.own.ended == 1


def test_a_machine_that_is_lost_comes_again_and_answers(meeting: Meeting) -> None:
    first = meeting.guest(1)
    assert places(meeting, 2)
    meeting.host._guests[1].line.socket.shutdown(socket.SHUT_RDWR)
    assert meeting.host.ask({1: {"do": "look"}}) == {1: None}
    assert places(meeting, 2) == ["0, zero", "1, m1"]
    assert first.ranks.ended == 1
    twice = meeting.guest(1, wait_s=0.5)
    assert "says that m1 is machine 1 already" in twice.end().what


def turn_s(rank: socket.socket, there: socket.socket) -> float:
    """The time of a question and an answer, each of two parts."""
    begun = time.perf_counter()
    for one, other in ((rank, there), (there, rank)):
        one.sendall(b"a")
        time.sleep(0.001)
        one.sendall(b"b")
        assert received(other, 2)
    return time.perf_counter() - begun


def many_files() -> Iterator[None]:
    """Let this process have so many open files that the next one has a number above 1,023."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    while opened[-1] < 1024:
        opened.append(os.dup(opened[0]))
    yield
    for each in opened:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(params=["few", "many"])
def files(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from many_files() if request.param == "many" else [None]


@pytest.mark.usefixtures("files")
def test_the_store_is_carried_to_those_that_are_let_in(meeting: Meeting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as store:
        meeting.store = store.getsockname()[1]
        joined = meeting.guest(1)
        places(meeting, 2)
        asked = meeting.host.ask({0: {"do": "store", "address": "10.1.2.3"}})
        assert asked == {0: {"port": meeting.store}}
        assert meeting.own.asked[-1]["address"] == "127.0.0.1"
        meeting.host.ask({1: {"do": "start", "variables": {}}})
        port = int(joined.ranks.asked[-1]["variables"]["MASTER_PORT"])
        with socket.create_connection(("127.0.0.1", port), 5) as rank, closing(store.accept()[0]) as there:
            for end in (rank, there):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert min(turn_s(rank, there) for _ in range(5)) < 0.03  # it was 90 ms
            for size in (1, 1 << 20):
                threading.Thread(target=rank.sendall, args=(b"x" * size,), daemon=True).start()
                assert received(there, size)
                threading.Thread(target=there.sendall, args=(b"y" * size,), daemon=True).start()
                assert received(rank, size)
            there.shutdown(socket.SHUT_RDWR)
            assert rank.recv(1) == b""


def test_strangers_reach_nothing(meeting: Meeting) -> None:
    other = made()
    with closing(meeting.dial(other)) as stranger, pytest.raises(OSError, match=_SHUT):
        Line(stranger).ask({"as": "store"}, 5)  # TLS 1.3 tells a client at its first read
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection((meeting.address.host, meeting.address.port), 5)
    with closing(plain.wrap_socket(raw)) as nobody, pytest.raises(OSError, match=_SHUT):
        Line(nobody).ask({"as": "store"}, 5)
    with socket.create_connection((meeting.address.host, meeting.address.port), 5) as words:
        words.sendall(b'{"as": "store"}\n')
        words.settimeout(5)
        with suppress(ConnectionResetError):
            assert b"store" not in words.recv(100)
    assert not meeting.host._guests


def test_a_listener_outlives_a_lack_of_files() -> None:
    """Connections that cannot be taken now are taken later."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        taken: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()

        def take() -> None:
            for each in connections(listening):
                taken.put(each)
            taken.put(None)

        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # no other number is free
        try:
            client.connect(listening.getsockname())
            threading.Thread(target=take, daemon=True).start()
            with pytest.raises(queue.Empty):
                taken.get(timeout=0.2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        taken.get(timeout=60).close()  # type: ignore[union-attr]
        listening.shutdown(socket.SHUT_RDWR)
        assert taken.get(timeout=60) is None


SAID = [
    json.dumps({"machine": 2, "host": "h", "alike": NOTHING}),
    json.dumps({"machine": 1}),
    "[1, 2]",
    "{",
    "x" * (MOST + 1),
]


def test_those_announced_take_their_own_number_and_speak_sense(meeting: Meeting) -> None:
    own = made()
    meeting.announced.announce(Announced(1, "m1", "", own.pem))
    answers = []
    for said in SAID:
        with closing(meeting.dial(own)) as connection, suppress(OSError):
            connection.sendall(said.encode() + b"\n")
            answers.append(Line(connection).receive(10)["refused"])
    assert answers == ["This training has machines 0 to 2."]
    assert places(meeting, 1) == ["0, zero"]
    meeting.guest(1)
    assert places(meeting, 2)


@pytest.fixture
def hasty() -> Iterator[Meeting]:
    """A machine 0 of five, which waits a second for answers."""
    found = Meeting(machines=5, answer_s=1.0)
    try:
        yield found
    finally:
        found.host.close({"error": {}})


def test_machines_that_are_lost_together_are_waited_for_once(hasty: Meeting) -> None:
    """An agent ends once nobody has asked it for 30 s: the others must hear from machine 0 in time."""
    released = threading.Event()
    silent = Ranks(answer=lambda request: {} if request.get("quick") else {"late": released.wait(10)})
    for number in range(1, 5):
        hasty.guest(number, ranks=Ranks() if number == 4 else silent)
    wait_until(lambda: len(hasty.host._guests) == 4, "the machines", 10)
    hasty.host._placed = [0, 1, 2, 3, 4]
    begun = time.monotonic()
    found = hasty.host.ask({number: {"do": "look"} for number in range(5)})
    assert time.monotonic() - begun < 2.8, "three that are waited for one after another take 3 s"
    assert [number for number, answer in found.items() if answer is None] == [1, 2, 3]
    released.set()


def test_the_last_word_reaches_a_machine_whose_answers_nobody_reads(meeting: Meeting) -> None:
    """The system then resets the connection, at which the machine cannot answer any more."""
    released = threading.Event()
    ranks = Ranks(answer=lambda _: {"late": len(ranks.asked) > 1 and released.wait(10)})
    joined = meeting.guest(1, ranks=ranks)
    wait_until(lambda: meeting.host._guests, "the machine", 10)
    for count in (1, 2):
        meeting.host._send(1, {"do": "look"})
        wait_until(lambda count=count: len(ranks.asked) == count, "the request", 10)
    meeting.host.close({"report": 7})
    released.set()
    assert joined.end() == {"do": "closed", "report": 7}


ODD = ["[]", "3", '{"leaving": "soon"}', "[" * 100_000, "{" * 100, "never"]


@pytest.mark.parametrize("said", ODD)
def test_a_machine_that_answers_nonsense_is_lost(hasty: Meeting, said: str) -> None:
    own = made()
    hasty.announced.announce(Announced(1, "m1", "", own.pem))
    with closing(hasty.dial(own)) as connection, suppress(OSError):
        line = Line(connection)
        assert line.ask(msgspec.to_builtins(Hello(1, "m1", SAME)), 10)["run"] == "run"
        line.send({"differs": []})
        wait_until(lambda: hasty.host._guests, "the machine", 10)
        hasty.host._placed = [0, 1]
        found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=lambda: found.put(hasty.host.ask({1: {"do": "look"}})), daemon=True).start()
        if said == "never":  # a byte now and then is no answer
            begun = time.monotonic()
            while found.empty() and time.monotonic() - begun < 30:
                connection.sendall(b" ")
                time.sleep(0.05)
        else:
            connection.sendall(said.encode() + b"\n")
        assert found.get(timeout=30) == {1: None}


def test_a_certificate_that_is_none_keeps_nobody_out(meeting: Meeting) -> None:
    table = training_machines
    for number, text in enumerate(["none", made().pem.replace("A", "B"), made().pem + made().pem, "\xe9" + made().pem]):
        row = {"id": str(number), "model": "late", "number": 1, "host": "m", "address": "", "certificate": text}
        with meeting.engine.begin() as connection:
            connection.execute(table.insert().values(row))
    assert [each.number for each in meeting.announced.every()] == [0]
    meeting.guest(1)
    assert places(meeting, 2)


def test_a_machine_with_other_files_is_refused_on_both_sides(meeting: Meeting) -> None:
    found = meeting.guest(1, Alike({"shop/model.py": "2", "shop/new.py": "1"}, "e", {"torch": "3"}))
    said = (
        "Machine 1 (m1) would not train what machine 0 does; these differ: the file shop/model.py, the file shop/new.py"
    )
    assert isinstance(found.end(), Conflict)
    assert said in found.result.what
    with pytest.raises(Conflict, match=r"file shop/model\.py, the file shop/new\.py, torch \(2 and 3\)") as refused:
        meeting.host.place(3)
    assert refused.value.fix


def test_a_machine_with_other_data_is_refused_on_both_sides(meeting: Meeting) -> None:
    found = meeting.guest(1, ranks=Ranks(differs=["the table sales"]))
    assert "these differ: the table sales" in found.end().what
    with pytest.raises(Conflict, match="the table sales"):
        wait_until(lambda: meeting.host.place(3) and False, "the refusal", 10)


def test_those_that_do_not_come_are_named() -> None:
    meeting = Meeting(wait_s=0.1)
    meeting.guest(2)
    with pytest.raises(Unavailable, match=r"Machine 1 of 3 did not come to 127\.0\.0\.1:\d+ within 0\.1 s") as absent:
        wait_until(lambda: meeting.host.place(3) and False, "the time to be over", 10)
    assert "--machine N" in (absent.value.fix or "")
    meeting.host.close({"error": {}})
    meeting.announced.withdraw(meeting.certificate.digest, others=True)
    assert meeting.announced.every() == []
    late = meeting.guest(1, wait_s=0.1).end()
    assert "Machine 0 is not announced in the catalog, for 0.1 s" in late.what


@pytest.mark.parametrize(
    ("host", "words"),
    [("0.0.0.0", "names no machine"), ("::ffff:0.0.0.0", "names no machine"), ("192.0.2.1", "cannot listen")],
)
def test_machine_0_listens_on_an_address_of_its_own(host: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        Host(Address(host, 0), made(), list, ("zero", SAME), model="late", machines=2, wait_s=1)


@given(st.data())
def test_differences_are_those_of_the_files(data: st.DataObject) -> None:
    files = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"))
    one, other = data.draw(files), data.draw(files)
    found = differences(Alike(one, "", {}), Alike(other, "", {}))
    assert found == [f"the file {name}" for name in "abc" if one.get(name) != other.get(name)]


def test_other_counts_are_named_and_no_terminal_is_controlled() -> None:
    one, other = (Alike({}, "", {}, {"machines": 2, "processes": each}) for each in (2, 4))
    assert differences(one, other) == ["--processes (2 and 4)"]
    assert listed(["a\x1b[2J\n", "b" * 1000]) == f"a?[2J?, {'b' * 300}"


def test_a_new_machine_0_takes_the_place_of_one_that_died() -> None:
    engine: sa.Engine = memory_catalog()
    announced, elsewhere = AnnouncedMachines(engine, "late"), AnnouncedMachines(engine, "early")
    first, second, other = (made() for _ in range(3))
    announced.announce(Announced(0, "a", "a:1", first.pem))
    elsewhere.announce(Announced(0, "c", "c:1", other.pem))
    announced.announce(Announced(1, "b", "", made().pem))
    announced.announce(Announced(0, "b", "b:1", second.pem))
    assert announced.host() == Announced(0, "b", "b:1", second.pem)
    announced.withdraw(first.digest, others=True)  # it died, and comes back to say so
    assert len(announced.every()) == 2
    announced.withdraw(second.digest, others=True)
    assert (announced.every(), len(elsewhere.every())) == ([], 1)
