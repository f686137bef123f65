"""Counts of spent quotas, shared by the processes of one machine in a mapped file.

Each process writes a column of its own, one aligned machine word at a time, and reads the others': to count in a row
takes no lock, and what a killed process spent stays spent. A new name takes a lock, and waits for it 5 ms at most. Two
processes that count in the same microsecond may both see the sum of both, or each its own alone.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from mainspring.core.errors import Conflict, Corrupt, Invalid, Unavailable
from mainspring.core.files import disk_errors
from mainspring.core.locks import FileLocks, Locks, MemoryLocks

FILE = "quotas"
ROWS, COLUMNS = 8192, 64
_NEAR = 512  # rows in which a name may be
_NAME, _LENGTH = 192, 8  # bytes of a name with its length
_MARK = 0x31_61_74_6F_75_71  # "quota1"
_PAGE = 4096
# Words of the first page: format, columns in use, begins and ends of giving a row away.
_MARKED, _WIDTH, _TURN = range(3)
_CELLS = _PAGE + ROWS * _NAME
_COLUMN = ROWS * 16  # bytes: two words a row, the end of its period and what was spent
_FIRST = _CELLS // 8
_NOTHING = memoryview(bytes(_COLUMN)).cast("q")
_SIZE = _CELLS + COLUMNS * _COLUMN
LONGEST = _NAME - _LENGTH  # bytes of a name
_ADD_WAIT_S = 0.005  # of the event loop
_AGAIN_S = 0.0002
_IN_USE = "The counts of quotas are in use by other processes."


class Row(NamedTuple):
    """A count: place of a name, and the turn in which it has it."""

    number: int
    turn: int


class Counts:
    """The counts. One thread adds; the file is opened by `open`, or else with the first name.

    Args:
        path: The file; `None` counts in this process's memory.
        writes: False for one who only reads a file that is there.
        held: Whether a process that dies counts no longer: `move_dead` moves what it holds to other counts.
    """

    def __init__(self, path: Path | None = None, *, writes: bool = True, held: bool = False) -> None:
        self._path = path
        self._name = FILE if path is None else path.name
        self._writes = writes
        self._inherited = held  # whether the own column may have what its last process held
        self._locks: Locks = FileLocks(path.parent) if path is not None else MemoryLocks()
        self._held = ExitStack()
        self._words: memoryview[int] | None = None
        self._bytes: mmap.mmap
        self._own = _FIRST  # word at which the own column begins

    def open(self, *, wait_s: float = 1.0) -> None:
        """Map the file, once.

        Raises:
            Conflict: Another process opens it for all of `wait_s`, or all columns are taken.
            Corrupt: Another file is in its place.
            StorageFull: There is no space for the file.
        """
        if self._words is None:
            self._words = self._open(wait_s)

    def close(self) -> None:
        """Give the column back."""
        self._held.close()

    def row(self, name: str, now: int) -> Row:
        """Return the row of a name; a new name takes one that is free, or whose periods have ended by `now`.

        Raises:
            Invalid: The name is longer than `LONGEST`.
            Unavailable: Other names have all rows that it may take, or another process adds one and does not end.
            As of `open`.
        """
        try:
            self.open(wait_s=0)
        except Conflict:
            raise Unavailable(_IN_USE) from None
        assert self._words is not None
        turn = self._words[_TURN]  # before the search: a row that is given away meanwhile is known by it
        found = self._find(name) if turn % 2 == 0 else None
        if found is not None:
            return Row(found, turn)
        until = time.monotonic() + _ADD_WAIT_S
        while True:
            with suppress(Conflict), self._locks.hold(self._name, wait_s=0):
                self._words[_TURN] += self._words[_TURN] % 2  # its last holder may have died
                found = self._find(name)
                return Row(self._add(name, now) if found is None else found, self._words[_TURN])
            if time.monotonic() >= until:
                raise Unavailable(_IN_USE)
            time.sleep(_AGAIN_S)

    @property
    def width(self) -> int:
        """Number of processes that counted, at least 1."""
        return 1 if self._words is None else self._words[_WIDTH]

    def add(self, row: Row, amount: int, end: int, after: int) -> int | None:
        """Add to a count, and return what all processes have spent of it; `None` if its row was given away.

        Args:
            end: End of the period. `after`: end of the period after it, in which a clock that was set back may have
                counted: that counts in this one, too.
        """
        words = self._words
        if words is None or words[_TURN] != row.turn:
            return None
        at = self._own + 2 * row.number
        held = words[at]
        if end <= held <= after:
            words[at + 1] += amount
        else:
            words[at + 1] = amount if held < end else words[at + 1] + amount
            words[at] = end  # last: until then the cell is one of another period
        if words[_TURN] != row.turn:  # given away meanwhile: its next name must not find this
            words[at + 1] -= amount
            return None
        return self._sum(words, row.number, end, after)

    def move_dead(self, into: Counts, now: int, after: Callable[[str, int], int]) -> None:
        """Count elsewhere, once at most, what processes count that have died, in periods that last.

        The first call is made before this process counts anything: its column may be that of a dead one.

        Args:
            after: Returns the end of the period after that of a name which ends at an instant.

        Raises:
            Unavailable: As of `row`, of the other counts. What is not moved stays for another call.
        """
        words = self._words
        if words is None or self._path is None:
            return
        own = (self._own - _FIRST) * 8 // _COLUMN
        if self._inherited:
            self._inherited = False
            try:
                self._move(own, into, now, after)
            finally:
                _clear(words, own)
        for column in range(words[_WIDTH]):
            if column != own:
                with suppress(Conflict), self._locks.hold(f"{self._name}-{column}", wait_s=0):
                    self._move(column, into, now, after)

    def _move(self, column: int, into: Counts, now: int, after: Callable[[str, int], int]) -> None:
        words, begin = self._words, _FIRST + column * _COLUMN // 8
        assert words is not None
        if words[begin : begin + _COLUMN // 8] == _NOTHING:
            return
        for row in range(ROWS):
            at = begin + 2 * row
            end, amount = words[at], words[at + 1]
            if amount <= 0 or end <= now or (told := self._name_at(row)) is None:
                continue
            name = told.decode()
            place = into.row(name, now)
            words[at + 1] = 0  # first: whoever is killed here loses it, and nobody counts it twice
            while into.add(place, amount, end, after(name, end)) is None:
                place = into.row(name, now)
        _clear(words, column)

    def spent(self, name: str, end: int, after: int) -> int:
        """Return what all processes have spent of a name."""
        self.open()
        assert self._words is not None
        row = self._find(name)
        return 0 if row is None else self._sum(self._words, row, end, after)

    def names(self) -> Iterator[str]:
        """Yield the names that have a row."""
        self.open()
        for row in range(ROWS):
            if (name := self._name_at(row)) is not None:
                yield name.decode(errors="replace")

    def _sum(self, words: memoryview[int], row: int, end: int, after: int) -> int:
        total, at = 0, _FIRST + 2 * row
        for _ in range(words[_WIDTH]):
            if end <= words[at] <= after:
                total += words[at + 1]
            at += _COLUMN // 8
        return total

    def _open(self, wait_s: float) -> memoryview[int]:
        path = self._path
        if path is None:
            self._bytes = mmap.mmap(-1, _SIZE)
            words = memoryview(self._bytes).cast("q")
            words[_WIDTH] = 1
            return words
        with disk_errors(path):
            if self._writes:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_CLOEXEC | (os.O_RDWR | os.O_CREAT if self._writes else os.O_RDONLY), 0o600)
            try:
                with self._locks.hold(self._name, wait_s=wait_s) if self._writes else nullcontext():
                    return self._words or self._map(descriptor, path)  # another thread may have been first
            finally:
                os.close(descriptor)

    def _map(self, descriptor: int, path: Path) -> memoryview[int]:
        size = os.fstat(descriptor).st_size
        if size != _SIZE and (size or not self._writes):
            raise Corrupt(f"{path} has {size} bytes, not {_SIZE}.", fix=f"delete {path}: its counts begin again.")
        if os.pread(descriptor, 8, 0) not in (b"", bytes(8), _MARK.to_bytes(8, sys.byteorder)):
            raise Corrupt(f"{path} has another format.", fix=f"delete {path}: its counts begin again.")
        if not self._writes:
            self._bytes = mmap.mmap(descriptor, _SIZE, access=mmap.ACCESS_READ)
            return memoryview(self._bytes).cast("q")
        column = self._claim()
        try:
            os.ftruncate(descriptor, _SIZE)
            for begin, length in ((0, _CELLS), (_CELLS + column * _COLUMN, _COLUMN)):
                _reserve(descriptor, begin, length)
        except OSError:
            self._held.close()
            raise
        self._bytes = mmap.mmap(descriptor, _SIZE)
        words = memoryview(self._bytes).cast("q")
        words[_MARKED] = _MARK
        words[_WIDTH] = max(words[_WIDTH], column + 1)
        self._own = _FIRST + column * _COLUMN // 8
        return words

    def _claim(self) -> int:
        """Return a column that no living process has; what its last one spent stays in it."""
        for column in range(COLUMNS):
            with suppress(Conflict):
                self._held.enter_context(self._locks.hold(f"{self._name}-{column}", wait_s=0))
                return column
        raise Conflict(f"{COLUMNS} processes count quotas already.", fix="run fewer workers.")

    def _name_at(self, row: int) -> bytes | None:
        at = _PAGE + row * _NAME
        length = int.from_bytes(self._bytes[at : at + _LENGTH], sys.byteorder)
        return self._bytes[at + _LENGTH : at + _LENGTH + length] if length else None

    def _find(self, name: str) -> int | None:
        sought = name.encode()
        for row in _near(sought):
            held = self._name_at(row)
            if held is None:
                return None
            if held == sought:
                return row
        return None

    def _add(self, name: str, now: int) -> int:
        sought, words = name.encode(), self._words
        assert words is not None
        if len(sought) > LONGEST:  # it would overwrite the next name
            raise Invalid(f"The name of a count has {len(sought)} bytes, more than {LONGEST}.")
        for row in _near(sought):
            cells = [_FIRST + 2 * row + column * _COLUMN // 8 for column in range(words[_WIDTH])]
            if self._name_at(row) is not None:
                if any(words[cell] > now for cell in cells):
                    continue
                words[_TURN] += 1  # odd: who counts in the row now sees that, or is seen
                try:
                    if any(words[cell] > now for cell in cells):
                        continue
                    for cell in cells:  # a clock that is set back must not find them
                        words[cell] = 0
                    self._write(row, sought)
                finally:
                    words[_TURN] += 1
            else:
                self._write(row, sought)
            return row
        raise Unavailable("Too many callers are counted for quotas at once.")

    def _write(self, row: int, name: bytes) -> None:
        assert self._words is not None
        begin = _PAGE + row * _NAME
        self._bytes[begin + _LENGTH : begin + _LENGTH + len(name)] = name
        self._words[begin // 8] = len(name)


def _near(name: bytes) -> Iterator[int]:
    first = int.from_bytes(blake2b(name, digest_size=4).digest(), "big")
    return ((first + step) % ROWS for step in range(_NEAR))


def _clear(words: memoryview[int], column: int) -> None:
    begin = _FIRST + column * _COLUMN // 8
    words[begin : begin + _COLUMN // 8] = _NOTHING


def _reserve(descriptor: int, begin: int, length: int) -> None:
    """Take space on the disk: a mapped page without any would end the process when it is written."""
    if sys.platform == "linux":
        os.posix_fallocate(descriptor, begin, length)
