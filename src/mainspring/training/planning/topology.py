"""Devices of a training and the links between them, from a description file or from what the machine tells.

Links are levels, from the fastest to the slowest: each joins so many neighbouring devices, and a level joins whole
groups of the one before it, such as pairs with NVLink bridges, machines, and a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mainspring.core.accelerators import Gpu, Group, parse_group, read_fields
from mainspring.core.errors import Invalid

_LATENCIES = (("nvlink", 3.0), ("fabric", 3.0), ("pcie", 8.0), ("infiniband", 6.0), ("efa", 15.0), ("loopback", 40.0))
_OTHER = 25.0  # microseconds between two neighbours of a ring, over Ethernet
NETWORK_GB_S = 50.0
_MOST = 4096  # devices
T = TypeVar("T")


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link between `joins` devices: 10^9 bytes a second of each device in one direction, and its latency."""

    joins: int
    name: str
    gb_s: float
    latency_us: float = 0.0

    def __post_init__(self) -> None:
        if self.joins < 2 or not 0 < self.gb_s < 1e6 or not 0 <= self.latency_us < 1e7:
            raise ValueError("a link joins at least 2 devices, with gb_s above 0 and a latency from 0")

    @property
    def latency_s(self) -> float:
        """Seconds from one neighbour to the next."""
        known = next((each for name, each in _LATENCIES if name in self.name.lower().replace(" ", "")), _OTHER)
        return (self.latency_us or known) * 1e-6

    def said(self) -> str:
        """Return the link in words."""
        return f"{self.name} ({self.gb_s:g} GB/s)"


class Topology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machines with `devices` each.

    Attributes:
        host_gib: Main memory of a machine; 0: not known, and nothing is kept there.
        host_gb_s: Between a device and main memory, while all devices of the machine use it.
        overlaps: Share of the time of computing during which sums and gathers go on beside it.
        measured: TFLOPS that were measured here, and not read in a datasheet: taken as they are.
    """

    device: Gpu
    devices: int
    machines: int = 1
    links: tuple[Link, ...] = ()
    host_gib: float = 0.0
    host_gb_s: float = 12.0
    overlaps: float = 0.8
    measured: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        joins = [link.joins for link in self.links]
        if not 0 < self.size <= _MOST or self.devices < 1:
            raise ValueError(f"there are {self.machines} machines with {self.devices} devices")
        if not 0 <= self.overlaps <= 1 or self.host_gib < 0 or self.host_gb_s <= 0:
            raise ValueError("overlaps is a share, and main memory has a size and a rate")
        if self.size > 1 and (not joins or joins[-1] != self.size):
            raise ValueError(f"the last link joins {joins[-1] if joins else 0} devices, but there are {self.size}")
        if any(far % near or far <= near for near, far in pairwise(joins)):
            raise ValueError(f"the links join {joins} devices; each must join whole groups of the one before")

    @property
    def size(self) -> int:
        """Devices of all machines."""
        return self.devices * self.machines

    @property
    def fastest(self) -> int:
        """Devices that the fastest link joins."""
        return min(self.links[0].joins, self.devices) if self.links else 1

    @property
    def offloads(self) -> bool:
        """Whether main memory is known, so that something can be kept there."""
        return self.host_gib > 0

    def counts(self) -> Iterator[tuple[int, int]]:
        """Yield numbers of processes of a machine, and of machines, that a training can have."""
        for processes in range(1, self.devices + 1):
            if self.devices % processes == 0:
                yield processes, 1
        for machines in range(2, self.machines + 1):
            if self.machines % machines == 0:
                yield self.devices, machines

    def between(self, size: int, stride: int) -> tuple[Link, float]:
        """Return the slowest link of a ring of `size` devices, `stride` apart, and its bytes a second for each.

        Devices of a group that has several members cross a slower link together, each on its own lane.
        """
        found, near = None, 1
        for link in self.links:
            if link.joins <= stride:
                near = link.joins
                continue
            members = max(1, min(size, near // stride))
            rate = link.gb_s * members * 1e9
            if found is None or rate < found[1]:
                found = link, rate
            near = link.joins
            if link.joins >= size * stride:
                break
        if found is None:
            raise Invalid(f"No link joins {size} devices.")
        return found

    def said(self) -> str:
        """Return the devices in words."""
        each = f"{self.devices}x{self.device.name}"
        return each if self.machines == 1 else f"{self.machines}x{each}"


def of_group(group: Group, network_gb_s: float = NETWORK_GB_S) -> Topology:
    """Return GPUs of the table, with the link of their datasheet inside a machine."""
    links = [Link(joins=group.per_node, name=group.gpu.link, gb_s=group.gpu.link_gb_s)] if group.per_node > 1 else []
    if group.nodes > 1:
        links.append(Link(joins=group.count, name="network", gb_s=network_gb_s))
    return Topology(device=group.gpu, devices=group.per_node, machines=group.nodes, links=tuple(links))


def described(path: Path) -> Topology:
    """Return the topology that a file describes.

    Raises:
        NotFound: There is no such file, or no such GPU.
        Invalid: The description is damaged, or contradicts itself.
    """
    fields: dict[str, Any] = dict(read_fields(path))
    device = fields.pop("device", None)
    if isinstance(device, str):
        gpu = parse_group(device).gpu
    else:
        gpu = _converted(path, {"name": path.stem, **device} if isinstance(device, dict) else device, Gpu)
    return _converted(path, {**fields, "device": msgspec.to_builtins(gpu)}, Topology)


def _converted(path: Path, fields: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise Invalid(
            f"{path} does not describe a topology: {error}.", fix="docs/howto/plan-a-training.md has its fields."
        ) from error
