"""Sizes of models and decisions on them, in files of the state folder that outlive a process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from mainspring.core.errors import StorageFull
from mainspring.core.files import disk_errors, write_atomic
from mainspring.core.ids import new_id
from mainspring.core.own_file import own_file
from mainspring.serving.residency.memory import MAIN, Decision, Size

FOLDER = "models"
_SIZES, _DECISIONS = "sizes", "decisions"
_MOST_SIZES = 4096  # bundles; those that were measured longest ago go
_MOST_BYTES = 2 << 20  # of a file of decisions, some 6,000 of them; the one before it stays
_FILES = 256  # one a process

_log = logging.getLogger(__name__)


class FileSizes:
    """A file for each bundle. Processes may share the folder: the last writer of a bundle wins.

    Args:
        state: The state folder.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER / _SIZES

    def find(self, digest: str, place: str = MAIN) -> Size | None:
        return self._of(digest).get(place)

    def keep(self, digest: str, size: Size, place: str = MAIN) -> None:
        sizes = self._of(digest)
        fresh = not sizes
        try:
            write_atomic(self._path(digest), msgspec.json.encode({**sizes, place: size}))
        except (OSError, StorageFull) as error:
            _log.error("The size of the model of bundle %s is not kept: %s", digest[:12], error)
            return
        if fresh:
            self._prune()

    def _of(self, digest: str) -> dict[str, Size]:
        try:
            return msgspec.json.decode(self._path(digest).read_bytes(), type=dict[str, Size])
        except (OSError, msgspec.DecodeError):  # it is measured again
            return {}

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"

    def _prune(self) -> None:
        files = list(self._folder.glob("*.json"))
        if len(files) <= _MOST_SIZES:
            return
        with suppress(OSError):  # another process deletes them as well
            for path in sorted(files, key=lambda path: path.stat().st_mtime)[: len(files) - _MOST_SIZES]:
                path.unlink(missing_ok=True)


class FileDecisions:
    """A log whose processes each append to a file of their own, and read all of them.

    A file that is full takes the place of the one before it: of each process its last 2 to 4 MiB are kept.

    Args:
        state: The state folder.
        process: Name of this process.
    """

    def __init__(self, state: Path, process: str = "") -> None:
        self._folder = state / FOLDER / _DECISIONS
        self._process = process
        self._run = new_id()
        self._writing = threading.Lock()
        self._own: tuple[Path, int] | None = None

    def add(self, decision: Decision) -> None:
        told = msgspec.structs.replace(decision, process=self._process, run=self._run)
        with self._writing:
            try:
                with disk_errors(self._folder):
                    self._append(msgspec.json.encode(told) + b"\n")
            except (OSError, StorageFull) as error:
                _log.error("A decision is not in the log of decisions: %s", error)

    def since(self, instant: int) -> list[Decision]:
        return sorted((each for each in self._read() if each.at >= instant), key=lambda each: each.at)

    def _append(self, line: bytes) -> None:
        if self._own is not None and os.fstat(self._own[1]).st_size + len(line) > _MOST_BYTES:
            path, descriptor = self._own
            self._own = None
            path.replace(path.with_suffix(".old"))
            os.close(descriptor)
        if self._own is None:
            self._own = own_file(self._folder / f"{number}.jsonl" for number in range(_FILES))
        if self._own is None:
            raise StorageFull(f"{_FILES} processes write decisions on models.", fix="run fewer workers.")
        descriptor, at = self._own[1], os.fstat(self._own[1]).st_size
        written = os.pwrite(descriptor, line, at)
        if written < len(line):
            os.ftruncate(descriptor, at)  # else the next line would be lost with it
            raise StorageFull(f"No space left for {self._own[0]}.", fix="free some space.")
        os.fsync(descriptor)

    def _read(self) -> Iterator[Decision]:
        for path in sorted(self._folder.glob("*.*")):
            if path.suffix in (".jsonl", ".old"):
                yield from _decisions(path)


def _decisions(path: Path) -> Iterator[Decision]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:  # it was replaced meanwhile
        return
    for line in lines:
        with suppress(msgspec.DecodeError):  # a kill cut it off
            yield msgspec.json.decode(line, type=Decision)
