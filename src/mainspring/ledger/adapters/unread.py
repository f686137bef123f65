"""What stands in the segments and not yet in the lake, and how far each segment has been read.

Beside a segment stands its progress: `done` bytes are in the lake, `planned` bytes were about to be. A plan is made
durable before it is carried out and carried out again, with the same range, by whoever comes after a kill; the lake
refuses a range that it has.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.files import write_atomic
from mainspring.ledger import frames
from mainspring.ledger.adapters.segmentfile import SUFFIX, UNNAMED
from mainspring.ledger.model import Prediction


class Progress(msgspec.Struct, frozen=True):
    """How far a segment has been read, in bytes."""

    done: int = len(frames.MAGIC)
    planned: int = len(frames.MAGIC)
    damaged: int = 0  # whole frames up to `planned` that are not what was written


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
        """Return whether a writer holds it. One that nobody holds never grows again."""
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

    def advance(self, progress: Progress) -> None:
        write_atomic(self._progress_path, msgspec.json.encode(progress))

    def read(self, start: int, until: int | None = None) -> frames.Frames:
        """Return the whole frames between two offsets, to the end by default.

        Raises:
            Corrupt: The file does not begin like a segment.
        """
        with self.path.open("rb") as file:
            magic = file.read(len(frames.MAGIC))
            if magic not in (frames.MAGIC, frames.MAGIC_BEFORE):
                raise Corrupt(f"{self.path.name} is not a segment of predictions.", fix=f"move {self.path} away.")
            file.seek(start)
            return frames.scan(file.read(-1 if until is None else until - start), start)

    def size(self) -> int:
        return self.path.stat().st_size

    def some(self, start: int, until: int, length: int) -> frames.Frames:
        """Return the first whole frames between two offsets: of `length` bytes, or one if that is larger."""
        while True:
            found = self.read(start, min(start + length, until))
            if found.end > start or start + length >= until:
                return found
            length *= 2

    def set_aside(self) -> None:
        """Keep a damaged segment, as `.damaged`, where nobody reads it."""
        self.path.rename(self.path.with_suffix(".damaged"))
        self._progress_path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the segment, then its progress: the other way round a kill between would count it all again."""
        self.path.unlink(missing_ok=True)
        self._progress_path.unlink(missing_ok=True)


def segments(folder: Path) -> list[Segment]:
    """Return the segments of a folder, the one begun first first."""
    return [Segment(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def tidy(folder: Path) -> None:
    """Delete what the killed left: progress without its segment, files that were never given their name.

    Only who holds the compaction's lock may call this.
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
    """Yield predictions that may not be in the lake yet; of frames that hold the text `containing` only, if given."""
    needle = None if containing is None else containing.encode()
    for segment in segments(folder):
        try:
            found = segment.read(segment.progress().done)
        except FileNotFoundError:  # compacted since we looked: the lake has it
            continue
        for payload in found.payloads:
            if needle is None or needle in payload:
                yield from frames.decode(payload)
