"""Idempotency keys of writes, as Delta transactions: an application id with a number, of which the newest counts.

The number is 1 if the key was written, and 0 after a restore removed it; each is stored in the commit that adds or
removes the rows. One reserved id records the version that the newest restore made.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from deltalake import DeltaTable, Transaction

from mainspring.core.errors import Corrupt

_RESTORED = "mainspring/restored"
_WRITTEN, _TAKEN_BACK = 1, 0


def write(key: str) -> Transaction:
    return Transaction(key, _WRITTEN)


def written(at: DeltaTable, key: str) -> bool:
    return bool(at.transaction_version(key) == _WRITTEN)


def restored_at(version: int) -> Transaction:
    return Transaction(_RESTORED, version)


def restored(at: DeltaTable) -> int | None:
    """Return the version made by the newest restore, None if there was none."""
    version = at.transaction_version(_RESTORED)
    return None if version is None else int(version)


def changed(read: Callable[[str], bytes], at: DeltaTable, then: DeltaTable | None) -> list[Transaction]:
    """Return the transactions that reset the keys of `at` to those of `then`, an earlier version; None means no keys.

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
    were = {key: then is not None and written(then, key) for key in touched}
    return [Transaction(key, int(was)) for key, was in were.items() if was != written(at, key)]


def _in_entry(read: Callable[[str], bytes], entry: str) -> list[str]:
    try:
        lines = read(entry).decode("utf-8").splitlines()
        return [json.loads(line)["txn"]["appId"] for line in lines if line.startswith('{"txn"')]
    except (OSError, ValueError, KeyError) as error:
        raise Corrupt(
            f"The log of a table lacks {entry}, or the entry cannot be read: {error}.",
            fix="restore the lake from a backup.",
        ) from error
