"""Two slots, of which one is always a whole, signed package: updates are written to the other.

A package is activated only once it is verified and its self-test passes. It is then on trial: until `confirm`, a device
that starts too often, or whose `go_back` is called, returns to the slot before. Nothing trusts the state file alone:
whatever slot it names is verified at each start.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mainspring_edge.errors import EdgeError, Refused
from mainspring_edge.files import make_folder, remove_durable, sync_folder
from mainspring_edge.memory import Memory
from mainspring_edge.package import SIGNATURE

SLOTS = ("a", "b")
STARTS = 3  # of a package on trial; the next start goes back
_KEPT_FAILURES = 32


class Loaded(Protocol):
    """A package that can predict, as `mainspring_edge.load` returns it."""

    name: str
    version: int

    def self_test(self) -> None: ...


class Load(Protocol):
    """Verifies the package in a folder and returns it. Raises `EdgeError` if it is refused."""

    def __call__(self, folder: Path, trusted_key: bytes | str, *, name: str | None) -> Loaded: ...


@dataclass(frozen=True, slots=True)
class Started:
    """The package that a device runs, and why it is not the one that was active, if so."""

    device: Loaded
    slot: str
    went_back: str = ""


class NoPackage(EdgeError):
    """Neither slot has a package that this device may run."""


class Slots:
    """The two slots of a device, in `memory.folder`.

    Args:
        load: `mainspring_edge.load`.
        trusted_key: Public key that must have signed a package.
        name: Name of the package that this device runs.
    """

    def __init__(self, memory: Memory, load: Load, trusted_key: bytes | str, name: str) -> None:
        self._memory, self._load, self._key, self._name = memory, load, trusted_key, name

    def start(self) -> Started:
        """Return the package to run: the active slot's, or, where that is not whole or failed too often, the other's.

        Raises:
            NoPackage: Neither can be run; the message has both reasons.
        """
        state = self._memory.state
        reasons: list[str] = []
        if state.active in SLOTS:
            if state.trial and state.starts >= STARTS:
                reasons.append(f"it was started {state.starts} times without becoming healthy")
            else:
                if state.trial:  # counted before it runs: a package that takes the device down is counted too
                    self._memory.keep(starts=state.starts + 1)
                try:
                    return Started(self._tested(state.active), state.active)
                except EdgeError as error:
                    reasons.append(str(error))
        return self._other(reasons)

    def _other(self, reasons: list[str]) -> Started:
        """Return the best whole slot beside the active one, and make it active."""
        active, why = self._memory.state.active, "; ".join(reasons)
        found: list[tuple[int, str, Loaded]] = []
        for slot in SLOTS:
            if slot == active:
                continue
            try:
                device = self._tested(slot)
            except EdgeError as error:
                reasons.append(f"slot {slot}: {error}")
            else:
                found.append((device.version, slot, device))
        if not found:
            raise NoPackage("This device has no package that it may run. " + " ".join(reasons))
        _, slot, device = max(found, key=lambda each: each[0])
        self._failed(active, why)
        self._memory.keep(active=slot, trial=False, starts=0)
        return Started(device, slot, why)

    def install(self, version: int, fill: Callable[[Path, Path | None], None]) -> Started:
        """Write a package into the inactive slot, verify and test it, and activate it on trial.

        Args:
            fill: Writes the files of the package durably into the first folder, the signature last. The second folder
                is the active slot, whose equal files need not be fetched.

        Raises:
            Refused: The package is not what was asked for, or its signature or self-test fails; the active slot is
                untouched, and the version is not tried again.
        """
        active = self._memory.state.active
        slot = SLOTS[1] if active == SLOTS[0] else SLOTS[0]
        folder, before = self._memory.folder / slot, self._memory.folder / active if active else None
        make_folder(folder)
        remove_durable(folder / SIGNATURE)  # a slot that is half written has no signature
        fill(folder, before)
        try:
            device = self._tested(slot)
            if device.version != version:
                raise Refused("version", f"The package is of version {device.version}; {version} was asked for.")
        except EdgeError as error:
            self._keep_failure(str(version), str(error))
            raise
        self._memory.keep(active=slot, trial=before is not None, starts=1)
        return Started(device, slot)

    def other(self, version: int) -> bool:
        """Return whether the inactive slot has this version, whole."""
        for slot in SLOTS:
            if slot != self._memory.state.active:
                try:
                    return self._tested(slot).version == version
                except EdgeError:
                    return False
        return False

    def switch(self) -> Started:
        """Activate the inactive slot, which `other` found whole."""
        slot = SLOTS[1] if self._memory.state.active == SLOTS[0] else SLOTS[0]
        device = self._tested(slot)
        self._memory.keep(active=slot, trial=False, starts=0)
        return Started(device, slot)

    def confirm(self) -> None:
        """End the trial of the active slot: it was healthy for long enough."""
        self._memory.keep(trial=False, starts=0)

    def go_back(self, why: str) -> Started:
        """Return to the slot before the one on trial.

        Raises:
            NoPackage: The other slot is not whole; the active one stays.
        """
        return self._other([why])

    def clear(self) -> None:
        """Remove what an interrupted update left in the inactive slot, to free its space."""
        for slot in SLOTS:
            if slot != self._memory.state.active and (self._memory.folder / slot).exists():
                remove_durable(self._memory.folder / slot / SIGNATURE)
                shutil.rmtree(self._memory.folder / slot)
                sync_folder(self._memory.folder)

    def _tested(self, slot: str) -> Loaded:
        device = self._load(self._memory.folder / slot, self._key, name=self._name)
        device.self_test()
        return device

    def _failed(self, slot: str, why: str) -> None:
        """Remember the version of a slot as failed, if that can be read."""
        if not slot:
            return
        try:
            version = self._load(self._memory.folder / slot, self._key, name=self._name).version
        except EdgeError:  # a damaged slot is not the fault of its version
            return
        self._keep_failure(str(version), why)

    def _keep_failure(self, version: str, why: str) -> None:
        failed = {**self._memory.state.failed, version: why[:500]}
        newest = sorted(failed, key=int)[-_KEPT_FAILURES:]
        self._memory.keep(failed={each: failed[each] for each in newest})
