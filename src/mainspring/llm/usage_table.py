"""Table of the usage of language models, by day, key, team, model and upstream, in files that outlive a process.

Each gateway process has a file of its own. Its last lines are the sums of the last minute, which are written anew each
second: a process that is killed loses a second, and the file does not grow by lines for each.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from mainspring.core.errors import Conflict
from mainspring.core.files import disk_errors
from mainspring.core.own_file import own_file
from mainspring.core.time import DAY, to_datetime

_FILES = 256  # of a month at once, one a process
_READS = 20  # until two in a row are equal


class Used(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Sums of answers. Money is in millionths of the currency, times in microseconds.

    Attributes:
        requests: Answers, those of the cache included.
        cached: Answers of the cache, which used nothing.
        counted: Answers whose tokens are our own count.
        first_us: Sum of the times to the first token. `answer_us`: of those after it, of answers in parts.
        streamed: Tokens of answers in parts.
    """

    requests: int = 0
    cached: int = 0
    counted: int = 0
    prompt: int = 0
    completion: int = 0
    micros: int = 0
    first_us: int = 0
    answer_us: int = 0
    streamed: int = 0

    def add(self, other: Used) -> None:
        """Add other sums."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class UsageRow(msgspec.Struct, kw_only=True):
    """Use in a part of a day, UTC.

    Attributes:
        day: Its begin, UTC epoch microseconds.
        key: Id of the key, or of the account of a person who signed in. `teams`: its groups.
    """

    day: int
    key: str
    model: str
    upstream: str = ""
    teams: tuple[str, ...] = ()
    used: Used


class UsageTable:
    """The file of one process, which others read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = threading.Lock()
        self._month = ""
        self._descriptor: int | None = None
        self._sealed = 0  # bytes that stay

    def write(self, lines: Sequence[bytes], now: int, *, seal: bool) -> None:
        """Write rows in place of those of the last time, unless those were sealed.

        Args:
            now: UTC epoch microseconds.
            seal: Whether these stay as they are.

        Raises:
            StorageFull: There is no space: write them again.
            Conflict: Too many processes have files.
        """
        with self._writing, disk_errors(self._folder):
            descriptor = self._open(f"{to_datetime(now):%Y-%m}") if self._descriptor is None else self._descriptor
            content = memoryview(b"".join([line + b"\n" for line in lines]))
            at = self._sealed
            while content:
                written = os.pwrite(descriptor, content, at)
                at, content = at + written, content[written:]
            os.ftruncate(descriptor, at)
            if seal:
                self._sealed = at
                if self._month != f"{to_datetime(now):%Y-%m}":
                    self._close()

    def close(self) -> None:
        """Let go of the file."""
        with self._writing:
            self._close()

    def _open(self, month: str) -> int:
        """Open the first file of a month that no living process has, and begin after what is in it."""
        own = own_file(self._folder / f"{month}.{number}.jsonl" for number in range(_FILES))
        if own is not None:
            self._month, self._descriptor, self._sealed = month, own[1], os.fstat(own[1]).st_size
            return self._descriptor
        raise Conflict(f"{_FILES} processes write the usage of language models.", fix="run fewer workers.")

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def rows(folder: Path, since: int) -> Iterator[UsageRow]:
    """Yield the rows of days from an instant on. A line that a kill cut off is passed over."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in _content(path).splitlines():
            with suppress(msgspec.DecodeError):
                row = msgspec.json.decode(line, type=UsageRow)
                if row.day + DAY > since:
                    yield row


def _content(path: Path) -> bytes:
    """Return the content of a file, not while its last lines are written anew."""
    before = path.read_bytes()
    for _ in range(_READS):
        if (now := path.read_bytes()) == before:
            break
        before = now
    return before
