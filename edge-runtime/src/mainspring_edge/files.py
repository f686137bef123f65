"""Files that survive a cut of the power: written beside, synced, renamed, and the folder synced."""

from __future__ import annotations

import os
from pathlib import Path


def write_durable(path: Path, content: bytes) -> None:
    """Write `content` so that after a cut at any moment the whole old file is there, or the whole new one."""
    beside = path.with_name(f".{path.name}.partial")  # one process owns the folder: the name may be fixed
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)  # noqa: PTH105  (as the other operations of this module)
    sync_folder(path.parent)


def remove_durable(path: Path) -> None:
    """Remove a file if it is there, so that it stays removed."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, and make their names durable."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make the files and names below `folder` durable, as a library that does not sync has left them."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            continue
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)
