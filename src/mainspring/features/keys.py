"""The bytes that name an entity in an online store: one sequence of key values, one sequence of bytes, and back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType

KEY_TYPES = (DType.String, DType.Boolean, DType.Int32, DType.Int64, DType.Timestamp)

_encode = msgspec.msgpack.Encoder().encode


def encode_key(values: Sequence[str | int | bool]) -> bytes:
    """Return the canonical bytes of an entity's key values, in the order of `Entity.keys`; instants as microseconds.

    A MessagePack array in its shortest form: every value carries its type and length, so different sequences never
    give the same bytes: `("1", "11")` is not `("11", "1")`, and the integer 1 is neither `"1"` nor true.

    Raises:
        Invalid: A value is null (a null key matches nothing, so it names nothing), or is no string, integer or boolean.
    """
    for value in values:
        if type(value) not in (str, int, bool):
            raise Invalid(f"{value!r} of type {type(value).__name__} cannot be part of an entity's key.")
    try:
        return _encode(tuple(values))
    except (OverflowError, UnicodeEncodeError):
        raise Invalid(f"{values!r} cannot be an entity's key.", fix="use 64-bit integers and valid Unicode.") from None
