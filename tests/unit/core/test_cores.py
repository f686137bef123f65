"""Cores and memory by a control group's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mainspring.core.cores import memory_limit, usable_cores

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "groups" / "pod" / "container").mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("5:cpuset:/elsewhere\n0::/pod/container\n")
    return own


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [("max 100000", "max 100000", HERE), ("50000 100000", "max 100000", 1), ("max 100000", "90000 100000", 1),
     ("900000 100000", "", HERE), ("", "", HERE), ("nonsense", "1 0", HERE)],
)  # fmt: skip
def test_cores_are_what_the_group_and_those_around_it_have_time_for(
    own: Path, inner: str, outer: str, expected: int
) -> None:
    groups = own.parent / "groups"
    for folder, text in ((groups / "pod" / "container", inner), (groups / "pod", outer)):
        if text:
            (folder / "cpu.max").write_text(f"{text}\n")
    assert usable_cores(groups, own) == expected


def test_memory_is_the_least_of_the_groups(own: Path) -> None:
    groups = own.parent / "groups"
    assert memory_limit(groups, own) is None
    (groups / "pod" / "container" / "memory.max").write_text("max\n")
    assert memory_limit(groups, own) is None
    (groups / "pod" / "memory.max").write_text("700000000\n")
    assert memory_limit(groups, own) == 700_000_000
    (groups / "pod" / "container" / "memory.max").write_text("500\n")
    assert memory_limit(groups, own) == 500


def test_without_control_groups_of_version_2_all_cores_are_usable(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("5:cpuset:/elsewhere\n")
    assert (usable_cores(tmp_path, tmp_path / "own"), memory_limit(tmp_path, tmp_path / "own")) == (HERE, None)
    assert (usable_cores(tmp_path, tmp_path / "no"), memory_limit(tmp_path, tmp_path / "no")) == (HERE, None)
