"""Master keys in files, one a version: for an installation whose state folder is what has to be protected."""

from __future__ import annotations

from pathlib import Path

from mainspring.security.adapters.key_held import HeldKeys
from mainspring.security.secrets import load_or_create


class FileKeys(HeldKeys):
    """A `KeyService` over a folder of files `1`, `2` and so on, of 32 bytes each, private to their owner."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    def count(self) -> int:
        return max(self._versions(), default=0)

    def load(self, version: str) -> bytes | None:
        return self.make(version) if (self._folder / version).exists() else None

    def make(self, version: str) -> bytes:
        return load_or_create(self._folder / version)

    def describe(self) -> str:
        count = len(self._versions())
        return f"files in {self._folder}, {count} version{'s' * (count != 1)}"

    def _versions(self) -> list[int]:
        names = [path.name for path in self._folder.glob("*")] if self._folder.is_dir() else []
        return [int(name) for name in names if name.isascii() and name.isdigit()]
