"""Keys and marks of writes, as Delta transactions: an application id with a number, of which the newest counts.

The numbers are those of `data.write_keys`, and 0 after a restore removed a key or a mark; each is stored in the commit
that adds or removes the rows. One reserved id records the version that the newest restore made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from deltalake import DeltaTable, Transaction

from mainspring.core.errors import Corrupt
from mainspring.data.write_keys import limbs, stored_as

_RESTORED = "mainspring/restored"


_REMEMBERED = 10_000  # names
_FOLLOWED = 100  # log entries


class Numbers:
    """Numbers of one table, remembered by name: delta-rs reads the log anew for each.

    Args:
        read: Returns the content of a table's file by name.
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._version = -1
        self._known: dict[str, int | None] = {}

    def stored(self, at: DeltaTable) -> Callable[[str], int | None]:
        """Return a function that returns a name's number in the version that is open now, None if it has none."""
        self._follow(int(at.version()))

        def number(name: str) -> int | None:
            if name not in self._known:
                self._known[name] = at.transaction_version(name)
            return self._known[name]

        return number

    def _follow(self, version: int) -> None:
        """Bring what is remembered to a version by the log entries in between."""
        between = range(self._version + 1, version + 1)
        if version < self._version or len(between) > _FOLLOWED or len(self._known) > _REMEMBERED:
            self._known.clear()
        try:
            for each in between if self._known else ():
                self._known.update(_in_entry(self._read, f"_delta_log/{each:020d}.json"))
        except Corrupt:  # removed by a log clean-up
            self._known.clear()
        self._version = version


def write(key: str, marks: Mapping[str, int], stored: Callable[[str], int | None]) -> list[Transaction]:
    """Return the transactions that store a key and marks."""
    numbers = dict([stored_as(key)])
    for name, mark in marks.items():
        numbers |= limbs(name, mark, stored)
    return [Transaction(name, number) for name, number in numbers.items()]


def written(key: str, stored: Callable[[str], int | None]) -> bool:
    name, number = stored_as(key)
    return (stored(name) or 0) >= number


def _number(at: DeltaTable, name: str) -> int:
    return int(at.transaction_version(name) or 0)


def restored_at(version: int) -> Transaction:
    return Transaction(_RESTORED, version)


def restored(stored: Callable[[str], int | None]) -> int | None:
    """Return the version made by the newest restore, None if there was none."""
    return stored(_RESTORED)


def changed(read: Callable[[str], bytes], at: DeltaTable, then: DeltaTable | None) -> list[Transaction]:
    """Return the transactions that reset the keys and marks of `at` to those of `then`, an earlier version.

    None means no keys and no marks.

    Args:
        read: Returns the content of a table's file by name.

    Raises:
        Corrupt: A log entry is missing or unreadable.
    """
    since = -1 if then is None else int(then.version())
    touched: dict[str, None] = {}
    for version in range(since + 1, int(at.version()) + 1):
        touched.update(dict.fromkeys(_in_entry(read, f"_delta_log/{version:020d}.json"), None))
    touched.pop(_RESTORED, None)
    were = {name: 0 if then is None else _number(then, name) for name in touched}
    return [Transaction(name, was) for name, was in were.items() if was != _number(at, name)]


def _in_entry(read: Callable[[str], bytes], entry: str) -> dict[str, int]:
    try:
        lines = read(entry).decode("utf-8").splitlines()
        found = [json.loads(line)["txn"] for line in lines if line.startswith('{"txn"')]
        return {each["appId"]: int(each["version"]) for each in found}
    except (OSError, ValueError, KeyError) as error:
        raise Corrupt(
            f"The log of a table lacks {entry}, or the entry cannot be read: {error}.",
            fix="restore the lake from a backup.",
        ) from error
