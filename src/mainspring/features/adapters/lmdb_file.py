"""One LMDB environment per file and process: opened once, enlarged when full, and shared by every store on it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lmdb

from mainspring.core.errors import Corrupt, MainspringError, StorageFull, Unavailable
from mainspring.core.files import is_full

_FIRST_MAP = 1 << 26  # bytes of address space, not of disk or memory
_READERS = 512

_PATIENCE_S = 3.0
_PAGE_HEAD = 16  # bytes; a value of the rest has a page of its own
_FILLER = b"z"  # first byte of keys of entries that fill free pages, and are deleted again
_FILLED_AT_ONCE = 1_000
_FULL_COMMITS = 4  # that used no free page: those of the last two become free later
_READING = re.compile(r"^\s*\d+\s+\w+\s+(\d+)", re.MULTILINE)  # versions that are being read

_DAMAGED = (
    lmdb.InvalidError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    lmdb.PanicError,
    lmdb.IncompatibleError,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LmdbFile:
    """Transactions on an environment. Any thread may use it.

    Reads of one process take turns, which costs nothing because they hold the interpreter lock anyway. So a read never
    uses a map that is being replaced.

    Attributes:
        closed: It can no longer be used, here or in a child of this process: call `opened` again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closed = False
        self._map = threading.Lock()  # held while reading, and while the map is replaced
        self._writing = threading.Lock()  # taken before `_map`
        with self.errors():
            for each in (folder.parent, folder):
                each.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._env = lmdb.open(
                str(folder),
                map_size=_FIRST_MAP,
                mode=0o700,  # files get the mode without the executable bits
                metasync=False,  # consistent after a power cut; the last writes are computed from the lake again
                readahead=False,
                max_readers=_READERS,
            )
            self._check_length()
            self._env.reader_check()

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Context with a snapshot."""
        transaction = self.begin()
        try:
            yield transaction
        except lmdb.Error as error:
            raise self.translated(error) from error
        finally:
            self.end(transaction)

    def begin(self) -> Any:
        """Return a snapshot, which must be passed to `end`: like `reading`, in half the time."""
        self._map.acquire()
        try:
            return self._env.begin()
        except lmdb.Error as error:
            return self._begin_again(error)

    def end(self, transaction: Any) -> None:
        transaction.abort()
        self._map.release()

    def _begin_again(self, error: lmdb.Error) -> Any:
        """Fix the reason that prevented a read, and begin it."""
        try:
            while True:
                if isinstance(error, lmdb.MapResizedError):
                    # Adopt the map size that another process has set, in the order of the locks.
                    self._map.release()
                    with self._writing:
                        self._map.acquire()
                        self._env.set_mapsize(0)
                elif not isinstance(error, lmdb.ReadersFullError) or not self._env.reader_check():
                    # Reader slots of killed processes are freed only by a check.
                    raise self.translated(error)
                try:
                    return self._env.begin()
                except lmdb.Error as again:
                    error = again
        except BaseException:
            self._map.release()
            raise

    def writing(self, work: Any) -> Any:
        """Return `work(transaction)`, committed. After an enlargement of the map `work` runs again from the start."""
        with self.errors(), self._writing:
            # A killed reader would otherwise keep its snapshot, with all pages, for ever.
            self._env.reader_check()
            while True:
                try:
                    with self._env.begin(write=True, buffers=True) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    size = self._env.info()["map_size"]
                    with self._map:
                        self._env.set_mapsize(2 * size)
                except lmdb.MapResizedError:
                    with self._map:
                        self._env.set_mapsize(0)

    def rewrite(self) -> None:
        """Write every entry to new pages, and fill all other pages, so that the file has no byte of what was deleted.

        The file grows to twice its entries. New pages are zeroed only while this process has written nothing through
        the environment, as LMDB uses the memory of written pages again.

        Raises:
            Unavailable: A read of an old state goes on for seconds.
        """
        self._empty()  # after a rewrite that was killed
        self.writing(self._copy_back)
        with self.errors():
            size, end = self._env.stat()["psize"] - _PAGE_HEAD, time.monotonic() + _PATIENCE_S
            self.writing(partial(_fill, range(1), size))
            done = self._env.info()["last_txnid"]
            while any(int(each) < done for each in _READING.findall(self._env.readers())):
                if time.monotonic() > end:
                    raise Unavailable(f"{self.folder} is in use by a long read.", fix="run the command again.")
                time.sleep(0.01)
            full = number = 0
            while full < _FULL_COMMITS:
                pages, count = self._env.info()["last_pgno"], 8 if full else _FILLED_AT_ONCE
                self.writing(partial(_fill, range(number, number + count), size))
                number += count
                full = full + 1 if self._env.info()["last_pgno"] > pages else 0
            self._empty()
            self._env.sync(True)

    def _copy_back(self, transaction: Any) -> None:
        """Replace all entries by those of a copy without free pages, which is made while no other process writes."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(mode=0o700)
        try:
            self._env.copy(str(copy), compact=True)
            with lmdb.open(str(copy), readonly=True, lock=False) as source, source.begin() as entries:
                transaction.drop(self._env.open_db(txn=transaction), delete=False)
                transaction.cursor().putmulti(entries.cursor(), append=True)
        finally:
            shutil.rmtree(copy)

    def _empty(self) -> None:
        while self.writing(_emptied):
            pass

    def hold(self) -> None:
        """Wait until no transaction of this process is open, and block new ones."""
        self._writing.acquire()
        self._map.acquire()

    def release(self) -> None:
        self._map.release()
        self._writing.release()

    def close(self) -> None:
        """Close the environment. Call it between `hold` and `release`, or in a child that was forked there."""
        self.closed = True
        self._env.close()

    def _check_length(self) -> None:
        # Access to a page beyond the end of the file would kill the process.
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        there = (self.folder / "data.mdb").stat().st_size
        if 0 < there < needed:
            self._env.close()
            raise lmdb.CorruptedError(f"its file was cut to {there} of {needed} bytes")

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            raise self.translated(error) from error

    def translated(self, error: lmdb.Error | OSError) -> MainspringError:
        code = error.errno if isinstance(error, OSError) else getattr(error, "code", 0)
        if isinstance(error, _DAMAGED):
            return Corrupt(
                f"The online store {self.folder} is damaged: {error}.",
                fix=f"stop Mainspring, delete {self.folder}, run `mainspring materialize`: the store is rebuilt "
                "from the lake.",
            )
        if code in _FULL or (code == errno.EIO and is_full(self.folder)):
            return StorageFull(
                f"No space left for the online store {self.folder}.", fix="free some space and run the command again."
            )
        return Unavailable(f"The online store {self.folder} did not respond: {error}.")


