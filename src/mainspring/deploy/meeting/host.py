"""Machine 0 of a training: the others come to it over TLS, and it asks them how their ranks are.

Whoever holds the private key of a certificate that is announced in the catalog may come, and nobody else: a machine
takes part by the catalog's credentials.
"""

from __future__ import annotations

import errno
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.environment import MAIN_RANK
from mainspring.core.errors import Conflict, Invalid, MainspringError, Unavailable
from mainspring.core.settings import Address
from mainspring.deploy.meeting.certificates import Certificate, digest
from mainspring.deploy.meeting.lines import Line
from mainspring.deploy.meeting.model import Alike, Announced, Hello, Welcome, differences, disagree, shown
from mainspring.deploy.meeting.own import OwnRanks
from mainspring.deploy.meeting.tunnel import carry, connections
from mainspring.training.distributed.conducting import Place, Request
from mainspring.training.distributed.ports import LOGS

_SHAKE_S = 10.0  # for a stranger to become known
_JOIN_S = 330.0  # for a machine that was let in to get ready
_ANSWER_S = 15.0
_LATE_S = 0.1  # for the answer of one that has been waited for in vain, which may be there
_LOGS_S = 60.0
_LOOK_S = 1.0
_KEEP_S = 5.0
_STRANGERS = 64  # connections that are not authenticated yet
_LOOPBACK = "127.0.0.1"
_ALIVE: Request = {"do": "look"}
_LOG = re.compile(LOGS.format(r"\d{1,6}").replace(".log", r"\.log"))


@dataclass(slots=True)
class _Guest:
    hello: Hello
    line: Line
    address: str


