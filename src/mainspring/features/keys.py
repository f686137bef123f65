"""The bytes that identify an entity in an online store, one-to-one with its key values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType, Schema
from mainspring.core.time import parse_instant

KEY_TYPES = (DType.String, DType.Boolean, DType.Int32, DType.Int64, DType.Timestamp)

_encode = msgspec.msgpack.Encoder().encode


def encode_key(values: Sequence[str | int | bool]) -> bytes:
    """Return the canonical bytes of an entity's key values, in the order of `Entity.keys`; instants as microseconds.

    A MessagePack array in its shortest form: every value carries its type and length, so different sequences never
    give the same bytes: `("1", "11")` is not `("11", "1")`, and the integer 1 is neither `"1"` nor true.

    Raises:
        Invalid: A value is null (a null key matches nothing), or is not a string, integer or boolean.
    """
    for value in values:
        if type(value) not in (str, int, bool):
            raise Invalid(f"{value!r} of type {type(value).__name__} cannot be part of an entity key.")
    try:
        return _encode(tuple(values))
    except (OverflowError, UnicodeEncodeError):
        raise Invalid(f"{values!r} cannot be an entity key.", fix="use 64-bit integers and valid Unicode.") from None


def typed_key(schema: Schema, texts: Mapping[str, str], owner: str) -> dict[str, str | int | bool]:
    """Return an entity's key values from texts, such as those of a form: `{"store": "42"}` is `{"store": 42}`.

    Instants are ISO 8601 with a UTC offset, and become UTC epoch microseconds; booleans are `true` or `false`.

    Args:
        schema: The entity's keys.
        owner: Owner of the keys, for messages.

    Raises:
        Invalid: A key is missing, or has another type.
    """
    missing = [name for name in schema if name not in texts]
    if missing:
        raise Invalid(f"{owner} needs the key {missing[0]!r}.", fix=f"give {', '.join(schema)}.")
    return {name: _typed(name, dtype, texts[name], owner) for name, dtype in schema.items()}


def _typed(name: str, dtype: DType, text: str, owner: str) -> str | int | bool:
    shown = text if len(text) <= 80 else f"{text[:80]}..."
    if dtype == DType.String:
        return text
    if dtype == DType.Boolean:
        if text not in ("true", "false"):
            raise Invalid(
                f"{shown!r} is not a boolean, which the key {name!r} of {owner} is.", fix="write true or false."
            )
        return text == "true"
    if dtype == DType.Timestamp:
        try:
            return parse_instant(text)
        except Invalid as error:
            raise Invalid(
                f"{shown!r} is not an instant, which the key {name!r} of {owner} is.", fix=error.fix
            ) from None
    bits = 31 if dtype == DType.Int32 else 63
    digits = text.removeprefix("-")
    # At most 19 digits: longer ones do not fit into 64 bits, and parsing millions of digits takes long.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19) or not -(2**bits) <= int(text) < 2**bits:
        raise Invalid(
            f"{shown!r} is not an {dtype.value}, which the key {name!r} of {owner} is.",
            fix=f"write a whole number of at most {bits} bits.",
        )
    return int(text)
