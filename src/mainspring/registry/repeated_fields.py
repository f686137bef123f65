"""Fast scan of repeated numbers and short strings in an ONNX attribute, of which a tree ensemble has millions.

They are AttributeProto's floats (field 7, 32 bits each), ints (8, varints) and strings (9), which ONNX writes as one
field per value. The result equals that of a field-by-field walk: every field must begin where the one before it ends. A
number that is not in its shortest form ends a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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
