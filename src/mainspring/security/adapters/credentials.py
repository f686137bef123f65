"""Places of the command line's sign-in: a private file, and the keyring of the operating system."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mainspring.core.errors import Unavailable
from mainspring.core.files import write_atomic
from mainspring.security.secrets import read_private

_SERVICE = "mainspring"


class FileCredentials:
    """A file that only its owner may read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path)

    def load(self) -> bytes | None:
        return read_private(self._path, "sign-in").strip() if self._path.exists() else None

    def save(self, content: bytes) -> None:
        write_atomic(self._path, content)

    def delete(self) -> bool:
        with suppress(FileNotFoundError):
            self._path.unlink()
            return True
        return False


class KeyringCredentials:
    """An entry of a keyring.

    Args:
        keyring: The module of the package `keyring`.
        name: Name of the entry.
    """

    place = "the keyring"

    def __init__(self, keyring: Any, name: str) -> None:
        self._keyring = keyring
        self._name = name

    def load(self) -> bytes | None:
        found: str | None = self._asked(lambda: self._keyring.get_password(_SERVICE, self._name))
        return None if found is None else found.encode()

    def save(self, content: bytes) -> None:
        self._asked(lambda: self._keyring.set_password(_SERVICE, self._name, content.decode()))

    def delete(self) -> bool:
        if self.load() is None:
            return False
        self._asked(lambda: self._keyring.delete_password(_SERVICE, self._name))
        return True

    def _asked(self, ask: Any) -> Any:
        try:
            return ask()
        except Exception as error:  # backends raise what the libraries beneath them raise
            raise Unavailable(
                f"The keyring does not answer: {str(error) or type(error).__name__}.",
                fix="unlock it, in a session that has one.",
            ) from None
