"""Master keys that a process reads, and encrypts with itself: the common part of key services that only store them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mainspring.core.errors import Corrupt
from mainspring.security.model import Wrapped

KEY_BYTES = 32
_NONCE = 12


class HeldKeys(ABC):
    """A `KeyService` over keys of 32 bytes with the names `1`, `2` and so on.

    Nonces are random: under a master key far fewer than 2^32 keys are wrapped (NIST SP 800-38D, 8.3).

    Attributes:
        place: Where the keys are, for messages.
    """

    place: str

    @abstractmethod
    def count(self) -> int:
        """Return the number of the newest key, 0 where there is none."""

    @abstractmethod
    def load(self, version: str) -> bytes | None:
        """Return a key, `None` where it does not exist. `version` is a decimal number."""

    @abstractmethod
    def make(self, version: str) -> bytes:
        """Return a key, made if it does not exist. Of several callers at once all get the same."""

    def version(self) -> str:
        return str(max(self.count(), 1))

    def wrap(self, keys: Sequence[bytes], contexts: Sequence[str]) -> list[Wrapped]:
        version = self.version()
        cipher = AESGCM(self.make(version))
        return [
            Wrapped((nonce := os.urandom(_NONCE)) + cipher.encrypt(nonce, key, bound(version, context)), version)
            for key, context in zip(keys, contexts, strict=True)
        ]

    def unwrap(self, wrapped: Sequence[Wrapped], contexts: Sequence[str]) -> list[bytes]:
        ciphers = {version: self._cipher(version) for version in {each.version for each in wrapped}}
        try:
            return [
                ciphers[each.version].decrypt(
                    each.content[:_NONCE], each.content[_NONCE:], bound(each.version, context)
                )
                for each, context in zip(wrapped, contexts, strict=True)
            ]
        except (InvalidTag, ValueError):
            raise Corrupt(
                f"A data key cannot be decrypted with the master keys in {self.place}.",
                fix="restore the master keys that were in use when the key was made.",
            ) from None

    def rotate(self) -> str:
        version = str(int(self.version()) + 1)
        if version == "2":
            self.make("1")
        self.make(version)
        return version

    def _cipher(self, version: str) -> AESGCM:
        key = self.load(version) if version.isascii() and version.isdigit() else None
        if key is None:
            raise Corrupt(
                f"The version {version[:40]!r} of the master key is not in {self.place}.",
                fix="restore the master keys from a backup.",
            )
        return AESGCM(key)


def bound(version: str, context: str) -> bytes:
    """Return what is authenticated with a wrapped key."""
    return f"{version}\0{context}".encode()