class Host:
    """`Machines` of a training: this one, and those that come to it.

    Args:
        announced: Returns the machines that are announced.
        own: This machine's name, and everything in which the others must equal it.
        model: For messages.
        answer_s: Time for machines that are asked together to answer: an agent that nobody asks ends after 30 s.
    """

    def __init__(
        self, address: Address, certificate: Certificate, announced: Callable[[], Sequence[Announced]],
        own: tuple[str, Alike], *, model: str, machines: int, wait_s: float,
        answer_s: float = _ANSWER_S,
    ) -> None:  # fmt: skip
        self._certificate, self._announced, self._wait_s = certificate, announced, wait_s
        self._name, self._alike = own
        self._model, self._machines, self._answer_s = model, machines, answer_s
        self._welcome = Welcome()
        self._listening = _listen(address, wait_s)
        host, port = self._listening.getsockname()[:2]
        self.address = Address(host, port)
        self._guests: dict[int, _Guest] = {}
        self._changed = threading.Condition()
        self._slots = threading.BoundedSemaphore(_STRANGERS)
        self._trusted: tuple[float, dict[str, Announced], ssl.SSLContext | None] = (0.0, {}, None)
        self._trusting = threading.Lock()
        self._placed: list[int] = [0]
        self._store = 0
        self._own: OwnRanks | None = None
        self._begun = self._closed = False
        self._until = self._kept = 0.0
        self._refusal: MainspringError | None = None
        self.leaving = 0  # number of a signal that came to another machine's command

    def open(self, welcome: Welcome, own: OwnRanks) -> None:
        """Let the other machines in, to train what `welcome` says."""
        self._welcome, self._own = welcome, own
        self._until = time.monotonic() + self._wait_s
        threading.Thread(target=self._accept, name="machines", daemon=True).start()

    def place(self, count: int) -> Sequence[Place]:
        """See `Machines.place`.

        Raises:
            Conflict: A machine would train something else.
            Unavailable: A machine did not come in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._guests) >= count - 1 or self._refusal is not None, _LOOK_S)
            if self._refusal is not None and not self._begun:
                raise self._refusal
            self._placed = [0, *sorted(self._guests)[: count - 1]]
        here = self._asked(dict.fromkeys(self._placed[1:], _ALIVE))  # one that nobody asks ends
        self._placed = [number for number in self._placed if number == 0 or here[number] is not None]
        if not self._begun and len(self._placed) < count and time.monotonic() > self._until:
            raise self._absent()
        return [self._place(number) for number in self._placed]

    def ask(self, requests: Mapping[int, Request]) -> Mapping[int, Request | None]:
        """See `Machines.ask`."""
        asked = {self._placed[index]: self._told(request) for index, request in requests.items()}
        found = self._asked(asked | dict.fromkeys(self._forgotten(asked), _ALIVE))
        self._begun = self._begun or any(request["do"] == "start" for request in requests.values())
        return {index: found[self._placed[index]] for index in requests}

    def _forgotten(self, asked: Collection[int]) -> list[int]:
        """Return, now and then, the machines that have no ranks: they must not think that they are forgotten."""
        if time.monotonic() - self._kept <= _KEEP_S:
            return []
        self._kept = time.monotonic()
        return [number for number in list(self._guests) if number not in asked]

    def shown(self) -> str:
        """See `Machines.shown`."""
        here = [f"machine {number} ({self._place(number).name.partition(', ')[2]})" for number in self._placed]
        absent = ", ".join(f"machine {number}" for number in self._missing())
        return f"{absent or 'none'} missing; here: {', '.join(here)}"

    def wanted(self) -> str:
        """See `Machines.wanted`."""
        return "machine"

    def fetch_logs(self, folder: Path) -> None:
        """Write the ends of the logs of the ranks on other machines into a folder."""
        asked: dict[int, Request] = {number: {"do": "logs"} for number in list(self._guests)}
        for answer in self._asked(asked, _LOGS_S).values():
            logs = (answer or {}).get("logs", {})
            for name, text in logs.items() if isinstance(logs, dict) else ():
                if _LOG.fullmatch(name) and isinstance(text, str):
                    (folder / name).write_text(text, encoding="utf-8", errors="replace")

    def close(self, last: Mapping[str, Any]) -> None:
        """Tell the others how the training ended, and end the ranks."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._changed:
            self._closed, guests, self._guests = True, self._guests, {}
        for guest in guests.values():
            with suppress(OSError):
                guest.line.send({"do": "closed", **last})
            guest.line.close()
        if self._own is not None:
            self._own.close()

    def _place(self, number: int) -> Place:
        if number == 0:
            return Place(f"0, {self._name}", self.address.host)
        guest = self._guests[number]
        return Place(f"{number}, {guest.hello.host}", guest.address)

    def _missing(self) -> list[int]:
        return [number for number in range(1, self._machines) if number not in self._guests]

    def _absent(self) -> Unavailable:
        absent = ", ".join(map(str, self._missing()))
        return Unavailable(
            f"Machine {absent} of {self._machines} did not come to {self.address.host}:{self.address.port} within "
            f"{self._wait_s:g} s.",
            fix=f"run `mainspring train {self._model} --machines {self._machines} --machine N` there, with the same "
            "profile, and let it reach this address; or give more time by --wait.",
        )

    def _told(self, request: Request) -> Request:
        """Return a request with the store on the loopback interface, from where it is carried to the others."""
        if request["do"] == "store":
            return {**request, "address": _LOOPBACK}
        if request["do"] == "start":
            variables = {"MASTER_ADDR": _LOOPBACK, MAIN_RANK: self.address.host}
            return {**request, "variables": {**request["variables"], **variables}}
        return request

    def _ask_own(self, request: Request) -> Request:
        if self._own is None:
            raise Unavailable("The training was not opened.")
        answer: Request = self._own.ask(request)
        if request["do"] == "store":
            self._store = answer["port"]
        return answer

    def _asked(self, requests: Mapping[int, Request], within_s: float | None = None) -> dict[int, Request | None]:
        """Return the answers of machines, all of which have the same time for it; `None` of one that is lost."""
        for number, request in requests.items():
            if number:
                self._send(number, request)
        until = time.monotonic() + (within_s or self._answer_s)
        return {
            number: self._received(number, until) if number else self._ask_own(request)
            for number, request in requests.items()
        }

    def _send(self, number: int, request: Request) -> None:
        try:
            if (guest := self._guests.get(number)) is not None:
                guest.line.send(request)
        except OSError:
            self._lose(number)

    def _received(self, number: int, until: float) -> Request | None:
        guest = self._guests.get(number)
        if guest is None:
            return None
        try:
            answer = guest.line.receive(max(_LATE_S, until - time.monotonic()))
            self.leaving = self.leaving or msgspec.convert(answer.get("leaving", 0), int)
        except (OSError, Unavailable, msgspec.ValidationError):
            self._lose(number)
            return None
        return answer

    def _lose(self, number: int) -> None:
        with self._changed:
            if (guest := self._guests.pop(number, None)) is not None:
                guest.line.close()

    def _accept(self) -> None:
        for connection in connections(self._listening):
            if self._slots.acquire(blocking=False):
                threading.Thread(target=self._meet, args=(connection,), name="machine", daemon=True).start()
            else:
                connection.close()

    def _meet(self, connection: socket.socket) -> None:
        """Find out who a connection is, and let it in."""
        with suppress(OSError, MainspringError, msgspec.ValidationError):
            try:
                connection.settimeout(_SHAKE_S)
                trusted, context = self._trust()
                secure = context.wrap_socket(connection, server_side=True)
                known = trusted.get(digest(secure.getpeercert(binary_form=True) or b""))
            except BaseException:
                connection.close()
                raise
            finally:
                self._slots.release()
            if known is None or not self._admitted(known, Line(secure), secure):
                secure.close()

    def _admitted(self, known: Announced, line: Line, secure: ssl.SSLSocket) -> bool:
        """Do what an announced machine connected for; return whether its connection stays open."""
        try:
            first = line.receive(_SHAKE_S)
            if first == {"as": "store"}:
                carry(secure, socket.create_connection((_LOOPBACK, self._store), _SHAKE_S), bytes(line.rest))
                return False
            return self._come(known, msgspec.convert(first, Hello), line)
        except BaseException:
            secure.close()
            raise

    def _come(self, known: Announced, hello: Hello, line: Line) -> bool:
        """Let a machine in and return True, or tell it why not."""
        hello = msgspec.structs.replace(hello, host=shown(hello.host))
        if known.number != hello.machine or not 0 < hello.machine < self._machines:
            line.send(msgspec.to_builtins(Welcome(refused=f"This training has machines 0 to {self._machines - 1}.")))
            return False
        if (there := self._guests.get(hello.machine)) is not None:
            line.send(msgspec.to_builtins(Welcome(taken=there.hello.host)))
            return False
        if found := differences(self._alike, hello.alike):
            line.send(msgspec.to_builtins(Welcome(refused=self._refuse(hello, found))))
            return False
        answer = line.ask(msgspec.to_builtins(self._welcome), _JOIN_S)
        if found := msgspec.convert(answer.get("differs", ()), list[str]):
            self._refuse(hello, found)
            return False
        with self._changed:
            if hello.machine in self._guests or self._closed:
                return False
            self._guests[hello.machine] = _Guest(hello, line, line.socket.getpeername()[0])
            self._changed.notify_all()
        return True

    def _refuse(self, hello: Hello, found: list[str]) -> str:
        """Note that a machine would train something else, and return the words on it."""
        error = disagree(f"Machine {hello.machine} ({hello.host})", found)
        with self._changed:
            self._refusal = error
            self._changed.notify_all()
        return error.what

    def _trust(self) -> tuple[dict[str, Announced], ssl.SSLContext]:
        """Return the machines that are announced, by the digests of their certificates, read at most once a second."""
        with self._trusting:
            at, trusted, context = self._trusted
            if context is None or time.monotonic() - at > _LOOK_S:
                every = {digest(each.der): each for each in self._announced() if each.number}
                if context is None or every != trusted:
                    context = self._certificate.context((each.certificate for each in every.values()), server=True)
                trusted = every
                self._trusted = (time.monotonic(), trusted, context)
            return trusted, context


