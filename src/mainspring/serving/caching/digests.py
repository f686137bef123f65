"""Digests of inputs: equal only for inputs that a model cannot tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

_SIZE = 32


def _plain(value: Any) -> Any:
    """Return an array as what it holds with its type and shape."""
    if not hasattr(value, "dtype"):
        raise TypeError(f"A {type(value).__name__} has no digest.")
    if value.dtype.hasobject:
        return value.dtype.str, value.shape, value.tolist()
    return value.dtype.str, value.shape, value.tobytes()


_encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode  # not JSON, in which NaN, infinities and null are one


def digest(of: object, columns: Mapping[str, Any]) -> bytes | None:
    """Return the digest of columns, in whatever order they are; `None` if a value has none.

    The same number as an integer and as a float has two digests, as have the two zeros: that costs a hit, never a wrong
    one.

    Args:
        of: All else that an answer depends on.
    """
    try:
        content = _encode((of, [(name, columns[name]) for name in sorted(columns)]))
    except (TypeError, OverflowError):
        return None
    return blake2b(content, digest_size=_SIZE).digest()
