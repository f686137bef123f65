"""Keys for stores with a maximum key length."""

from __future__ import annotations

import hashlib


def bounded(key: bytes, limit: int) -> bytes:
    """Return the key itself up to `limit` bytes, else `limit + 1` bytes that begin with its SHA-512.

    A hashed key is longer than any unhashed one, so the two never collide.
    """
    return key if len(key) <= limit else hashlib.sha512(key).digest().ljust(limit + 1, b"\0")
