"""Another machine of a training: it comes to machine 0, and does what that asks until the training is over."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import msgspec

from mainspring.core.errors import Conflict, MainspringError, Unavailable
from mainspring.core.settings import Address
from mainspring.deploy.meeting.certificates import Certificate, digest
from mainspring.deploy.meeting.lines import Line
from mainspring.deploy.meeting.model import Announced, Hello, Welcome, listed
from mainspring.deploy.meeting.tunnel import Entrance
from mainspring.training.loop.signals import Interrupted

_CONNECT_S = 5.0
_WELCOME_S = 30.0
_RETRY_S = 0.5
_HEAR_S = 0.5  # between two looks at signals
_SILENT_S = 60.0  # after which machine 0 is gone
_LEAVE_S = 15.0  # and after a signal to this machine
_LOOPBACK = "127.0.0.1"


class Work(Protocol):
    """The part of this machine in a training."""

    def agrees(self, welcome: Welcome) -> Sequence[str]:
        """Return the names of what differs here from machine 0's; of none, the ranks can be started."""
        ...

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; see `training.distributed.machine`."""
        ...

    def end(self) -> None:
        """End the ranks of this machine."""
        ...


class Guest:
    """This machine, which comes to machine 0.

    Args:
        host: Returns machine 0 as it is announced, `None` if it is not.
        hello: What is told of this machine.
        stop: Number of a signal, or 0.
        wait_s: Longest time without machine 0.
        tell: Called with a sentence on what is waited for.
    """

    def __init__(
        self, certificate: Certificate, host: Callable[[], Announced | None], hello: Hello, work: Work,
        *, stop: Callable[[], int], wait_s: float, tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._certificate, self._host, self._hello, self._work = certificate, host, hello, work
        self._stop, self._wait_s, self._tell = stop, wait_s, tell
        self._said = "is not announced in the catalog"

    def run(self) -> Mapping[str, Any]:
        """Take part until machine 0 says that the training is over; return what it says.

        Raises:
            Conflict: This machine would train something else, or has another's number.
            Unavailable: Machine 0 was not there for `wait_s` seconds.
            Interrupted: A signal came.
        """
        while True:
            line, host = self._join()
            entrance = Entrance(partial(self._tunnel, host))
            try:
                last = self._serve(line, entrance)
            finally:
                line.close()
                entrance.close()
                self._work.end()
            if last is not None:
                return last
            self._tell("machine 0 is gone; wait for it to come back")

    def _join(self) -> tuple[Line, Announced]:
        """Come to machine 0 and get ready, within the time."""
        until = time.monotonic() + self._wait_s
        while True:
            if number := self._stop():
                raise Interrupted(number, "This machine was stopped by a signal before it trained.")
            host = self._announced()
            if host is not None and (line := self._tried(host)) is not None:
                return line, host
            if time.monotonic() > until:
                raise Unavailable(
                    f"Machine 0 {self._said}, for {self._wait_s:g} s.",
                    fix="start the same command there with --machine 0 and --meet HOST:PORT, an address of that "
                    "machine which this one reaches; both need the same catalog.",
                )
            self._tell(f"wait for machine 0, which {self._said}")
            time.sleep(_RETRY_S)

    def _announced(self) -> Announced | None:
        try:
            host = self._host()
        except Unavailable as error:  # the catalog may come back
            self._said = f"cannot be found: {error.what}"
            return None
        self._said = "is not announced in the catalog" if host is None else self._said
        return host

    def _tried(self, host: Announced) -> Line | None:
        try:
            line = Line(self._connected(host))
            try:
                return self._welcomed(line, host)
            except BaseException:
                line.close()
                raise
        except (OSError, Unavailable, msgspec.ValidationError) as error:
            self._said = f"does not answer at {host.address} ({error})"
            return None

    def _welcomed(self, line: Line, host: Announced) -> Line | None:
        welcome = msgspec.convert(line.ask(msgspec.to_builtins(self._hello), _WELCOME_S), Welcome)
        if welcome.refused:
            raise Conflict(welcome.refused, fix="give all machines the same files, packages, stores and --machines.")
        if welcome.taken:
            self._said = f"at {host.address} says that {welcome.taken} is machine {self._hello.machine} already"
            line.close()
            return None
        differs = list(self._work.agrees(welcome))
        line.send({"differs": differs})
        if differs:
            raise Conflict(
                f"Machine {self._hello.machine} would not train what machine 0 does; these differ: {listed(differs)}.",
                fix="give all machines the same stores in their profiles: lake, catalog and checkpoints.",
            )
        return line

    def _serve(self, line: Line, entrance: Entrance) -> Mapping[str, Any] | None:
        """Answer machine 0; return its last word, `None` if it is gone without one."""
        heard = time.monotonic()
        while True:
            try:
                request = line.receive(_HEAR_S)
            except TimeoutError:
                if time.monotonic() - heard > (_LEAVE_S if self._stop() else _SILENT_S):
                    return None
                continue
            except (OSError, MainspringError):
                return None
            heard = time.monotonic()
            if request["do"] == "closed":
                last: Mapping[str, Any] = request
                return last
            if request["do"] == "start":
                request["variables"] |= {"MASTER_ADDR": _LOOPBACK, "MASTER_PORT": str(entrance.port)}
            answer = self._work.ask(request)
            with suppress(OSError):  # its last word may be there all the same
                line.send({**answer, "leaving": self._stop()})

    def _tunnel(self, host: Announced) -> ssl.SSLSocket:
        secure = self._connected(host)
        Line(secure).send({"as": "store"})
        return secure

    def _connected(self, host: Announced) -> ssl.SSLSocket:
        address = Address.parse(host.address)
        context = self._certificate.context([host.certificate], server=False)
        secure = context.wrap_socket(socket.create_connection((address.host, address.port), _CONNECT_S))
        if digest(secure.getpeercert(binary_form=True) or b"") != digest(host.der):
            secure.close()
            raise OSError("it is another process")
        return secure
