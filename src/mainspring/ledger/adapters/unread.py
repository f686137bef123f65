"""Segments that are not completely in the lake yet, and the progress of each.

Beside a segment is its progress file: `done` bytes are in the lake, and `planned` bytes are to follow. A plan is made
durable before it is carried out. After a kill the next compaction carries it out again with the same range, which the
lake rejects if it already has it. A segment that cannot be read is kept in the folder `damaged`, which is never read.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.files import sync_folder, write_atomic
from mainspring.ledger import frames
from mainspring.ledger.adapters.segmentfile import SUFFIX, UNNAMED
from mainspring.ledger.model import Failure, KeptExplanation, Prediction

DAMAGED = "damaged"  # folder of segments that were set aside
_DAMAGED_BEFORE = ".damaged"  # the suffix that an older version gave them instead
_AT_ONCE = 1 << 20
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class DamagedSegment(Corrupt):
    """A segment with an invalid header, or one that is shorter than its progress."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"The segment {path} {why}.", fix="it is set aside once no process writes to it.")


class Progress(msgspec.Struct, frozen=True):
    """Read position in a segment, in bytes."""

    done: int = len(frames.MAGIC)
    planned: int = len(frames.MAGIC)
    damaged: int = 0  # corrupted whole frames up to `planned`
    doubtful: bool = False  # earlier progress was lost: any of the predictions may be in the lake


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def _progress_path(self) -> Path:
        return self.path.with_suffix(".progress")

    def live(self) -> bool:
        """Return whether a writer holds its lock. A segment without a writer never grows again."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def progress(self) -> Progress:
        try:
            return msgspec.json.decode(self._progress_path.read_bytes(), type=Progress)
        except FileNotFoundError:
            return Progress()
        except msgspec.DecodeError:
            return Progress(doubtful=True)

    def advance(self, progress: Progress) -> None:
        write_atomic(self._progress_path, msgspec.json.encode(progress))

    def read(self, start: int, until: int | None = None) -> frames.Frames:
        """Return the whole frames between two offsets, to the end by default.

        Raises:
            DamagedSegment: The file has an invalid header, or ends before `start`.
        """
        with self.path.open("rb") as file:
            magic = file.read(len(frames.MAGIC))
            if magic not in (frames.MAGIC, frames.MAGIC_BEFORE):
                raise DamagedSegment(self.path, "does not start like a segment of predictions")
            size = os.fstat(file.fileno()).st_size
            if size < start:
                raise DamagedSegment(self.path, f"has {size} bytes, of which {start} are in the lake")
            file.seek(start)
            return frames.scan(file.read(-1 if until is None else max(0, until - start)), start)

    def sync(self) -> int:
        """Sync the written bytes, and return their number.

        Progress is durable immediately; without this sync a power cut could leave a segment shorter than its progress.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return size

    def some(self, start: int, until: int, length: int) -> frames.Frames:
        """Return the first whole frames between two offsets: of `length` bytes, or one if that is larger."""
        while True:
            found = self.read(start, min(start + length, until))
            if found.end > start or start + length >= until:
                return found
            length *= 2

    def set_aside(self) -> None:
        """Keep a damaged segment, and its progress, in the folder `damaged`."""
        folder = self.path.parent / DAMAGED
        folder.mkdir(mode=0o700, exist_ok=True)
        # The progress last: a progress file alone is deleted, but a segment without one would be moved once more.
        for path in (self.path, self._progress_path):
            if path.exists():
                path.rename(folder / path.name)
                sync_folder(folder)
                sync_folder(path.parent)
        _log.error("The segment %s is damaged: it was moved to %s", self.path.name, folder)

    def blank(self) -> None:
        """Overwrite the bytes that are in the lake. The caller holds the compaction's lock."""
        with suppress(FileNotFoundError):
            start, end = len(frames.MAGIC), self.progress().done
            with self.path.open("r+b") as file:
                file.seek(start)
                while start < end:
                    start += file.write(bytes(min(end - start, _AT_ONCE)))
                file.flush()
                os.fsync(file.fileno())

    def forget(self) -> None:
        """Delete the segment, then its progress: in the other order a kill in between would count all of it again."""
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)
        self._progress_path.unlink(missing_ok=True)


def segments(folder: Path) -> list[Segment]:
    """Return the segments of a folder, oldest first."""
    return [Segment(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def waiting(folder: Path) -> int:
    """Return the number of segments with predictions that are not in the lake yet. They may be moved meanwhile."""
    found = 0
    for each in segments(folder):
        with suppress(FileNotFoundError):
            found += each.path.stat().st_size > each.progress().done
    return found


def damaged(folder: Path) -> int:
    """Return the number of segments that were set aside."""
    before = sum(1 for _ in folder.glob(f"*{_DAMAGED_BEFORE}"))
    return before + sum(1 for _ in (folder / DAMAGED).glob(f"*{SUFFIX}"))


def tidy(folder: Path) -> None:
    """Delete leftovers of killed processes: progress without a segment, and files that never got their name.

    The caller must hold the compaction's lock.
    """
    for path in folder.glob("*.progress"):
        if not path.with_suffix(SUFFIX).exists():
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)
    for path in folder.glob(f"*{UNNAMED}"):
        if not Segment(path).live():
            path.unlink(missing_ok=True)


def unread(folder: Path, containing: str | None = None) -> Iterator[Prediction]:
    """Yield predictions that may not be in the lake yet; with `containing`, only of frames with that text."""
    return _unread(folder, containing, frames.decode)


def unread_explanations(folder: Path, containing: str) -> Iterator[KeptExplanation]:
    """Yield explanations that may not be in the lake yet, of frames with a text."""
    return _unread(folder, containing, frames.decode_explanations)


def unread_failures(folder: Path, containing: str) -> Iterator[Failure]:
    """Yield failures that may not be in the lake yet, of frames with a text."""
    return _unread(folder, containing, lambda payload: frames.decode_all(payload)[1])


def _unread(folder: Path, containing: str | None, decode: Callable[[bytes], list[_T]]) -> Iterator[_T]:
    needle = None if containing is None else containing.encode()
    for segment in segments(folder):
        try:
            found = segment.read(segment.progress().done)
        except (FileNotFoundError, DamagedSegment):  # compacted meanwhile, so the lake has it; or to be set aside
            continue
        for payload in found.payloads:
            if needle is None or needle in payload:
                try:
                    yield from decode(payload)
                except Corrupt:  # compaction counts it
                    continue


def copies(folder: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the name and content of each file of a copy of the log, from which nothing is moved twice into any lake.

    The caller holds the compaction's lock. A segment comes after its progress, which says that what follows may be in
    the lake.
    """
    for segment in segments(folder):
        with suppress(FileNotFoundError):
            size, progress = segment.path.stat().st_size, segment.progress()
            copied = Progress(progress.done, progress.done, progress.damaged, doubtful=True)
            yield segment.path.with_suffix(".progress").name, iter([msgspec.json.encode(copied)])
            yield segment.path.name, _first(segment.path, size)
    for path in sorted((folder / DAMAGED).glob("*")):
        yield f"{DAMAGED}/{path.name}", _first(path, path.stat().st_size)


def _first(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(min(_AT_ONCE, size)):
            size -= len(part)
            yield part
