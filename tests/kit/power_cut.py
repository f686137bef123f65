"""A disk of its own whose power can be cut: everything that was not synced by then is gone.

The disk is an ext4 filesystem in a file, mounted by a loop device. A cut shuts it down without a flush of its journal,
as a power cut does, and mounts it again. It takes root; without it a test is skipped, and with CI=true it fails.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_WITHOUT_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH
# Nothing reaches the disk by itself: neither by time nor because a file is renamed over another.
_OPTIONS = "loop,commit=300,noauto_da_alloc"


@dataclass(frozen=True)
class Disk:
    """A mounted disk; `folder` is where."""

    folder: Path
    image: Path

    def cut(self) -> None:
        """Cut the power and come back. Processes that have files open there must have been ended before."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))
        finally:
            os.close(descriptor)
        self.unmount()
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", _OPTIONS, str(self.image), str(self.folder))

    def unmount(self) -> None:
        for _ in range(600):
            with suppress(subprocess.CalledProcessError):
                return _run("umount", str(self.folder))
            time.sleep(0.1)  # a process that was killed has not let go of its files yet
        _run("umount", str(self.folder))
        return None


@contextmanager
def disk(folder: Path, *, megabytes: int = 64) -> Iterator[Disk]:
    """Give a new, empty disk below `folder`; skip the test where there can be none."""
    made = Disk(folder / "disk", folder / "disk.img")
    made.folder.mkdir(parents=True)
    try:
        if os.geteuid() != 0:
            raise PermissionError("it takes root to mount one")
        if not (shutil.which("mkfs.ext4") and shutil.which("mount")):
            raise FileNotFoundError("mkfs.ext4 or mount is not installed")
        with made.image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(made.image))
        made.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"no disk whose power can be cut: {getattr(error, 'stderr', None) or error}"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    try:
        yield made
    finally:
        made.unmount()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
