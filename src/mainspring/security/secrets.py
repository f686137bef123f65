"""Secrets of an installation: random bytes in a private file, made when they are first needed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.files import disk_errors, sync_folder


def load_or_create(path: Path, size: int = 32) -> bytes:
    """Return the secret at `path`, made of `size` random bytes if there is none yet.

    Of several processes that come first at once, one creates and all return the same bytes: the file appears whole,
    under a name that only one of them can take.

    Raises:
        Corrupt: The file has another size.
        Invalid: Others than its owner may read the file.
        StorageFull: There is no room; no file is there.
    """
    if not path.exists():
        _create(path, secrets.token_bytes(size))
    return _read(path, size)


def _create(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                path.hardlink_to(beside)  # unlike a rename, fails where somebody was faster
            except FileExistsError:
                return
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)


def _read(path: Path, size: int) -> bytes:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Invalid(f"The secret {path} can be read by others (mode {mode:o}).", fix=f"run `chmod 600 {path}`.")
    content = path.read_bytes()
    if len(content) != size:
        raise Corrupt(f"The secret {path} has {len(content)} bytes, not {size}.", fix="restore it from a backup.")
    return content
