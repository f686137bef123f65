"""Strict parser of ONNX's protobuf messages, so that no two parsers can disagree about a file.

Protobuf parsers differ where an encoding is not canonical: tags wider than 32 bits are truncated by some and kept by
others, fields of a wrong wire type or an unknown number are skipped, a repeated singular message is merged, the last of
several scalars or members of a oneof wins. A file that uses any of these could show one model to this check and another
to the runtime. So only fields of onnx/onnx-ml.proto (IR version 13) are accepted, each in its shortest encoding and
with its own wire type, a singular field once. Every serializer writes such files, up to the order of fields, which then
has no effect.

Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt

DEEPEST = 100  # nesting limit, the same as of protobuf's own parsers

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRES = {"int": _VARINT, "int32": _VARINT, "float": _FIXED32, "double": _FIXED64}  # else _BYTES
_WIDTHS = {"float": 4, "double": 8}

# Message -> its fields as number:kind; `*` marks a repeated field, `|` a member of the message's only oneof. A kind
# that is not a scalar is the name of another message. Enums are int32 on the wire.
_MESSAGES = {
    "Model": "1:int 2:str 3:str 4:str 5:int 6:str 7:Graph 8:OperatorSetId* 14:StringStringEntry* 20:TrainingInfo* "
    "25:Function* 26:DeviceConfiguration*",
    "OperatorSetId": "1:str 2:int",
    "Graph": "1:Node* 2:str 5:Tensor* 10:str 11:ValueInfo* 12:ValueInfo* 13:ValueInfo* 14:TensorAnnotation* "
    "15:SparseTensor* 16:StringStringEntry*",
    "Node": "1:str* 2:str* 3:str 4:str 5:Attribute* 6:str 7:str 8:str 9:StringStringEntry* 10:NodeDeviceConfiguration*",
    "Attribute": "1:str 2:float 3:int 4:bytes 5:Tensor 6:Graph 7:float* 8:int* 9:bytes* 10:Tensor* 11:Graph* 13:str "
    "14:Type 15:Type* 20:int32 21:str 22:SparseTensor 23:SparseTensor*",
    "Tensor": "1:int* 2:int32 3:Segment 4:float* 5:int32* 6:bytes* 7:int* 8:str 9:bytes 10:double* 11:int* 12:str "
    "13:StringStringEntry* 14:int32 16:StringStringEntry*",
    "Segment": "1:int 2:int",
    "StringStringEntry": "1:str 2:str",
    "SparseTensor": "1:Tensor 2:Tensor 3:int*",
    "ValueInfo": "1:str 2:Type 3:str 4:StringStringEntry*",
    "Type": "1:TensorType| 4:SequenceType| 5:MapType| 6:str 7:OpaqueType| 8:TensorType| 9:OptionalType|",
    "TensorType": "1:int32 2:TensorShape",
    "SequenceType": "1:Type",
    "MapType": "1:int32 2:Type",
    "OptionalType": "1:Type",
    "OpaqueType": "1:str 2:str",
    "TensorShape": "1:Dimension*",
    "Dimension": "1:int| 2:str| 3:str",
    "TensorAnnotation": "1:str 2:StringStringEntry*",
    "TrainingInfo": "1:Graph 2:Graph 3:StringStringEntry* 4:StringStringEntry*",
    "Function": "1:str 4:str* 5:str* 6:str* 7:Node* 8:str 9:OperatorSetId* 10:str 11:Attribute* 12:ValueInfo* 13:str "
    "14:StringStringEntry*",
    "DeviceConfiguration": "1:str 2:int32 3:str*",
    "NodeDeviceConfiguration": "1:str 2:ShardingSpec* 3:int32",
    "ShardingSpec": "1:str 2:int* 3:IntIntListEntry* 4:ShardedDim*",
    "IntIntListEntry": "1:int 2:int*",
    "ShardedDim": "1:int 2:SimpleShardedDim*",
    "SimpleShardedDim": "1:int| 2:str| 3:int",
}


@dataclass(frozen=True, slots=True)
class FieldKind:
    """Kind of one field: its scalar type or message, and its cardinality."""

    kind: str
    repeated: bool
    one_of: bool


def _fields_of(text: str) -> dict[int, FieldKind]:
    found = {}
    for each in text.split():
        number, _, kind = each.partition(":")
        found[int(number)] = FieldKind(kind.rstrip("*|"), kind.endswith("*"), kind.endswith("|"))
    return found


SCHEMA: dict[str, dict[int, FieldKind]] = {name: _fields_of(text) for name, text in _MESSAGES.items()}

Value = int | str | memoryview  # memoryview: bytes, a message, or packed or fixed-width numbers


def fields(
    message: memoryview, kind: str, name: str, runs: list[memoryview] | None = None
) -> Iterator[tuple[int, FieldKind, Value]]:
    """Yield (number, field, value) of one message, without descending into nested messages.

    Runs of an attribute's floats, ints and strings, of which a tree ensemble has millions, are checked but not yielded.

    Args:
        runs: Receives the bytes of those runs.
        kind: Type of the message, a key of `SCHEMA`.
        name: Name of the file, for error messages.

    Raises:
        Corrupt: The message is truncated, is not canonically encoded, or has a field that ONNX does not define.
    """
    known = SCHEMA[kind]
    has_runs = kind == "Attribute"
    seen: set[int] = set()
    position, end = 0, len(message)
    while position < end:
        if has_runs and (beyond := end_of_run(message, position)) > position:
            if runs is not None:
                runs.append(message[position:beyond])
            position = beyond
            continue
        key, position = _varint(message, position, name)
        number, wire = key >> 3, key & 7
        field = known.get(number)
        if field is None:
            raise Corrupt(f"{name} has an unknown field {number} in its {kind}.")
        if not field.repeated:
            slot = 0 if field.one_of else number
            if slot in seen:
                raise Corrupt(f"{name} has the field {number} of a {kind} twice; runtimes differ in which they use.")
            seen.add(slot)
        value, position = _value(message, position, wire, field, name)
        yield number, field, value


def _value(message: memoryview, position: int, wire: int, field: FieldKind, name: str) -> tuple[Value, int]:
    kind = field.kind
    expected = _WIRES.get(kind, _BYTES)
    if wire == _BYTES and (expected == _BYTES or field.repeated):
        size, position = _varint(message, position, name)
        value, position = _take(message, position, size, name)
        if kind == "str":
            return _text(value, name), position
        if expected != _BYTES:
            _check_packed(value, kind, name)
        return value, position
    if wire != expected:
        raise Corrupt(f"{name} is not a canonical ONNX file: the field at byte {position} has the wire type {wire}.")
    if wire == _VARINT:
        number, position = _varint(message, position, name)
        if kind == "int32" and 1 << 31 <= number < (1 << 64) - (1 << 31):
            raise Corrupt(f"{name} is not a canonical ONNX file: the number {number} is wider than its field.")
        return number, position
    return _take(message, position, _WIDTHS[kind], name)


def _take(message: memoryview, position: int, size: int, name: str) -> tuple[memoryview, int]:
    if position + size > len(message):
        raise Corrupt(f"{name} is truncated: a field of {size} bytes starts {len(message) - position} before its end.")
    return message[position : position + size], position + size


def _text(value: memoryview, name: str) -> str:
    try:
        text = bytes(value).decode()
    except UnicodeDecodeError:
        raise Corrupt(f"{name} contains text that is not UTF-8.") from None
    if "\0" in text:
        raise Corrupt(f"{name} contains text with a NUL, at which some runtimes end it.")
    return text


def _varint(message: memoryview, position: int, name: str) -> tuple[int, int]:
    start, value, shift = position, 0, 0
    while position < len(message) and shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value >= 1 << 64:
                raise Corrupt(
                    f"{name} is not a canonical ONNX file: the number at byte {start} is not in its shortest form."
                )
            return value, position
        shift += 7
    raise Corrupt(f"{name} is truncated or not an ONNX file: no number ends at byte {position}.")


def _check_packed(content: memoryview, kind: str, name: str) -> None:
    """Raise if packed numbers are truncated, or not each in its shortest form."""
    width = _WIDTHS.get(kind)
    if width is not None:
        plain = not len(content) % width
    elif not len(content):
        plain = True
    else:
        seen = np.frombuffer(content, np.uint8)
        lasts = np.flatnonzero(seen < 0x80)
        sizes = np.diff(lasts, prepend=-1)
        ends = seen[lasts]
        plain = bool(
            seen[-1] < 0x80
            and not ((ends == 0) & (sizes > 1)).any()
            and not (sizes > 10).any()
            and not ((sizes == 10) & (ends > 1)).any()
        )
    if not plain:
        raise Corrupt(
            f"{name} is not a canonical ONNX file: a list of numbers is truncated or not in its shortest form."
        )


# Fast scan of the repeated numbers and short strings of an attribute, of which a tree ensemble has millions: its floats
# (field 7, 32 bits each), ints (8, varints) and strings (9), which ONNX writes as one field per value. The result
# equals that of a field-by-field walk: every field must begin where the one before it ends. A number that is not in its
# shortest form ends a run.

_FLOAT, _INT, _STRING = 0x3D, 0x40, 0x4A  # first byte of each: field number and wire type
_SHORT = b"|".join(b"\\x%02x.{%d}" % (size, size) for size in range(32))
_INT_BYTES = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,8}[\x01-\x7f]|[\x80-\xff]{9}\x01)"  # 64 bits in their shortest form
_FIELD = rb"(?:\x3d.{4}|\x40" + _INT_BYTES + rb"|\x4a(?:" + _SHORT + rb"))"
_FEW, _MANY = (re.compile(_FIELD + rb"{1,%d}+" % count, re.DOTALL) for count in (32, 1024))
_WINDOW = 1024  # bytes of the first look; doubled each time that the run fills the window
_LARGEST_WINDOW = 1 << 20

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def end_of_run(message: memoryview, position: int) -> int:
    """Return the end of the run of complete numbers and short strings that begins at `position`; `position` if there is
    none.
    """
    one_by_one = _FEW
    while run := one_by_one.match(message, position):
        position = run.end()
        if position - run.start() >= 2 * 32:  # else the run has fewer than 32 fields and ends here
            position = _leap(message, position)
        one_by_one = _FEW if position - run.end() > 512 else _MANY  # a leap costs as much as hundreds of fields
    return position


def _leap(message: memoryview, position: int) -> int:
    """Return the end of consecutive fields of one kind from `position`, or a field boundary before it."""
    window = _WINDOW
    while position < len(message) and (kind := _KINDS.get(message[position])):
        seen = np.frombuffer(message[position : position + window], np.uint8)
        taken = kind(seen)
        position += taken
        if not taken or taken < len(seen) // 2:
            break
        window = min(2 * window, _LARGEST_WINDOW)
    return position


def _floats(seen: _Bytes) -> int:
    return 5 * _first_false(seen[::5][: len(seen) // 5] == _FLOAT)


def _ints(seen: _Bytes) -> int:
    short = _first_false((seen[:-1:2] == _INT) & (seen[1::2] < 0x80))
    return 2 * short if short >= 32 else _any_ints(seen)


def _any_ints(seen: _Bytes) -> int:
    """Return the length of a chain of ints. Keys and varints each end with a byte below 128, alternately."""
    ends = np.flatnonzero(seen < 0x80)
    keys, lasts = ends[: len(ends) // 2 * 2 : 2], ends[1::2]
    sizes, values = lasts - keys, seen[lasts]
    right = (seen[keys] == _INT) & ((sizes == 1) | (values > 0) & ((sizes < 10) | (sizes == 10) & (values == 1)))
    return _end_of_chain(keys, lasts + 1, right)


def _strings(seen: _Bytes) -> int:
    """Return the length of a chain of short strings. A text that contains the key's byte ends the chain early."""
    keys = np.flatnonzero(seen[:-1] == _STRING)
    sizes = seen[keys + 1].astype(np.intp)
    nexts = keys + 2 + sizes
    return _end_of_chain(keys, nexts, (sizes < 0x80) & (nexts <= len(seen)))


