"""Elements of a tensor as JSON carries them: nested lists made flat, and each value held against its datatype."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.serving.protocol.tensor import BYTES

LARGEST = {"FP16": 65504.0, "FP32": 3.4028234663852886e38, "FP64": 1.7976931348623157e308}
_KINDS: dict[str, frozenset[type]] = {
    "BOOL": frozenset({bool}),
    BYTES: frozenset({str}),
    **dict.fromkeys(LARGEST, frozenset({float, int})),
}
_WHOLE = frozenset({int})


def flat(data: list[Any]) -> list[Any]:
    """Return the innermost values of nested lists, in row-major order; what is flat is returned as it is.

    Raises:
        Invalid: Some values are nested deeper than others.
    """
    while data and type(data[0]) is list:
        flattened: list[Any] = []
        for row in data:
            if type(row) is not list:
                raise Invalid("Its data is nested unevenly.")
            flattened.extend(row)
        data = flattened
    return data


def checked(name: str, datatype: str, values: list[Any]) -> list[Any]:
    """Return the values of an input if its datatype holds them all; `None`, a null, may be among them.

    Raises:
        Invalid: One is of another kind or out of range; the message names it.
    """
    kinds = set(map(type, values))
    fits = _fits(datatype)
    if not (kinds - {NoneType} <= _KINDS.get(datatype, _WHOLE) and _in_range(values, kinds, fits)):
        wrong = next(value for value in values if value is not None and not fits(value))
        raise Invalid(f"Input {name!r} contains {shown_value(wrong)}, which is not {datatype}.")
    if datatype in LARGEST and int in kinds:
        return [float(value) if type(value) is int else value for value in values]
    return values


def shown_value(value: Any) -> str:
    """Return a value for a message, cut where it is too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _in_range(values: list[Any], kinds: set[type], fits: Callable[[Any], bool]) -> bool:
    if kinds <= {bool, str, NoneType}:
        return True
    known = [value for value in values if value is not None] if NoneType in kinds else values
    return fits(min(known)) and fits(max(known))


def _fits(datatype: str) -> Callable[[Any], bool]:
    kinds = _KINDS.get(datatype, _WHOLE)
    if datatype in ("BOOL", BYTES):
        return lambda value: type(value) in kinds
    if datatype in LARGEST:
        high: float = LARGEST[datatype]
        low = -high
    else:
        low, high = whole_range(datatype)
    return lambda value: type(value) in kinds and low <= value <= high


def whole_range(datatype: str) -> tuple[int, int]:
    """Return the smallest and the largest value of UINT8 to INT64."""
    signed = not datatype.startswith("U")
    bits = int(datatype.lstrip("UINT"))
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
