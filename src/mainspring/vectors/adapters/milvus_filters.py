"""Filters as expressions of Milvus. Its servers before 2.5 take no parameters: constants are written into the text."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from mainspring.core.schema import DType, Schema
from mainspring.vectors.conditions import Among, Between, Condition, Every, Null, Some

ALL, NONE = 'id != ""', 'id == ""'
_LEAST = -(1 << 63)  # that Milvus's parser does not read
_ESCAPED = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n"})


def quoted(text: str) -> str:
    """Return a text as a constant."""
    return f'"{text.translate(_ESCAPED)}"'


def compiled(wanted: Condition, fields: Schema, columns: Mapping[str, tuple[str, str]]) -> str:
    """Return a condition as an expression.

    Args:
        columns: Field -> its column, and the column that says whether the field has a value.
    """
    if isinstance(wanted, (Every, Some)):
        joint, alone = (" and ", ALL) if isinstance(wanted, Every) else (" or ", NONE)
        return _joined(joint, [compiled(each, fields, columns) for each in wanted.parts]) or alone
    column, there = columns[wanted.field]
    if isinstance(wanted, Null):
        return f"{there} == {'true' if wanted.negated else 'false'}"
    within = _among(column, wanted) if isinstance(wanted, Among) else _between(column, wanted, fields[wanted.field])
    return f"({there} == true and {f'not ({within})' if wanted.negated else f'({within})'})"


def _joined(joint: str, parts: list[str]) -> str:
    """Return parts, joined in pairs: the parser takes a row of them as so many levels."""
    while len(parts) > 1:
        parts = [
            f"({joint.join(parts[place : place + 2])})" if place + 1 < len(parts) else parts[place]
            for place in range(0, len(parts), 2)
        ]
    return parts[0] if parts else ""


def _among(column: str, wanted: Among) -> str:
    known = [each for each in wanted.values if each != _LEAST]
    within = f"{column} in [{', '.join(map(_constant, known))}]" if known else NONE
    return within if len(known) == len(wanted.values) else f"({within} or {_at_least_value(column)})"


def _at_least_value(column: str) -> str:
    return f"{column} < {_LEAST + 1}"


def _between(column: str, wanted: Between, dtype: DType) -> str:
    if dtype is DType.String:
        return _ends(column, wanted)
    if dtype not in (DType.Float32, DType.Float64):
        if wanted.high == _LEAST:
            return _at_least_value(column)
        return f"{column} <= {wanted.high}" if wanted.low == _LEAST else _ends(column, wanted)
    low, low_in, high, high_in = wanted.low, wanted.low_in, wanted.high, wanted.high_in
    if low == -math.inf:
        low, low_in = (None if low_in else -sys.float_info.max), True
    if high == math.inf:
        high, high_in = (None if high_in else sys.float_info.max), True
    if low is None and high is None:
        return f"({column} < 0.0 or {column} >= 0.0)"  # all but NaN
    return _ends(column, Between(wanted.field, low, high, low_in, high_in))


def _ends(column: str, wanted: Between) -> str:
    ends = []
    if wanted.low is not None:
        ends.append(f"{column} {'>=' if wanted.low_in else '>'} {_constant(wanted.low)}")
    if wanted.high is not None:
        ends.append(f"{column} {'<=' if wanted.high_in else '<'} {_constant(wanted.high)}")
    return " and ".join(ends) or ALL


def _constant(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)
