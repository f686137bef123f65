"""The embedded online store on LMDB: one file, which every reading process maps while one process writes.

The first byte of a B-tree key is its kind. `s` and a view's name: the number of its slot, and its mark; `e`, a slot's
number and an entity's key: a state; `d` and a number: a slot without a view, whose states are to be deleted; `n`: the
next number; `z`: see `LmdbFile.rewrite`. A view is cleared or swapped by giving its name another number.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb

from mainspring.features.adapters.bounded import bounded
from mainspring.features.adapters.lmdb_file import LmdbFile, close, opened
from mainspring.features.model import EntityState, Mark

_SLOT = struct.Struct(">I")
_SLOT_BYTES = _SLOT.size
_MARK = struct.Struct(">qqqq")
_NEW = struct.Struct(">qq")  # position, landed
_NEXT = b"n"
_LONGEST = 480  # maximum bytes of a key; LMDB allows 511
_COPIED_AT_ONCE = 1_000
_SWEPT_AT_ONCE = 10_000


class LmdbOnlineStore:
    """States in a folder private to its owner.

    Raises:
        Corrupt: The file is not an LMDB environment.
        Unavailable: It cannot be opened.
    """

    remote = False
    longest_key: int | None = _LONGEST

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = opened(folder)

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        def work(transaction: Any) -> None:
            prefix = _prefix(_slot(transaction, view) or _new_slot(transaction, view))
            for key, state in rows:
                place, new = prefix + bounded(key, _LONGEST), (state.position, state.landed)
                held = transaction.get(place)
                if held is None or new >= _NEW.unpack_from(held):
                    transaction.put(place, _NEW.pack(*new) + state.payload)

        if rows:
            self._file().writing(work)

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        states: list[EntityState | None] = []
        for value in self._values(wanted, 0):
            if value is None:
                states.append(None)
            else:
                position, landed = _NEW.unpack_from(value)
                states.append(EntityState(position, value[_NEW.size :], landed))
        return states

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        return self._values(wanted, _NEW.size)

    def mark(self, view: str) -> Mark | None:
        with self._file().reading() as transaction:
            return _mark(transaction.get(_named(view)))

    def position(self, view: str) -> int | None:
        mark = self.mark(view)
        return None if mark is None else mark.position

    def advance(self, view: str, mark: Mark) -> None:
        def work(transaction: Any) -> None:
            slot = _slot(transaction, view) or _new_slot(transaction, view)
            held = _mark(transaction.get(_named(view)))
            if held is None or mark >= held:
                packed = _MARK.pack(mark.position, mark.landed, mark.newest, mark.until)
                transaction.put(_named(view), slot + packed)

        self._file().writing(work)

    def clear(self, view: str) -> None:
        self._file().writing(lambda transaction: _forget(transaction, view))
        self._sweep()

    def delete(self, names: Sequence[tuple[str, bytes]]) -> int:
        def work(transaction: Any) -> int:
            slots = {view: _slot(transaction, view) for view, _ in names}
            found = [(slot, key) for view, key in names if (slot := slots[view]) is not None]
            return sum(transaction.delete(_prefix(slot) + bounded(key, _LONGEST)) for slot, key in found)

        if not names:
            return 0
        deleted = int(self._file().writing(work))
        close(self._folder)  # its memory has pages with what was deleted
        self._file().rewrite()
        return deleted

    def swap(self, view: str, by: str) -> None:
        def work(transaction: Any) -> None:
            _forget(transaction, view)
            held = transaction.pop(_named(by))
            if held is not None:
                transaction.put(_named(view), bytes(held))

        self._file().writing(work)
        self._sweep()

    def views(self) -> list[str]:
        found = []
        with self._file().reading() as transaction:
            for name, value in _starting(transaction, b"s"):
                prefix = _prefix(bytes(value[: _SLOT.size]))
                if len(value) > _SLOT.size or next(_starting(transaction, prefix), None) is not None:
                    found.append(bytes(name[1:]).decode())
        return sorted(found)

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        place = b""
        while True:
            rows: list[tuple[bytes, EntityState]] = []
            with self._file().reading() as transaction:
                slot = _slot(transaction, view)
                if slot is None:
                    return
                prefix = _prefix(slot)
                for key, value in _starting(transaction, max(prefix, place), prefix):
                    place = bytes(key) + b"\0"
                    position, landed = _NEW.unpack_from(value)
                    rows.append((bytes(key[len(prefix) :]), EntityState(position, bytes(value[_NEW.size :]), landed)))
                    if len(rows) == _COPIED_AT_ONCE:
                        break
            if not rows:
                return
            yield rows

    def ping(self) -> None:
        with self._file().reading():
            pass

    def close(self) -> None:
        close(self._folder)

    def _values(self, wanted: Sequence[tuple[str, bytes]], start: int) -> list[bytes | None]:
        """Return the entities' values from the byte `start` on."""
        values: list[bytes | None] = []
        view, prefix = None, None
        file = self._file()
        transaction = file.begin()
        try:
            get = transaction.get
            for name, key in wanted:
                if name is not view:  # keys of one view are consecutive
                    view, slot = name, get(_named(name))
                    prefix = None if slot is None else b"e" + slot[:_SLOT_BYTES]
                if prefix is None:
                    values.append(None)
                    continue
                value = get(prefix + (key if len(key) <= _LONGEST else bounded(key, _LONGEST)))
                values.append(None if value is None else value[start:])
        except lmdb.Error as error:
            raise file.translated(error) from error
        finally:
            file.end(transaction)
        return values

    def _file(self) -> LmdbFile:
        held = self._held
        if held.closed:
            held = self._held = opened(self._folder)
        return held

    def _sweep(self) -> None:
        """Delete the states of dropped slots, in pieces between which other processes can write."""
        work: Callable[[Any], bool] = _sweep_some
        while self._file().writing(work):
            pass


