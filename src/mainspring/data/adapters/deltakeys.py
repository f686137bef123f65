"""Keys and marks of writes, as Delta transactions: an application id with a number, of which the newest counts.

The numbers are those of `data.write_keys`, and 0 after a restore removed a key or a mark; each is stored in the commit
that adds or removes the rows. One reserved id records the version that the newest restore made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from deltalake import DeltaTable, Transaction

from mainspring.core.errors import Corrupt
from mainspring.data.write_keys import limbs, marks_of, stored_as

_RESTORED = "mainspring/restored"


def write(at: DeltaTable | None, key: str, marks: Mapping[str, int]) -> list[Transaction]:
    """Return the transactions that store a key and marks."""
    numbers = dict([stored_as(key)])
    for name, mark in marks.items():
        numbers |= limbs(name, mark, (lambda _: None) if at is None else at.transaction_version)
    return [Transaction(name, number) for name, number in numbers.items()]


def written(at: DeltaTable, key: str) -> bool:
    name, number = stored_as(key)
    return _number(at, name) >= number


def marks(at: DeltaTable, names: Iterable[str]) -> dict[str, int]:
    """Return the marks of those names that have one."""
    return marks_of(names, at.transaction_version)


def _number(at: DeltaTable, name: str) -> int:
    return int(at.transaction_version(name) or 0)


def restored_at(version: int) -> Transaction:
    return Transaction(_RESTORED, version)


def restored(at: DeltaTable) -> int | None:
    """Return the version made by the newest restore, None if there was none."""
    version = at.transaction_version(_RESTORED)
    return None if version is None else int(version)


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
        touched.update(dict.fromkeys(_in_entry(read, f"_delta_log/{version:020d}.json")))
    touched.pop(_RESTORED, None)
    were = {name: 0 if then is None else _number(then, name) for name in touched}
    return [Transaction(name, was) for name, was in were.items() if was != _number(at, name)]


def _in_entry(read: Callable[[str], bytes], entry: str) -> list[str]:
    try:
        lines = read(entry).decode("utf-8").splitlines()
        return [json.loads(line)["txn"]["appId"] for line in lines if line.startswith('{"txn"')]
    except (OSError, ValueError, KeyError) as error:
        raise Corrupt(
            f"The log of a table lacks {entry}, or the entry cannot be read: {error}.",
            fix="restore the lake from a backup.",
        ) from error
