"""Encryption in front of an online store: states are envelopes, and entities have pseudonyms.

A view's states are under another name than in clear, so a store that was in clear has none of them yet: they are
computed from the lake again, and then those in clear are deleted.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence

from mainspring.features.model import SEALED, EntityState, Mark
from mainspring.features.ports import OnlineStore
from mainspring.security import envelopes
from mainspring.security.data_keys import ENTITY_NAMES
from mainspring.security.ports import Keys

STATES = "online"  # purpose of the data keys, and name of the store in envelopes
_LENGTH = 4  # bytes of the length of the key, which is in front of a payload


class SealedOnlineStore:
    """`OnlineStore` of `store`, which sees HMACs of entity keys, and their keys and payloads encrypted.

    Names of views, marks and the position of each state stay in clear: stores compare them.
    """

    longest_key: int | None = None

    def __init__(self, store: OnlineStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self.remote, self.close = store.remote, store.close

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        names = self._names([key for key, _ in rows])
        contents = [len(key).to_bytes(_LENGTH) + key + state.payload for key, state in rows]
        sealed = envelopes.seal_each(self._keys.newest(STATES), STATES, map(bytes.hex, names), contents) if rows else []
        states = [
            EntityState(state.position, each, state.landed) for (_, state), each in zip(rows, sealed, strict=True)
        ]
        self._store.write(SEALED + view, list(zip(names, states, strict=True)))

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        named = self._named(wanted)
        states = self._store.read(named)
        payloads = iter(
            self._opened([(name, each.payload) for (_, name), each in zip(named, states, strict=True) if each])
        )
        return [each and EntityState(each.position, next(payloads)[1], each.landed) for each in states]

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        named = self._named(wanted)
        sealed = self._store.payloads(named)
        there = [(name, each) for (_, name), each in zip(named, sealed, strict=True) if each is not None]
        payloads = iter(self._opened(there))
        return [None if each is None else next(payloads)[1] for each in sealed]

    def mark(self, view: str) -> Mark | None:
        return self._store.mark(SEALED + view)

    def position(self, view: str) -> int | None:
        return self._store.position(SEALED + view)

    def advance(self, view: str, mark: Mark) -> None:
        self._store.advance(SEALED + view, mark)
        self._retire(view)

    def clear(self, view: str) -> None:
        self._store.clear(SEALED + view)
        self._retire(view)

    def delete(self, names: Sequence[tuple[str, bytes]]) -> int:
        return self._store.delete([*self._named(names), *names])

    def swap(self, view: str, by: str) -> None:
        self._store.swap(SEALED + view, SEALED + by)
        self._retire(view)

    def views(self) -> list[str]:
        return sorted({each.removeprefix(SEALED) for each in self._store.views()})

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        for piece in self._store.entities(SEALED + view):
            opened = self._opened([(name, state.payload) for name, state in piece])
            yield [
                (key, EntityState(state.position, payload, state.landed))
                for (key, payload), (_, state) in zip(opened, piece, strict=True)
            ]

    def ping(self) -> None:
        self._keys.newest(STATES)
        self._store.ping()

    def _retire(self, view: str) -> None:
        """Delete the states of a view that were stored in clear, once the encrypted ones are complete."""
        if view in self._store.views():  # looked up each time: a process without the setting may have written since
            self._store.clear(view)
            self._store.delete([(view, b"")])  # so that an embedded store's file has no bytes of them

    def _named(self, wanted: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        names = self._names([key for _, key in wanted])
        return [(SEALED + view, name) for (view, _), name in zip(wanted, names, strict=True)]

    def _names(self, keys: Sequence[bytes]) -> list[bytes]:
        if not keys:
            return []
        secret = self._keys.newest(ENTITY_NAMES).secret
        return [hmac.digest(secret, key, "sha256") for key in keys]

    def _opened(self, sealed: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the keys and payloads of states by their names."""
        if not sealed:
            return []
        contents = envelopes.unseal_each(
            self._secret, STATES, [name.hex() for name, _ in sealed], [envelope for _, envelope in sealed]
        )
        ends = [_LENGTH + int.from_bytes(content[:_LENGTH]) for content in contents]
        return [(content[_LENGTH:end], content[end:]) for content, end in zip(contents, ends, strict=True)]

    def _secret(self, key_id: str) -> bytes:
        """Return a data key's secret; that of the newest one is kept while the key service is away."""
        newest = self._keys.newest(STATES)
        return newest.secret if newest.id == key_id else self._keys.secrets([key_id])[0]
