"""The keys of writes, as Delta transactions: an application's id and a number, of which the newest in the log counts.

The number is 1 where the key was written and 0 where a restore took it back, in the very commit that took back the
rows. One id more, which no write has, keeps the version that the newest restore made.
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
    """Return the version that the newest restore up to this one made."""
    version = at.transaction_version(_RESTORED)
    return None if version is None else int(version)


def changed(read: Callable[[str], bytes], at: DeltaTable, then: DeltaTable | None) -> list[Transaction]:
    """Return what makes the keys written in `at` those that are in `then`, an earlier version; None for none at all.

    Args:
        read: Gives a file of the table by its name.

    Raises:
        Corrupt: The log lacks an entry.
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
            f"The log of a table lacks {entry}, or it cannot be read: {error}.", fix="restore the lake from a backup."
        ) from error
