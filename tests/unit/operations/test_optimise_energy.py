"""Energy of calls, read from counters in a folder like Linux's powercap."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.gpus import gpu_reader
from mainspring.operations.optimise.energy import energy_source, energy_uj


def package(place: Path, number: int) -> Path:
    folder = place / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "energy_uj").write_text("5000\n")
    (folder / "name").write_text(f"package-{number}\n")
    return folder / "energy_uj"


def test_the_counters_of_all_packages_count(tmp_path: Path) -> None:
    counters = [package(tmp_path, number) for number in (0, 1)]
    for more, name in (("0:0", "core"), ("2", "psys")):  # a part of a package, and what has both
        (tmp_path / f"intel-rapl:{more}").mkdir()
        (tmp_path / f"intel-rapl:{more}" / "name").write_text(f"{name}\n")
        (tmp_path / f"intel-rapl:{more}" / "energy_uj").write_text("7\n")
        counters.append(tmp_path / f"intel-rapl:{more}" / "energy_uj")

    def call(_: int) -> None:
        for each in counters:
            each.write_text(str(int(each.read_text()) + 640))

    assert energy_uj(call, 64, place=tmp_path) == pytest.approx(20.0)
    assert energy_source(place=tmp_path) == "RAPL counters of 2 processor packages"


def test_where_nothing_can_be_read_it_says_why(tmp_path: Path) -> None:
    assert energy_source(place=tmp_path) == f"not read: this system has no RAPL counters in {tmp_path}"
    counter = package(tmp_path, 0)
    counter.unlink()
    counter.mkdir()  # unreadable for everybody, root included
    assert energy_source(place=tmp_path) == f"not read: the RAPL counters in {tmp_path} are open to root alone"
    assert energy_uj(lambda _: None, 1, place=tmp_path) is None


def test_a_counter_that_began_anew_is_no_energy(tmp_path: Path) -> None:
    counter = package(tmp_path, 0)
    assert energy_uj(lambda _: counter.write_text("10"), 1, place=tmp_path) is None


@pytest.mark.skipif(gpu_reader() is not None, reason="this machine has a GPU")
def test_without_a_gpu_there_is_no_energy_of_one() -> None:
    assert energy_source(gpu=True) == "not read: NVML tells no power of a GPU here"
    assert energy_uj(lambda _: None, 1, gpu=True) is None
