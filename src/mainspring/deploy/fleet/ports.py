"""Ports of a fleet's control: a store of devices and rollouts, and messages to and from devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from mainspring.deploy.fleet.model import Device, Refusal, Rollout, Uploaded


class Arrived(NamedTuple):
    """A message from a device's topic, which anyone may have written. `kept`: the broker had kept it."""

    device: str
    content: bytes
    kept: bool


class Messages(Protocol):
    """Messages to and from devices. Not thread-safe."""

    def poll(self, wait_s: float = 0.0) -> list[Arrived]:
        """Return reports that arrived, in order; connect if need be.

        Raises:
            Unavailable: The broker does not answer.
        """
        ...

    def send(self, desired: Mapping[str, bytes]) -> None:
        """Send desired states by device. The broker keeps the last of each for devices that are off.

        Raises:
            Unavailable: The broker does not answer.
        """
        ...

    def check(self) -> None:
        """Raise if the broker does not take the project, by a connection that disturbs no other.

        Raises:
            Unavailable: The broker does not answer.
            Denied: It refuses the project.
        """
        ...

    @property
    def session(self) -> int:
        """Number of the connection: in a new one everything is sent again, as the broker may have lost it."""
        ...

    def close(self) -> None: ...


class FleetStore(Protocol):
    """Devices, rollouts and refusals."""

    def add(self, device: Device) -> None:
        """Add a device. Raises `Conflict` if its id is there with another key."""
        ...

    def remove(self, id: str) -> None:
        """Remove a device. Raises `NotFound`."""
        ...

    def devices(self) -> list[Device]:
        """Return all devices, by id."""
        ...

    def device(self, id: str) -> Device | None: ...

    def keep(self, devices: Sequence[Device]) -> None:
        """Store changed devices. One that was removed meanwhile stays removed."""
        ...

    def begin(self, rollout: Rollout) -> Rollout:
        """Store a new rollout. Raises `Conflict` if its package has a running one."""
        ...

    def replace(self, rollout: Rollout) -> Rollout:
        """Store a changed rollout. Raises `Conflict` if it was changed since it was read."""
        ...

    def rollouts(self, package: str | None = None, limit: int = 50) -> list[Rollout]:
        """Return rollouts, newest first."""
        ...

    def refuse(self, refusals: Mapping[tuple[str, str], int], at: int) -> None:
        """Count refused messages by (device, reason). The newest 200 pairs are kept: anyone can send some."""
        ...

    def refusals(self) -> list[Refusal]:
        """Return refused messages, newest first."""
        ...

    def uploads(self) -> list[Uploaded]:
        """Return how far each queue was taken, by device."""
        ...

    def upload(self, device: str, queue: str) -> Uploaded:
        """Return how far a queue was taken."""
        ...

    def take(self, upload: Uploaded, waiting: Sequence[bytes] = (), days: Mapping[int, bytes] = {}) -> None:
        """Store how far a queue was taken, and with it the sketches of what was taken, all or nothing.

        Args:
            waiting: Sketches that wait to be added to the monitor's store.
            days: Start of a day -> the device's sketches, in place of those before. Old days are forgotten.
        """
        ...

    def days(self, device: str) -> dict[int, bytes]:
        """Return the sketches of a device's last days."""
        ...

    def waiting(self, most: int) -> tuple[str, list[bytes]] | None:
        """Return sketches that wait, under a key that they keep until `added`; `None` if none wait."""
        ...

    def added(self, key: str) -> None:
        """Forget the sketches of a key: the monitor's store has them."""
        ...