def _listen(address: Address, wait_s: float) -> socket.socket:
    """Listen on an address of this machine, and on no other; its name may become known a little later.

    Raises:
        Invalid: It is no address of this machine.
        Conflict: Another process listens there.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            family, *_, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
            break
        except socket.gaierror as error:  # of a pod that has just started
            if time.monotonic() > until:
                raise Invalid(f"The host of --meet {address.host!r} is unknown: {error.strerror}.") from None
        time.sleep(_LOOK_S)
    if _unspecified(str(where[0])):
        raise Invalid(
            f"--meet {address.host}:{address.port} names no machine.",
            fix="name the address of this machine that the others reach, in a network of your own.",
        )
    try:
        return socket.create_server(where[:2], family=family, backlog=256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Another process listens on {address.host}:{address.port}.", fix="choose another port for --meet."
            ) from None
        raise Invalid(
            f"Machine 0 cannot listen on {address.host}:{address.port}: {error.strerror}.",
            fix="give --meet an address of machine 0 itself.",
        ) from None


def _unspecified(address: str) -> bool:
    """Return whether an IP address stands for all of this machine."""
    found = ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found.is_unspecified or (mapped is not None and mapped.is_unspecified)


def stop_of(host: Host, stop: Callable[[], int]) -> Callable[[], int]:
    """Return the signal that came to this command, or to that of another machine, or 0."""
    return lambda: stop() or (host.leaving and signal.SIGTERM)
