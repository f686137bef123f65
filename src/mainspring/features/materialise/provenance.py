"""Provenance of a view's online states, stored beside them, to detect that they are stale.

A mark has the number of rows in the lake. If rows were replaced by equally many others (a table was restored or made
anew), only their digest shows it (features.tilelog.loads). For states that are still being built it also records the
progress.
"""

from __future__ import annotations

import msgspec

from mainspring.core.time import LAST_INSTANT
from mainspring.features.model import EntityState, Mark
from mainspring.features.ports import OnlineStore
from mainspring.features.tilelog.loads import Content

# No entity has this key: `features.keys.encode_key` returns arrays, and no MessagePack value begins like this.
LEDGER_KEY = b"\xc1"


class Ledger(msgspec.Struct, frozen=True, array_like=True):
    """Provenance of states: the rows with a `_seq` up to `newest`.

    `position` is the one of the mark when all rows had settled (`state.blobs.SETTLING`), `until` the one when states
        were last written. `done` is the key of the last written entity, in the order of keys, or empty once all are
        written. The other fields show when the rows need not be
        read: `source` is their `content_digest`, or empty; `changes` is the first instant after `until` at which a row
        begins or ceases to count; `tiles` is the version of the log of tiles whose pieces are all valid, -1 for none.
    """

    newest: int
    rows: int
    digest: int
    position: int
    until: int
    done: bytes = b""
    source: bytes = b""
    changes: int = LAST_INSTANT
    tiles: int = -1

    @property
    def content(self) -> Content:
        return Content(self.rows, self.digest)

    @property
    def mark(self) -> Mark:
        return Mark(self.position, self.rows, self.newest, self.until)

    def row(self, done: bytes = b"") -> tuple[bytes, EntityState]:
        """Return the row for the store."""
        payload = msgspec.msgpack.encode(msgspec.structs.replace(self, done=done))
        return LEDGER_KEY, EntityState(self.position, payload, self.rows)


def read_ledger(store: OnlineStore, slot: str) -> Ledger | None:
    """Return the ledger of a slot, `None` if it has no readable one."""
    (held,) = store.read([(slot, LEDGER_KEY)])
    if held is None:
        return None
    try:
        return msgspec.msgpack.decode(held.payload, type=Ledger)
    except msgspec.MsgspecError:
        return None