def _end_of_chain(starts: np.ndarray[Any, Any], nexts: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> int:
    """Return the end of the valid fields that follow one another without a gap from 0 on."""
    if not len(starts) or starts[0]:
        return 0
    right[1:] &= starts[1:] == nexts[:-1]
    count = _first_false(right)
    return int(nexts[count - 1]) if count else 0


def _first_false(flags: np.ndarray[Any, Any]) -> int:
    first = int(flags.argmin()) if len(flags) else 0
    return len(flags) if len(flags) and flags[first] else first


_KINDS: Mapping[int, Callable[[_Bytes], int]] = {_FLOAT: _floats, _INT: _ints, _STRING: _strings}


def numbers(message: memoryview, name: str) -> np.ndarray[Any, Any] | None:
    """Return the floats or the ints that an attribute lists, float32 or int64; `None` if it lists neither.

    Raises:
        Corrupt: As of `fields`; or the attribute lists values of several kinds.
    """
    runs: list[memoryview] = []
    found: list[np.ndarray[Any, Any]] = []
    for number, _, value in fields(message, "Attribute", name, runs):
        if isinstance(value, memoryview) and number in (7, 8):
            found.append(np.frombuffer(value, "<f4") if number == 7 else varints(value))
    content = b"".join(runs)
    if content[:1] == bytes([_FLOAT]):
        pairs = np.frombuffer(content, np.uint8)[: len(content) // 5 * 5].reshape(-1, 5)
        mixed = len(content) % 5 or (pairs[:, 0] != _FLOAT).any()
        found.append(np.ascontiguousarray(pairs[:, 1:]).view("<f4")[:, 0])
    elif content[:1] == bytes([_INT]):
        pairs = varints(content)
        mixed = len(pairs) % 2 or (pairs[::2] != _INT).any()
        found.append(pairs[1::2])
    else:
        mixed = bool(content) and bool(found)
    if mixed or len(found) > 1:
        raise Corrupt(f"{name} lists values of several kinds in one attribute.")
    return found[0] if found else None


def varints(content: bytes | memoryview) -> np.ndarray[Any, Any]:
    """Return consecutive varints as int64."""
    seen = np.frombuffer(content, np.uint8)
    lasts = np.flatnonzero(seen < 0x80)
    if not lasts.size:
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], lasts[:-1] + 1])
    place = np.arange(len(seen)) - np.repeat(starts, np.diff(np.append(starts, len(seen))))
    parts = np.left_shift((seen & 0x7F).astype(np.uint64), (7 * place).astype(np.uint64))
    return np.bitwise_or.reduceat(parts, starts).view(np.int64)
