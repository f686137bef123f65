"""Devices and links of this machine: GPUs by NVML and Linux's /sys, else the cores of its processor.

/sys has the tree of PCI bridges with the speed and width of each link, the NUMA node of each device, and the rates of
network interfaces (sysfs-bus-pci, sysfs-class-net and sysfs-class-infiniband of docs.kernel.org/admin-guide/abi.html).
NVML has names, memory and NVLinks. A link between GPUs of different NUMA nodes goes through the processors: it is taken
to have half of the rate of PCIe.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from mainspring.core.accelerators import Gpu, parse_group
from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.gpus import LinkedGpu, linked_gpus
from mainspring.training.planning.topology import Link, Topology

SYS = Path("/sys")
_NVLINK_GB_S = {1: 20.0, 2: 25.0, 3: 25.0, 4: 25.0, 5: 50.0}  # of one NVLink in one direction, by generation
_ACROSS_NUMA = 0.5
_LOOPBACK = Link(joins=2, name="loopback (gloo)", gb_s=1.2, latency_us=60.0)
_PHYSICAL = "device"  # an entry that an interface of hardware has


def gpus_here(machines: int = 1, *, sys: Path = SYS, gpus: Sequence[LinkedGpu] | None = None) -> Topology | None:
    """Return the GPUs of this machine, or of `machines` equal ones; `None` without a GPU.

    Raises:
        Invalid: The table has no such GPU, or the network of the machines is not known.
    """
    found = linked_gpus() if gpus is None else list(gpus)
    if not found:
        return None
    names = {each.name for each in found}
    device = _known(found[0].name)
    notes = []
    if len(names) > 1:
        slowest = min((_known(name) for name in names), key=lambda gpu: gpu.flops("bf16"))
        device = msgspec.structs.replace(slowest, memory_mib=min(each.memory for each in found) / 2**20)
        notes.append(
            f"The GPUs differ ({', '.join(sorted(names))}): each is taken as the slowest, with the least memory."
        )
    ordered, links = _levels(found, sys)
    if [each.number for each in ordered] != [each.number for each in found]:
        order = ",".join(str(each.number) for each in ordered)
        notes.append(f"Neighbours have the fastest links with CUDA_VISIBLE_DEVICES={order}.")
    if machines > 1:
        links = (*links, _network(sys, len(found), machines))
    return Topology(
        device=device, devices=len(found), machines=machines, links=links, host_gib=_main_memory() / 2**30,
        notes=tuple(notes),
    )  # fmt: skip


def processors_here(cores: int = 0) -> Topology:
    """Return the cores of this machine as devices that share its memory; their rate is measured with the model."""
    count = cores or usable_cores()
    device = Gpu(
        name="core", memory_mib=_main_memory() / 2**20 / count, bandwidth_gb_s=5.0, tflops={"fp32": 0.05, "bf16": 0.05}
    )
    links = (msgspec.structs.replace(_LOOPBACK, joins=count),) if count > 1 else ()
    return Topology(device=device, devices=count, links=links, overlaps=0.0, measured=True)


def _known(name: str) -> Gpu:
    short = re.sub(r"^(NVIDIA|AMD|Tesla)\s+", "", re.sub(r"^NVIDIA\s+", "", name))
    try:
        return parse_group(short).gpu
    except NotFound as error:
        raise Invalid(
            f"This machine's GPU, {name!r}, is not in the table.",
            fix="describe it: --topology FILE (docs/howto/plan-a-training.md).",
        ) from error


def _main_memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _levels(gpus: Sequence[LinkedGpu], sys: Path) -> tuple[list[LinkedGpu], tuple[Link, ...]]:
    """Return the GPUs, neighbours beside each other, and the links from the fastest to the slowest."""
    if len(gpus) == 1:
        return list(gpus), ()
    islands, nodes = _islands(gpus), {each.bus: _numa(sys, each.bus) for each in gpus}
    ordered = sorted(gpus, key=lambda each: (nodes[each.bus], islands[each.number], each.number))
    rate = min(_pcie_gb_s(sys, each.bus) for each in gpus)
    links = []
    island = _even([islands[each.number] for each in ordered])
    if island > 1:
        lanes = min(each.nvlinks for each in gpus)
        generation = min(each.nvlink_version for each in gpus)
        each_gb_s = _NVLINK_GB_S.get(generation, 25.0)
        links.append(Link(joins=island, name=f"NVLink {generation}", gb_s=lanes * each_gb_s))
    node = _even([nodes[each.bus] for each in ordered])
    if island < node:
        links.append(Link(joins=node, name="PCIe", gb_s=rate))
    if max(island, node) < len(gpus):
        links.append(Link(joins=len(gpus), name="PCIe between NUMA nodes", gb_s=rate * _ACROSS_NUMA))
    return ordered, tuple(links)


def _even(groups: Sequence[int]) -> int:
    """Return the size of groups of neighbours if all are equal, else 1."""
    sizes = {len(list(members)) for _, members in groupby(groups)}
    return sizes.pop() if len(sizes) == 1 else 1


def _islands(gpus: Sequence[LinkedGpu]) -> dict[int, int]:
    """Return for each GPU the first one that NVLinks reach from it, directly or through a switch."""
    ends = {each.number: {each.bus, *each.peers} for each in gpus}
    found = {each.number: each.number for each in gpus}
    for _ in gpus:  # as often as a chain may be long
        for one in gpus:
            for other in gpus:
                if ends[one.number] & ends[other.number]:
                    found[one.number] = found[other.number] = min(found[one.number], found[other.number])
    return found


def _numa(sys: Path, bus: str) -> int:
    text = _text(sys / "bus/pci/devices" / bus / "numa_node")
    return max(0, int(text)) if text.lstrip("-").isdigit() else 0


def _pcie_gb_s(sys: Path, bus: str) -> float:
    """Return the rate of the narrowest link between a device and the root of its PCI tree, in one direction."""
    place = (sys / "bus/pci/devices" / bus).resolve()
    rates = [rate for folder in (place, *place.parents) if (rate := _rate(folder))]
    if not rates:
        raise Invalid(f"{place} tells no link of the GPU.", fix="describe the topology: --topology FILE.")
    return min(rates)


def _rate(folder: Path) -> float:
    speed = re.match(r"([\d.]+) GT/s", _text(folder / "max_link_speed"))
    width = _text(folder / "max_link_width")
    if speed is None or not width.isdigit() or not 0 < int(width) < 255:
        return 0.0
    transfers = float(speed[1])
    return transfers * int(width) / 8 * (128 / 130 if transfers >= 8 else 0.8)  # 128b/130b, 8b/10b


def _network(sys: Path, devices: int, machines: int) -> Link:
    """Return the network between machines: InfiniBand's ports if there are any, else the fastest interface."""
    ports = [_gbit(_text(each)) for each in sys.glob("class/infiniband/*/ports/*/rate")]
    kind, gbits = "InfiniBand", sum(ports)
    if not gbits:
        kind = "Ethernet"
        speeds = [_text(each.parent / "speed") for each in sys.glob(f"class/net/*/{_PHYSICAL}")]
        gbits = max((int(each) / 1000 for each in speeds if each.isdigit()), default=0.0)
    if not gbits:
        raise Invalid("No network interface tells its speed.", fix="describe the network: --topology FILE.")
    return Link(joins=devices * machines, name=f"{kind} ({gbits:g} Gbit/s a machine)", gb_s=gbits / 8 / devices)


def _gbit(text: str) -> float:
    found = re.match(r"([\d.]+) Gb/sec", text)
    return float(found[1]) if found else 0.0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
