"""The hash of a category, by which bundles and sketches know it."""

from __future__ import annotations

import zlib


def text_hash(text: str) -> int:
    """Return the 32-bit hash of a category, the same in each process and release."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))
