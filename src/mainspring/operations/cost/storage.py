"""Meter of storage: what the project's tables, bundles, logs and catalogs keep on this machine's disks.

Places on other machines and in object stores are not walked. A table's size is that of all of its files, those of old
versions included: they cost until retention deletes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mainspring.core.settings import Url
from mainspring.core.time import DAY, HOUR
from mainspring.cost.usage import TABLE, Subject, Usage
from mainspring.operations.service.sampling import place
from mainspring.project import Project
from mainspring.project.running import machine_name

CLASS = "disk"  # of files on a machine
LONGEST_HOURS = 24  # between two looks that count
KEPT_US = 400 * DAY
_PLACES = ("lake", "blobs", "ledger", "online", "tracking", "catalog", "streams", "vectors")
_LOCAL = {"", "file", "sqlite", "lmdb", "delta"}


class StorageMeter:
    """Meters the storage of a project, from one look to the next."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def look(self) -> None:
        """Add what was kept since the last look, as large as it is now. Raises as `UsageStore.add` does."""
        store, now = self._project.usage, self._project.wall.now()
        source = f"storage {place(self._project)}"
        sequence, state = store.last(source)
        since = int(state or b"0")
        elapsed = now - since
        usages = []
        if since and 0 < elapsed <= LONGEST_HOURS * HOUR:
            usages = [
                Usage(
                    machine=machine_name(), start=now, subject=Subject(TABLE, name, CLASS), measure="storage",
                    amount=nbytes * elapsed // HOUR,
                )
                for name, nbytes in sizes(self._project)
            ]  # fmt: skip
        store.add(source, sequence + 1, usages, str(now).encode())


def add_up(project: Project) -> None:
    """Merge the hours of past days, and forget days of long ago. Raises as `UsageStore.roll_up` does."""
    now = project.wall.now()
    project.usage.roll_up(now - now % DAY - HOUR, now - KEPT_US)  # late amounts of yesterday still come


def sizes(project: Project) -> Iterator[tuple[str, int]]:
    """Yield the places of a project on this machine, tables of the lake apart, with their bytes on the disk."""
    seen: set[Path] = set()
    for name in _PLACES:
        url: Url = getattr(project.settings, name)
        if url.scheme not in _LOCAL or url.path in seen or url.path == Path("/"):
            continue
        seen.add(url.path)
        if name == "lake":
            for table in sorted(_folders(url.path)):
                yield f"lake/{table.name}", _size(table)
        else:
            yield name, sum(_size(each) for each in (url.path, *_beside(url.path)))


def _folders(path: Path) -> list[Path]:
    try:
        return [each for each in path.iterdir() if each.is_dir() and not each.is_symlink()]
    except OSError:
        return []


def _beside(path: Path) -> Iterator[Path]:
    """Yield the logs of a SQLite file."""
    for end in ("-wal", "-shm"):
        yield path.with_name(f"{path.name}{end}")


def _size(path: Path) -> int:
    """Return the bytes on the disk of a file, or of all files of a folder."""
    total = 0
    waiting = [path]
    while waiting:
        each = waiting.pop()
        try:
            total += each.lstat().st_blocks * 512
            if each.is_dir() and not each.is_symlink():
                waiting += [Path(entry.path) for entry in os.scandir(each)]
        except OSError:  # it was deleted meanwhile
            continue
    return total
