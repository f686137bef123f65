"""Reading of JSON whose unknown fields are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.json_content import decoded

T = TypeVar("T", bound=msgspec.Struct)
Fields = dict[str, Any]


class InvalidField(Invalid):
    """A request's field is wrong. `param` is its path."""

    def __init__(self, what: str, param: str = "", *, fix: str | None = None) -> None:
        super().__init__(what, fix=fix)
        self.param = param


def read_object(body: bytes | memoryview) -> Fields:
    """Return a body's JSON object.

    Raises:
        InvalidField: It is none.
    """
    try:
        found = decoded(body, Fields)
    except msgspec.DecodeError as error:
        raise InvalidField(f"The body is no JSON object: {error}.") from None
    return found


def split(given: Any, kind: type[T], place: str = "") -> tuple[T, Fields]:
    """Return an object's known fields as `kind`, and the others.

    Args:
        place: Path of the object in the body.

    Raises:
        InvalidField: A field has another type.
    """
    try:
        known = msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        param = f"{place}{path.rstrip('`')}".lstrip(".")
        raise InvalidField(f"{param or 'The body'}: {what}.", param) from None
    names = kind.__struct_fields__
    return known, {name: value for name, value in given.items() if name not in names}


def whole_number(value: Any, place: str) -> int | None:
    """Return a number of tokens or answers, which bounds what an upstream does; `None` for none.

    Raises:
        InvalidField: It is no number from 1 to 2^31 - 1. A negative one means "without a bound" to some upstreams.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
        raise InvalidField(f"{place}: Expected `int` from 1 to 2^31 - 1.", place)
    return value


def without_none(fields: Mapping[str, Any]) -> Fields:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