def _named(view: str) -> bytes:
    return b"s" + view.encode()


def _prefix(slot: bytes) -> bytes:
    return b"e" + slot


def _slot(transaction: Any, view: str) -> bytes | None:
    value = transaction.get(_named(view))
    return None if value is None else bytes(value[: _SLOT.size])


def _new_slot(transaction: Any, view: str) -> bytes:
    held = transaction.get(_NEXT)
    number = 0 if held is None else _SLOT.unpack(held)[0]
    transaction.put(_NEXT, _SLOT.pack(number + 1))
    slot = _SLOT.pack(number)
    transaction.put(_named(view), slot)
    return slot


def _mark(value: Any) -> Mark | None:
    return None if value is None or len(value) == _SLOT.size else Mark(*_MARK.unpack_from(value, _SLOT.size))


def _forget(transaction: Any, view: str) -> None:
    held = transaction.pop(_named(view))
    if held is not None:
        transaction.put(b"d" + bytes(held[: _SLOT.size]), b"")


def _starting(transaction: Any, first: bytes, prefix: bytes | None = None) -> Any:
    """Yield the entries with the prefix, by default `first`, from the key `first` on."""
    cursor, prefix = transaction.cursor(), first if prefix is None else prefix
    if cursor.set_range(first):
        for key, value in cursor:
            if key[: len(prefix)] != prefix:
                return
            yield key, value


def _sweep_some(transaction: Any) -> bool:
    """Delete some states of a slot without a view. Returns whether there may be more."""
    doomed = next(_starting(transaction, b"d"), None)
    if doomed is None:
        return False
    name = bytes(doomed[0])
    prefix, cursor = _prefix(name[1:]), transaction.cursor()
    there = cursor.set_range(prefix)
    for _ in range(_SWEPT_AT_ONCE):
        if not there or cursor.key()[: len(prefix)] != prefix:
            transaction.delete(name)
            break
        there = cursor.delete()
    return True
