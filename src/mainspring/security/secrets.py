"""Secrets of an installation: random bytes in a private file, created on first use."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.files import write_once


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


def _read(path: Path, size: int) -> bytes:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Invalid(f"The secret {path} is readable by other users (mode {mode:o}).", fix=f"run `chmod 600 {path}`.")
    content = path.read_bytes()
    if len(content) != size:
        raise Corrupt(f"The secret {path} has {len(content)} bytes, not {size}.", fix="restore it from a backup.")
    return content