def _fill(numbers: range, size: int, transaction: Any) -> None:
    for each in numbers:
        transaction.put(_FILLER + struct.pack(">I", each), bytes(size))


def _emptied(transaction: Any) -> bool:
    """Delete some fillers; return whether there were any."""
    cursor = transaction.cursor()
    there = cursor.set_range(_FILLER)
    for _ in range(_FILLED_AT_ONCE):
        if not there or cursor.key()[:1] != _FILLER:
            return False
        there = cursor.delete()
    return True


_lock = threading.Lock()
_opened: dict[str, LmdbFile] = {}


def opened(folder: Path) -> LmdbFile:
    """Return the shared environment at `folder`: LMDB must not open a file twice in a process.

    Raises:
        Corrupt: The file is not an environment, or is truncated.
        Unavailable: It cannot be opened.
    """
    place = os.path.realpath(folder)
    with _lock:
        file = _opened.get(place)
        if file is None:
            file = _opened[place] = LmdbFile(folder)
        return file


def close(folder: Path) -> None:
    """Close the environment at `folder`, if open, for the whole process."""
    with _lock:
        file = _opened.pop(os.path.realpath(folder), None)
        if file is not None:
            file.hold()
            file.close()
            file.release()


def _before_fork() -> None:
    _lock.acquire()
    for file in _opened.values():
        file.hold()


def _in_parent() -> None:
    for file in _opened.values():
        file.release()
    _lock.release()


def _in_child() -> None:
    # No read was active, so closing here affects no snapshot of the parent.
    for file in _opened.values():
        file.close()
    _opened.clear()
    _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
