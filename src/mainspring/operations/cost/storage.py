"""Meter of storage: what the project's tables, bundles, logs and catalogs keep on this machine's disks and in buckets.

A table's size is that of all of its files, those of old versions included: they cost until retention deletes them. A
bucket belongs to no machine: whichever looks first in an hour meters it, as a machine of the bucket's name. Its listing
tells no storage class, so that all in it counts as `object`. What databases on servers keep is not metered.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.object_store_url import OPTIONS, Bucket, open_store, store_errors
from mainspring.core.settings import Url
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.cost.usage import TABLE, Subject, Usage
from mainspring.operations.service.sampling import place
from mainspring.project import Project
from mainspring.project.running import machine_name

DISK, OBJECT = "disk", "object"  # classes
LONGEST_HOURS = 24  # between two looks that count
KEPT_US = 400 * DAY
_RARELY_US = 50 * MINUTE  # a bucket is listed: its provider takes a price for that
_PLACES = ("lake", "blobs", "ledger", "online", "tracking", "catalog", "streams", "vectors")
_log = logging.getLogger(__name__)
_LOCAL = {"", "file", "sqlite", "lmdb", "delta"}


class Size(msgspec.Struct, frozen=True):
    """Bytes that are kept under a name: a part of the project, or a table of the lake."""

    name: str
    nbytes: int


class StorageMeter:
    """Meters the storage of a project, from one look to the next."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def look(self) -> None:
        """Add what was kept since the last look, as large as it is now. What cannot be looked at hides nothing else.

        Raises:
            Denied, NotFound, Unavailable: A bucket cannot be listed.
            As `UsageStore.add` does.
        """
        here = f"storage {place(self._project)}"
        errors: list[MainspringError] = []
        self._add(here, machine_name(), DISK, sizes(self._project))
        for name, url in _buckets(self._project):
            try:
                self._look_at(name, url)
            except MainspringError as error:  # the next bucket's hour is metered
                errors.append(error)
        for other in errors[1:]:
            _log.warning("a bucket is not metered: %s", other)
        if errors:
            raise errors[0]

    def _look_at(self, name: str, url: Url) -> None:
        bucket = Bucket.parse(url)
        digest = hashlib.sha256(f"{url.scheme}://{bucket.name}/{bucket.prefix}".encode()).hexdigest()[:16]
        source = f"storage {name} {digest}"
        last = int(self._project.usage.last(source)[1] or b"0")
        if not 0 <= self._project.wall.now() - last < _RARELY_US:
            self._add(source, f"{url.scheme}://{bucket.name}", OBJECT, bucket_sizes(name, url))

    def _add(self, source: str, machine: str, kind: str, found: Iterator[Size]) -> None:
        store, now = self._project.usage, self._project.wall.now()
        sequence, state = store.last(source)
        since = int(state or b"0")
        elapsed = now - since
        usages = []
        if since and 0 < elapsed <= LONGEST_HOURS * HOUR:
            usages = [
                Usage(
                    machine=machine, start=now, subject=Subject(TABLE, each.name, kind), measure="storage",
                    amount=each.nbytes * elapsed // HOUR,
                )
                for each in found
            ]  # fmt: skip
        store.add(source, sequence + 1, usages, str(now).encode())


def add_up(project: Project) -> None:
    """Merge the hours of past days, and forget days of long ago. Raises as `UsageStore.roll_up` does."""
    now = project.wall.now()
    project.usage.roll_up(now - now % DAY - HOUR, now - KEPT_US)  # late amounts of yesterday still come


def sizes(project: Project) -> Iterator[Size]:
    """Yield the places of a project on this machine, tables of the lake apart, with their bytes on the disk."""
    seen: set[Path] = set()
    for name in _PLACES:
        url: Url = getattr(project.settings, name)
        if url.scheme not in _LOCAL or url.path in seen or url.path == Path("/"):
            continue
        seen.add(url.path)
        if name == "lake":
            for table in sorted(_folders(url.path)):
                yield Size(f"lake/{table.name}", _size(table))
        else:
            yield Size(name, sum(_size(each) for each in (url.path, *_beside(url.path))))


def _buckets(project: Project) -> Iterator[tuple[str, Url]]:
    for name in _PLACES:
        url: Url = getattr(project.settings, name)
        if url.scheme in OPTIONS:
            yield name, url


def bucket_sizes(name: str, url: Url) -> Iterator[Size]:
    """Yield the bytes of the objects under an address, tables of the lake apart.

    Raises:
        Denied, NotFound, Unavailable: The bucket cannot be listed.
    """
    import obstore

    found: dict[str, int] = {}
    with store_errors(url.shown, name):
        for page in obstore.list(open_store(url), chunk_size=1000):
            for entry in page:
                table, below, _ = entry["path"].partition("/")
                key = f"lake/{table}" if name == "lake" and below else name
                found[key] = found.get(key, 0) + entry["size"]
    for key in sorted(found):
        yield Size(key, found[key])


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
