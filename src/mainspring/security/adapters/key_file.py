"""Master keys in files, one a version: for an installation whose state folder is what has to be protected."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mainspring.core.errors import Corrupt
from mainspring.security.model import Wrapped
from mainspring.security.secrets import load_or_create

_NONCE = 12


class FileKeys:
    """A `KeyService` over a folder of files `1`, `2` and so on, of 32 bytes each, private to their owner.

    Nonces are random: under a master key far fewer than 2^32 keys are wrapped (NIST SP 800-38D, 8.3).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def version(self) -> str:
        return str(max(self._versions(), default=1))

    def wrap(self, keys: Sequence[bytes], contexts: Sequence[str]) -> list[Wrapped]:
        version = self.version()
        cipher = AESGCM(load_or_create(self._folder / version))
        return [
            Wrapped((nonce := os.urandom(_NONCE)) + cipher.encrypt(nonce, key, _about(version, context)), version)
            for key, context in zip(keys, contexts, strict=True)
        ]

    def unwrap(self, wrapped: Sequence[Wrapped], contexts: Sequence[str]) -> list[bytes]:
        ciphers = {version: self._cipher(version) for version in {each.version for each in wrapped}}
        try:
            return [
                ciphers[each.version].decrypt(
                    each.content[:_NONCE], each.content[_NONCE:], _about(each.version, context)
                )
                for each, context in zip(wrapped, contexts, strict=True)
            ]
        except (InvalidTag, ValueError):
            raise Corrupt(
                f"A data key cannot be decrypted with the master keys in {self._folder}.",
                fix="restore the folder that was in use when the key was made.",
            ) from None

    def rotate(self) -> str:
        version = str(int(self.version()) + 1)
        if version == "2":
            load_or_create(self._folder / "1")
        load_or_create(self._folder / version)
        return version

    def describe(self) -> str:
        count = len(self._versions())
        return f"files in {self._folder}, {count} version{'s' * (count != 1)}"

    def _versions(self) -> list[int]:
        names = [path.name for path in self._folder.glob("*")] if self._folder.is_dir() else []
        return [int(name) for name in names if name.isascii() and name.isdigit()]

    def _cipher(self, version: str) -> AESGCM:
        if not (version.isascii() and version.isdigit() and (self._folder / version).exists()):
            raise Corrupt(
                f"The version {version[:40]!r} of the master key is not in {self._folder}.",
                fix="restore the folder from a backup.",
            )
        return AESGCM(load_or_create(self._folder / version))


def _about(version: str, context: str) -> bytes:
    return f"{version}\0{context}".encode()
