"""What a device remembers between starts, in one file that is always whole."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mainspring_edge.errors import Refused
from mainspring_edge.files import make_folder, write_durable

STATE, KEY = "state.json", "device.key"
DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class State:
    """State of a device.

    Attributes:
        active: The slot to start from, `a` or `b`.
        trial: Whether the active slot is on trial: it has not been healthy for long enough yet.
        starts: Starts of the active slot during its trial.
        failed: Version -> why this device went back from it. It is not tried again.
        revision: The largest revision of a desired state that was accepted. An older one is a replay.
        time_us: The latest instant known to be past, UTC epoch microseconds: a floor for this device's clock.
        seen: Role of TUF -> the largest version seen.
        sequence: Number of the last report.
    """

    active: str = ""
    trial: bool = False
    starts: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    revision: int = 0
    time_us: int = 0
    seen: Mapping[str, int] = field(default_factory=dict)
    sequence: int = 0


class Memory:
    """A device's state in `folder/state.json`. A file that cannot be read is treated as missing."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.folder = folder
        self._path = folder / STATE
        self.state = self._read()

    def keep(self, **changed: Any) -> State:
        """Change the state, durably, and return it."""
        state = replace(self.state, **changed)
        if state != self.state:
            write_durable(self._path, json.dumps(asdict(state), sort_keys=True).encode())
            self.state = state
        return state

    def _read(self) -> State:
        try:
            found = json.loads(self._path.read_bytes())
            return State(**{each.name: found[each.name] for each in fields(State) if each.name in found})
        except (OSError, ValueError, TypeError):  # the slots are signed, and are found without it
            return State()


def device_key(folder: Path) -> Ed25519PrivateKey:
    """Return this device's own key, created at its first start. It signs what the device reports.

    Raises:
        Refused: Its file is damaged: with another key the control plane would refuse the device.
    """
    path = folder / KEY
    if not path.exists():
        make_folder(folder)
        write_durable(path, Ed25519PrivateKey.generate().private_bytes_raw())
    content = path.read_bytes()
    if len(content) != 32:
        raise Refused("key", f"{path} has {len(content)} bytes, not 32: remove it, and register the device again.")
    return Ed25519PrivateKey.from_private_bytes(content)


def check_device_id(device: str) -> str:
    """Return a device's id.

    Raises:
        Refused: It is not one: topics, files and pages contain it.
    """
    if DEVICE_ID.fullmatch(device) is None:
        raise Refused("name", f"{device!r:.80} is no id of a device: use 1 to 64 letters, digits, `_`, `.` and `-`.")
    return device
