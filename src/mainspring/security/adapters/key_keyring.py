"""Master keys in the keyring of the operating system: Secret Service, macOS Keychain, Windows Credential Locker."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from mainspring.core.errors import Corrupt
from mainspring.security.adapters.credentials import KeyringCredentials
from mainspring.security.adapters.key_held import KEY_BYTES, HeldKeys


class KeyringKeys(HeldKeys):
    """A `KeyService` over entries `NAME master key 1`, `2` and so on of the service `mainspring`.

    Args:
        keyring: The module of the package `keyring`.
        lock: Excludes the user's other processes, of every project: a keyring replaces what it is given, and cannot
            compare first.
    """

    def __init__(self, keyring: Any, name: str, lock: Callable[[], AbstractContextManager[None]]) -> None:
        self._keyring = keyring
        self._name = name
        self._lock = lock
        self.place = f"the keyring, as {name!r}"

    def count(self) -> int:
        number = 0
        while self.load(str(number + 1)) is not None:
            number += 1
        return number

    def load(self, version: str) -> bytes | None:
        found = self._entry(version).load()
        try:
            key = None if found is None else base64.b64decode(found, validate=True)
        except binascii.Error:
            key = b""
        if key is not None and len(key) != KEY_BYTES:
            raise Corrupt(
                f"The master key {version} in {self.place} is not one of {KEY_BYTES} bytes.",
                fix="restore the keyring from a backup.",
            )
        return key

    def make(self, version: str) -> bytes:
        if (found := self.load(version)) is not None:
            return found
        with self._lock():
            found = self.load(version)
            if found is None:
                found = secrets.token_bytes(KEY_BYTES)
                self._entry(version).save(base64.b64encode(found))
        return found

    def describe(self) -> str:
        count = self.count()
        return f"{self.place} ({self._keyring.get_keyring().name}), {count} version{'s' * (count != 1)}"

    def _entry(self, version: str) -> KeyringCredentials:
        return KeyringCredentials(self._keyring, f"{self._name} master key {version}")
