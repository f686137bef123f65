"""The power of a device goes at every file operation of an update: it always starts a whole, signed package.

At each cut two extremes are tried: nothing reached the disk that was not synced (an ext4 filesystem that is shut down
without its journal), and everything did (a kill).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit.depth import examples
from kit.edge_packages import Site, contents, install, site, slots
from kit.power_cut import disk
from mainspring_edge.memory import Memory

# Everything by which Python changes a disk but for writes to an open file, which matter once they are synced.
_OPERATIONS = (
    "open",
    "fsync",
    "replace",
    "rename",
    "unlink",
    "remove",
    "rmdir",
    "mkdir",
    "symlink",
    "link",
    "truncate",
)


class PowerCut(BaseException):
    """The power is gone: nothing handles this."""


class Power:
    """Cuts the power before one of the file operations; each later one fails too."""

    def __init__(self) -> None:
        self.operations, self.cut_at = 0, -1

    def use(self) -> None:
        self.operations += 1
        if 0 <= self.cut_at < self.operations:
            raise PowerCut(f"before operation {self.cut_at}")


@contextmanager
def metered(power: Power, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count file operations inside the block."""
    with patch.context() as patched:
        for name in _OPERATIONS:
            real = getattr(os, name)

            def counted(*given: Any, _real: Any = real, **options: Any) -> Any:
                power.use()
                return _real(*given, **options)

            patched.setattr(os, name, counted)
        yield


def update(device: Path, made: Site) -> None:
    """Do what the agent does: start, install version 2, become healthy, confirm."""
    memory = Memory(device)
    if slots(memory).start().device.version != 2:
        install(memory, made, 2)
    slots(memory).confirm()


def starts_whole(device: Path) -> int:
    """Return the version that a device starts. It was verified and tested."""
    return slots(Memory(device)).start().device.version


def prepared(device: Path, made: Site) -> None:
    install(Memory(device), made, 1)


def test_every_cut_leaves_a_whole_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    power = Power()
    with site(tmp_path / "site") as made, disk(tmp_path) as flash:
        made.publish(1)
        made.publish(2)
        base, device = tmp_path / "base", flash.folder / "device"
        prepared(base, made)
        shutil.copytree(base, tmp_path / "counted", symlinks=True)
        with metered(power, monkeypatch):
            update(tmp_path / "counted", made)
        assert power.operations > 60
        found: dict[str, set[int]] = {"power": set(), "kill": set()}
        for cut_at in range(0, power.operations, examples(gate=7, deep=1)):
            shutil.rmtree(device, ignore_errors=True)
            shutil.copytree(base, device, symlinks=True)
            os.sync()
            cut = Power()
            cut.cut_at = cut_at
            with metered(cut, monkeypatch), pytest.raises(PowerCut):
                update(device, made)
            killed = tmp_path / "killed"
            shutil.rmtree(killed, ignore_errors=True)
            shutil.copytree(device, killed, symlinks=True)
            flash.cut()
            for how, folder in (("power", device), ("kill", killed)):
                found[how].add(starts_whole(folder))
                update(folder, made)
                assert starts_whole(folder) == 2, (how, cut_at)
                assert not list(folder.rglob("*.partial")), (how, cut_at, list(contents(folder)))
        assert found == {"power": {1, 2}, "kill": {1, 2}}
        shutil.rmtree(device)
        shutil.copytree(base, device, symlinks=True)
        os.sync()
        update(device, made)
        done = Memory(device).state
        flash.cut()  # after the update: all of it is there
        assert Memory(device).state == done
        assert (done.active, done.trial, starts_whole(device)) == ("b", False, 2)
        print(f"{power.operations} operations, cut before each {examples(gate=7, deep=1)}.: {found}")
