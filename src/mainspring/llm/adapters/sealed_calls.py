"""Encryption in front of the calls of tools that wait for a person: arguments may quote anybody."""

from __future__ import annotations

import base64

import msgspec

from mainspring.llm.held_calls import HeldCall
from mainspring.llm.ports import HeldCalls
from mainspring.security import envelopes
from mainspring.security.ports import Keys

CALLS = "held-calls"  # purpose of the data keys, and name of the store in envelopes
_SEALED = "sealed:"  # no JSON text begins so


class SealedHeldCalls:
    """`HeldCalls` of `store`, in which arguments are envelopes; those from before are read as they are."""

    def __init__(self, store: HeldCalls, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self.decide, self.remove = store.decide, store.remove

    def ask(self, call: HeldCall) -> HeldCall | None:
        envelope = envelopes.seal(self._keys.newest(CALLS), CALLS, call.id, call.arguments.encode())
        sealed = _SEALED + base64.b64encode(envelope).decode()
        found = self._store.ask(msgspec.structs.replace(call, arguments=sealed))
        return None if found is None else self._opened(found)

    def all(self, *, since: int, waiting: bool) -> list[HeldCall]:
        return [self._opened(each) for each in self._store.all(since=since, waiting=waiting)]

    def get(self, call: str) -> HeldCall | None:
        found = self._store.get(call)
        return None if found is None else self._opened(found)

    def _opened(self, call: HeldCall) -> HeldCall:
        if not call.arguments.startswith(_SEALED):
            return call
        envelope = base64.b64decode(call.arguments.removeprefix(_SEALED))
        (secret,) = self._keys.secrets([envelopes.key_of(envelope)])
        arguments = envelopes.unseal(secret, CALLS, call.id, envelope).decode()
        return msgspec.structs.replace(call, arguments=arguments)
