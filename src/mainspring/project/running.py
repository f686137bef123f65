"""Record of the running processes, which the supervisor writes to the state folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec

from mainspring.core.files import write_atomic
from mainspring.core.process_usage import ancestors
from mainspring.core.settings import Address, Settings

UP_LOCK = "up"  # lock of the state folder, held while the project is up
_FILE = "run.json"


class Running(msgspec.Struct, frozen=True):
    """The supervisor's process, the addresses of its planes, and its children's processes by name.

    The address of a plane that does not run there is empty.
    """

    pid: int
    profile: str
    gateway: str
    control: str
    children: dict[str, int]
    silenced: dict[str, int] = {}  # child -> number of kills because it did not respond

    @property
    def told(self) -> str:
        """The process and its addresses, in words."""
        planes = (("predictions", self.gateway), ("console", self.control))
        return ", ".join([f"process {self.pid}", *(f"{name} {url}" for name, url in planes if url)])


def write_running(state: Path, running: Running) -> None:
    """Write the running processes to the state folder."""
    write_atomic(state / _FILE, msgspec.json.encode(running))


def forget_running(state: Path) -> None:
    """Remove the record of running processes."""
    (state / _FILE).unlink(missing_ok=True)


def read_running(state: Path) -> Running | None:
    """Return the processes recorded in the state folder; they may have ended (see `alive`)."""
    try:
        return msgspec.json.decode((state / _FILE).read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def where_up(settings: Settings) -> Settings:
    """Return the settings with the addresses at which this profile is up now; `up --gateway` may override them."""
    running = read_running(settings.state)
    if running is None or running.profile != settings.profile or not alive(running.pid):
        return settings
    gateway = _address(running.gateway) if running.gateway else settings.gateway
    control = _address(running.control) if running.control else settings.control
    return replace(settings, gateway=gateway, control=control)


def _address(url: str) -> Address:
    scheme, _, place = url.partition("://")
    return replace(Address.parse(place), secure=scheme == "https")


def machine_name() -> str:
    """Return the name of this machine in records of usage."""
    return os.uname().nodename[:64]


def belongs_to_up(state: Path) -> bool:
    """Return whether this process was started by the supervisor of a state folder, or by a child of it."""
    running = read_running(state)
    return running is not None and running.pid in ancestors(os.getpid())


def alive(pid: int) -> bool:
    """Return whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
