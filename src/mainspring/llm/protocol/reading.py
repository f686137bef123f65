"""Reading of JSON whose unknown fields are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from mainspring.core.errors import Invalid, TooLarge
from mainspring.core.json_content import decoded

T = TypeVar("T", bound=msgspec.Struct)
V = TypeVar("V")
Fields = dict[str, Any]
_MOST_BYTES = 4 << 20
_FIELDS: dict[type, frozenset[str]] = {}
# A number of tokens or answers, which bounds what an upstream does. A negative one means "without a bound" to some.
Bound = Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]


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


def read_bounded(body: bytes | memoryview) -> Fields:
    """Return the JSON object of a body that takes no long time to read.

    Raises:
        InvalidField: It is none.
        TooLarge: It is too large.
    """
    if len(body) > _MOST_BYTES:
        raise TooLarge(f"The body has {len(body):,} bytes.", fix=f"send at most {_MOST_BYTES:,}.")
    return read_object(body)


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
    names = _FIELDS.get(kind)
    if names is None:
        names = _FIELDS[kind] = frozenset(kind.__struct_fields__)
    if given.keys() <= names:
        return known, {}
    return known, {name: value for name, value in given.items() if name not in names}


def all_of(given: Sequence[Fields] | None, place: str, read: Callable[[Fields, str], V]) -> tuple[V, ...]:
    """Return what `read` makes of each element of a list and its path."""
    if not given:
        return ()
    return tuple([read(each, f"{place}[{number}]") for number, each in enumerate(given)])


def without_none(fields: Mapping[str, Any]) -> Fields:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
