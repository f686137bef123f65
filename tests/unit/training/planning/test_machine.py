"""Topology of a machine from trees as /sys has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.core.gpus import LinkedGpu
from mainspring.training.planning.machine import gpus_here, processors_here

SPEED = {3: "8.0 GT/s PCIe", 4: "16.0 GT/s PCIe", 5: "32.0 GT/s PCIe"}
SWITCHES = ("0000:90:00.0", "0000:91:00.0")


class Sys:
    """A tree with bridges and devices, each linked from `bus/pci/devices` as the kernel does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bus/pci/devices").mkdir(parents=True)

    def device(self, bus: str, *, bridge: str, node: int, generation: int = 4, bridged: int = 4) -> None:
        tree = self.root / "devices/pci0000:00" / bridge
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "max_link_speed").write_text(SPEED[bridged] + "\n")
        (tree / "max_link_width").write_text("16\n")
        place = tree / bus
        place.mkdir()
        (place / "max_link_speed").write_text(SPEED[generation] + "\n")
        (place / "max_link_width").write_text("16\n")
        (place / "numa_node").write_text(f"{node}\n")
        (self.root / "bus/pci/devices" / bus).symlink_to(place)

    def interface(self, name: str, megabits: int, *, physical: bool = True) -> None:
        folder = self.root / "class/net" / name
        folder.mkdir(parents=True)
        (folder / "speed").write_text(f"{megabits}\n")
        if physical:
            (folder / "device").mkdir()

    def infiniband(self, name: str, rate: str) -> None:
        folder = self.root / "class/infiniband" / name / "ports/1"
        folder.mkdir(parents=True)
        (folder / "rate").write_text(rate + "\n")


def gpu(number: int, name: str = "Tesla T4", **links: object) -> LinkedGpu:
    return LinkedGpu(number, name, 15 << 30, f"0000:{number + 16:02x}:00.0", **links)  # type: ignore[arg-type]


@pytest.fixture
def sys(tmp_path: Path) -> Sys:
    return Sys(tmp_path)


def test_gpus_behind_nvswitches_are_one_island(sys: Sys) -> None:
    found = [gpu(n, "NVIDIA H100 80GB HBM3", nvlinks=18, peers=SWITCHES, nvlink_version=4) for n in range(8)]
    for each in found:
        sys.device(each.bus, bridge=f"0000:0{each.number}:01.0", node=each.number // 4, generation=5, bridged=5)
    here = gpus_here(sys=sys.root, gpus=found)
    assert here is not None
    assert here.device.name == "H100"
    assert [(link.joins, link.name, link.gb_s) for link in here.links] == [(8, "NVLink 4", 450.0)]


def test_gpus_on_pcie_have_the_narrowest_link_of_their_path(sys: Sys) -> None:
    found = [gpu(n) for n in range(4)]
    for each in found:
        sys.device(each.bus, bridge=f"0000:0{each.number}:01.0", node=0, generation=3, bridged=4)
    here = gpus_here(sys=sys.root, gpus=found)
    assert here is not None
    assert [(link.joins, link.name) for link in here.links] == [(4, "PCIe")]
    assert here.links[0].gb_s == pytest.approx(15.75, abs=0.01)  # PCIe 3 x16, whatever the bridge could
    assert here.host_gib > 0


def test_a_slower_bridge_limits_its_devices(sys: Sys) -> None:
    for each in (found := [gpu(n) for n in range(2)]):
        sys.device(each.bus, bridge="0000:01:01.0", node=0, generation=5, bridged=3)
    here = gpus_here(sys=sys.root, gpus=found)
    assert here is not None
    assert here.links[0].gb_s == pytest.approx(15.75, abs=0.01)


def test_nvlink_pairs_and_numa_nodes_are_levels_and_neighbours_are_put_beside_each_other(sys: Sys) -> None:
    pair = {0: 2, 2: 0, 1: 3, 3: 1}  # not neighbours by number
    found = [gpu(n, "NVIDIA A100-SXM4-80GB", nvlinks=4, nvlink_version=3, peers=(gpu(pair[n]).bus,)) for n in range(4)]
    for each in found:
        sys.device(each.bus, bridge=f"0000:0{each.number}:01.0", node=each.number % 2)
    here = gpus_here(sys=sys.root, gpus=found)
    assert here is not None
    assert [(link.joins, link.name) for link in here.links] == [(2, "NVLink 3"), (4, "PCIe between NUMA nodes")]
    assert here.links[0].gb_s == 100.0
    assert any("CUDA_VISIBLE_DEVICES=0,2,1,3" in note for note in here.notes)


def test_different_gpus_are_taken_as_the_slowest_and_said(sys: Sys) -> None:
    for each in (found := [gpu(0, "NVIDIA L4"), gpu(1, "Tesla T4")]):
        sys.device(each.bus, bridge="0000:01:01.0", node=0)
    here = gpus_here(sys=sys.root, gpus=found)
    assert here is not None
    assert (here.device.name, here.device.memory) == ("T4", 15 << 30)
    assert "Tesla T4" in here.notes[0]


@pytest.mark.parametrize(
    ("ports", "rate", "name"),
    [(["400 Gb/sec (4X NDR)"] * 2, 50.0, "InfiniBand"), ([], 12.5, "Ethernet")],
)
def test_the_network_is_infiniband_or_the_fastest_physical_interface(
    sys: Sys, ports: list[str], rate: float, name: str
) -> None:
    for each in (found := [gpu(0), gpu(1)]):
        sys.device(each.bus, bridge="0000:01:01.0", node=0)
    sys.interface("eth0", 10_000)
    sys.interface("eth1", 200_000)
    sys.interface("veth9", 400_000, physical=False)
    sys.interface("down0", -1)
    for number, port in enumerate(ports):
        sys.infiniband(f"mlx5_{number}", port)
    here = gpus_here(2, sys=sys.root, gpus=found)
    assert here is not None
    assert (here.size, here.links[-1].joins, here.links[-1].gb_s) == (4, 4, rate)
    assert here.links[-1].name.startswith(name)


def test_what_the_machine_does_not_tell_is_named(sys: Sys) -> None:
    with pytest.raises(Invalid, match="GTX 970"):
        gpus_here(sys=sys.root, gpus=[gpu(0, "NVIDIA GeForce GTX 970")])
    for each in (found := [gpu(0), gpu(1)]):
        sys.device(each.bus, bridge="0000:01:01.0", node=0)
    with pytest.raises(Invalid, match="network"):
        gpus_here(2, sys=sys.root, gpus=found)
    with pytest.raises(Invalid, match="link of the GPU"):
        gpus_here(sys=sys.root, gpus=[gpu(7), gpu(8)])
    assert gpus_here(sys=sys.root, gpus=[]) is None


def test_cores_share_the_memory_of_the_machine() -> None:
    here = processors_here(4)
    assert (here.size, here.links[0].joins, here.measured) == (4, 4, True)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert here.device.memory * 4 == pytest.approx(total)
