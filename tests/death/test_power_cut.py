"""A power cut takes what was not synced, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.core.files import write_atomic
from power_cut import Disk, disk


@pytest.fixture
def power(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path) as made:
        yield made


def test_a_cut_takes_what_was_not_synced(power: Disk) -> None:
    write_atomic(power.folder / "synced", b"1")
    (power.folder / "not synced").write_bytes(b"2")
    power.cut()
    assert (power.folder / "synced").read_bytes() == b"1"
    assert not (power.folder / "not synced").exists()
