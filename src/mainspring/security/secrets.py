"""Secrets of an installation: random bytes in a private file, created on first use."""

from __future__ import annotations

import logging
import secrets
import stat
from pathlib import Path

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.files import write_once
from mainspring.core.time import SystemClock

_FRESH_US = 50_000  # after a change, within which the same clock tick may hold another one

_log = logging.getLogger(__name__)


def load_or_create(path: Path, size: int = 32) -> bytes:
    """Return the secret at `path`, made of `size` random bytes if there is none yet.

    If several processes need it first, one creates it and all return the same bytes: the file appears whole, under a
        name that only one process can take.

    Raises:
        Corrupt: The file has another size.
        Invalid: Others than its owner may read the file.
        StorageFull: There is no room; no file is there.
    """
    if not path.exists():
        write_once(path, secrets.token_bytes(size))
    return _read(path, size)


def load(path: Path, what: str, size: int = 32) -> bytes:
    """Return the secret that somebody else has put at `path`.

    Raises:
        Corrupt: The file has another size.
        Invalid: It is not there, or others can read it.
    """
    content = read_private(path, what)
    if len(content) != size:
        raise Corrupt(
            f"The {what} {path} has {len(content)} bytes, not {size}.", fix="copy it from the installation as it is."
        )
    return content


def read_private(path: Path, what: str) -> bytes:
    """Return the content of a file that only its owner may read.

    A group may read files of the system's administrator: distributions share keys with services in this way.

    Args:
        what: What the file is, for messages.

    Raises:
        Invalid: The file cannot be read, or others can read it.
    """
    try:
        status, content = path.stat(), path.read_bytes()
    except OSError as error:
        raise Invalid(
            f"The {what} {path} cannot be read: {error.strerror}.", fix="put the file there, or correct the profile."
        ) from None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 & ~(0o640 if status.st_uid == 0 else 0o600):
        raise Invalid(f"The {what} {path} is readable by other users (mode {mode:o}).", fix=f"run `chmod 600 {path}`.")
    return content


class PrivateText:
    """Text of a private file, such as an API key, as the file has it now: it is read again after each change.

    While the file cannot be read or is empty, as in the middle of a change, the text from before stays.

    Args:
        what: What the file is, for messages.

    Raises:
        Invalid: The file cannot be read, others can read it, or its text does not fit in a header.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._state = self._now()
        self._text = self._read()

    def __call__(self) -> str:
        state = self._now()
        if state != self._state:
            try:
                self._text = self._read() or self._text
            except Invalid as error:
                _log.error("The %s stays as it was: %s", self._what, error)
            fresh = state is not None and SystemClock().now() - state[-1] // 1000 < _FRESH_US
            self._state = None if fresh else state
        return self._text

    def _now(self) -> tuple[int, ...] | None:
        """Return the identity of the file's content, with the time of its last change at the end."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def _read(self) -> str:
        text = read_private(self._path, self._what).decode("latin-1").strip()
        if not text.isascii() or " " in text or (text and not text.isprintable()):
            raise Invalid(
                f"The {self._what} {self._path} has other characters than a header has.",
                fix="write it as it was given.",
            )
        return text


def _read(path: Path, size: int) -> bytes:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Invalid(f"The secret {path} is readable by other users (mode {mode:o}).", fix=f"run `chmod 600 {path}`.")
    content = path.read_bytes()
    if len(content) != size:
        raise Corrupt(f"The secret {path} has {len(content)} bytes, not {size}.", fix="restore it from a backup.")
    return content
