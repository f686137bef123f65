"""Process identity that survives reuse of a pid."""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from mainspring.core.ids import new_id
from mainspring.cost.paying import payers

HOST, BOOT, PID, STARTED = "mainspring.host", "mainspring.boot", "mainspring.pid", "mainspring.process_started"
USER = "mainspring.user"  # user of the process, according to the operating system
STARTER = "mainspring.started_by"  # who started the pipeline in which the process works
PERSON = "mainspring.person"  # who was signed in where the process works
TEAM = "mainspring.team"  # who pays for the work, several separated by commas
TEAM_WHY = "mainspring.team_why"  # one of the constants of `cost.paying`
_starter: ContextVar[str] = ContextVar("mainspring_starter", default="")
_person: ContextVar[Callable[[], str]] = ContextVar("mainspring_person", default=str)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROC = Path("/proc")


def process_tags(pid: int | None = None) -> dict[str, str]:
    """Return tags that identify a process (by default this one) uniquely, for `is_dead`."""
    pid = os.getpid() if pid is None else pid
    own = {HOST: socket.gethostname(), BOOT: _boot(), PID: str(pid), STARTED: _started(pid) or "", USER: local_user()}
    more = {STARTER: _starter.get(), PERSON: _person.get()(), TEAM: payers().text, TEAM_WHY: payers().why}
    return {**own, **{name: who for name, who in more.items() if who}}


def work_as(find: Callable[[], str]) -> None:
    """Ask `find` who is signed in, from now on; it returns an empty name for nobody."""
    _person.set(find)


@contextmanager
def started_by(name: str) -> Iterator[None]:
    """Context of work that somebody else than the user of this process started; an empty name is nobody."""
    before = _starter.set(name)
    try:
        yield
    finally:
        _starter.reset(before)


def current_starter() -> str:
    """Return who started the work of this context, empty for nobody but the user."""
    return _starter.get()


def local_user() -> str:
    """Return the user of this process for audit records; from the kernel, as an environment can be forged."""
    try:
        return f"local:{pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:  # for example in a container
        return f"local:{os.geteuid()}"


def is_dead(tags: Mapping[str, str]) -> bool:
    """Return whether the process that `tags` identify has ended. A process on another host counts as alive."""
    if PID not in tags or tags.get(HOST) != socket.gethostname():
        return False
    if tags.get(BOOT) != _boot():
        return True
    return _is_gone(int(tags[PID]), tags.get(STARTED))


def process_name() -> str:
    """Return a name for a reader of streams in this process that no other has, for `has_ended`."""
    pid, place = os.getpid(), _place()
    started = place and _started(pid)
    identity = f"{place}-{started}" if started else ""  # it is never known to have ended
    return f"{socket.gethostname()[:60]}.{pid}.{identity}.{new_id()[-8:]}"


def has_ended(name: str) -> bool:
    """Return whether the process of a `process_name` is known to have ended: no, if it cannot be seen from here."""
    *_, pid, identity, _ = ("", "", *name.rsplit(".", 3))
    place, _, started = identity.partition("-")
    return bool(place) and place == _place() and _is_gone(int(pid), started)


def _is_gone(pid: int, started: str | None) -> bool:
    """Return whether a process is known to have ended, or to be a zombie: no, where its start cannot be read now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user has the pid
        pass
    now = _started(pid)
    return now is not None and now != started


@cache
def _place() -> str:
    """Return a digest of this boot of the machine and of its processes that this one sees; empty where unknown."""
    try:
        namespace = (_PROC / "self/ns/pid").readlink()  # two containers may have equal pids, and equal names
        own, boot = (_PROC / "self").readlink().name == str(os.getpid()), _boot()
    except OSError:
        return ""
    if not own:  # its pids are those of another namespace
        return ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:10] if boot else ""


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def _started(pid: int) -> str | None:
    """Return the process's start time in an opaque form, for comparison only; empty if it is a zombie, `None` if it
    does not run or is hidden.
    """
    if (_PROC / "self/stat").exists():
        try:
            fields = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return "" if fields[0] in "ZX" else fields[19]  # proc(5): the state and starttime
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return shown.stdout.strip() or None
