"""Keys for stores that limit their length."""

from __future__ import annotations

import hashlib


def bounded(key: bytes, limit: int) -> bytes:
    """Return the key itself up to `limit` bytes, else `limit + 1` bytes that begin with its SHA-512.

    What is hashed is longer than whatever is not, so a key that happens to look like a hash meets no other.
    """
    return key if len(key) <= limit else hashlib.sha512(key).digest().ljust(limit + 1, b"\0")
