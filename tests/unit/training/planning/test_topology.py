"""Topologies from description files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.accelerators import parse_group
from mainspring.core.errors import Invalid, NotFound
from mainspring.training.planning.topology import Topology, described, of_group

PAIRS = """
device = "A100-80"
devices = 8
machines = 2
host_gib = 1024

[[links]]
joins = 2
name = "NVLink bridge"
gb_s = 300
[[links]]
joins = 8
name = "PCIe 4 x16"
gb_s = 25
latency_us = 9
[[links]]
joins = 16
name = "InfiniBand"
gb_s = 12.5
"""


def read(tmp_path: Path, text: str) -> Topology:
    path = tmp_path / "machines.toml"
    path.write_text(text)
    return described(path)


def test_a_file_describes_levels_of_links(tmp_path: Path) -> None:
    found = read(tmp_path, PAIRS)
    assert (found.size, found.fastest, found.offloads, found.said()) == (16, 2, True, "2x8xA100-80")
    assert found.device == parse_group("A100-80").gpu
    assert [round(link.latency_s * 1e6) for link in found.links] == [3, 9, 6]
    assert found.between(2, 1)[0].name == "NVLink bridge"
    assert found.between(4, 2)[0].name == "PCIe 4 x16"
    assert found.between(8, 1) == (found.links[1], 50e9)  # two members of a ring in each pair
    assert found.between(2, 8) == (found.links[2], 12.5e9)


def test_a_device_can_be_described_too(tmp_path: Path) -> None:
    text = "devices = 1\n[device]\nmemory_mib = 131072\nbandwidth_gb_s = 273\ntflops = { bf16 = 125 }\n"
    assert read(tmp_path, text).device.memory == 128 * 2**30


def test_numbers_of_processes_are_whole_machines(tmp_path: Path) -> None:
    assert list(read(tmp_path, PAIRS).counts()) == [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2)]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("joins = 8", "joins = 3", "whole groups"),
        ("joins = 16", "joins = 32", "there are 16"),
        ("gb_s = 25", "gb_s = 0", "above 0"),
        ("gb_s = 25", "gb_s = nan", "above 0"),
        ("devices = 8", "devices = 0", "0 devices"),
        ("devices = 8", "devices = 9999999", "9999999"),
        ("devices = 8", 'devices = "many"', "int"),
        ("host_gib = 1024", "host_gib = -1", "main memory"),
        ("host_gib = 1024", "hosts = 1024", "hosts"),
        ('device = "A100-80"', "device = 3", "object"),
        ("joins = 2\n", "", "joins"),
        ("[[links]]", "[[links", "cannot be read"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in PAIRS
    with pytest.raises(Invalid, match=said):
        read(tmp_path, PAIRS.replace(before, after, 1))


def test_an_unknown_gpu_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="B9000"):
        read(tmp_path, PAIRS.replace("A100-80", "B9000"))
    with pytest.raises(NotFound, match=r"absent\.toml cannot be read.*name a TOML or JSON file.*plan-a-training"):
        described(tmp_path / "absent.toml")


def test_gpus_of_the_table_have_the_link_of_their_datasheet() -> None:
    found = of_group(parse_group("2x8xH100"))
    assert [(link.joins, link.gb_s) for link in found.links] == [(8, 450), (16, 50)]
    assert of_group(parse_group("T4")).links == ()
